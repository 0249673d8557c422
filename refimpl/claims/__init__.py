"""Claims, and the audit that holds each of them against the numbers."""

from refimpl.claims.claim import Case, Claim, claim, draw
from refimpl.claims.verdict import Outcome, breaks, compare, evaluate, fails
from refimpl.claims.audit import CONTROLS, FULL, Result, audit, builtin, collect, load, shrink

__all__ = ["CONTROLS", "Case", "Claim", "FULL", "Outcome", "Result", "audit", "breaks", "builtin", "claim",
           "collect", "compare", "draw", "evaluate", "fails", "load", "shrink"]
