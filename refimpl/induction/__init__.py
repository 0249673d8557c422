"""System I: a two-layer attention transformer as associative memory, on trigger-bigram text."""

from refimpl.induction import nopos, probes, tables, theory
from refimpl.induction.memory import construct, orthonormal_frame
from refimpl.induction.model import Params, Trace, forward, init, loss, loss_and_grads
from refimpl.induction.tables import ledger
from refimpl.induction.task import Batch, Bigram, sample
from refimpl.induction.theory import dynamics as moments

__all__ = ["Batch", "Bigram", "Params", "Trace", "construct", "forward", "init", "ledger", "loss",
           "loss_and_grads", "moments", "nopos", "orthonormal_frame", "probes", "sample", "tables", "theory"]
