"""System R: one attention layer in front of an MLP memory of facts infers a relation and recalls."""

from refimpl.recall import batched, implicit, theory, theory as finetuning
from refimpl.recall.memory import construct
from refimpl.recall.model import (
    Params, Trace, forward, init, loss, loss_and_grads, position_logits, with_position_logits)
from refimpl.recall.task import Facts, Prompts, sample

__all__ = ["Facts", "Params", "Prompts", "Trace", "batched", "construct", "finetuning", "forward", "implicit",
           "init", "loss", "loss_and_grads", "position_logits", "sample", "theory", "with_position_logits"]
