"""The fast path on V×V tables (claim I8), and the ledger of what each memory says (claim I9)."""

from refimpl.induction.tables import ledger
from refimpl.induction.tables.fast import loss_and_grads
from refimpl.induction.tables.plain import histories, logits

__all__ = ["histories", "ledger", "logits", "loss_and_grads"]
