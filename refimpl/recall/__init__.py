"""System R: one attention layer in front of an MLP memory of facts infers a relation and recalls."""

from refimpl.recall import batched, finetuning, implicit, theory
from refimpl.recall.memory import construct
from refimpl.recall.model import Params, Trace, forward, loss, loss_and_grads
from refimpl.recall.task import Facts, Prompts, sample

__all__ = ["Facts", "Params", "Prompts", "Trace", "batched", "construct", "finetuning", "forward", "implicit",
           "loss", "loss_and_grads", "sample", "theory"]
