"""Claims, and the audit that holds each of them against the numbers."""

from refimpl.claims.claim import Case, Claim, claim, draw
from refimpl.claims.audit import (
    CONTROLS, FULL, Outcome, Result, audit, builtin, collect, distance, evaluate, fails, load, shrink)

__all__ = ["CONTROLS", "Case", "Claim", "FULL", "Outcome", "Result", "audit", "builtin", "claim", "collect",
           "distance", "draw", "evaluate", "fails", "load", "shrink"]
