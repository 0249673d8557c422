"""Claims, and the audit that holds each of them against the numbers."""

from refimpl.claims.claim import Case, Claim, SEEDS, claim, collect, covers, draw, is_in, load, misfits
from refimpl.claims.verdict import Outcome, breaks, compare, evaluate, fails
from refimpl.claims.audit import CONTROLS, ENCLOSED, FULL, KEYS, Result, audit, builtin, shrink

__all__ = ["CONTROLS", "Case", "Claim", "ENCLOSED", "FULL", "KEYS", "Outcome", "Result", "SEEDS", "audit",
           "breaks", "builtin", "claim", "collect", "compare", "covers", "draw", "evaluate", "fails", "is_in",
           "load", "misfits", "shrink"]
