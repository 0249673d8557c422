"""A claim: a statement, where its instances come from, and the check of one instance.

The check draws an instance and returns (predicted, observed): predicted by a closed form, observed in the
model. One control goes with it: the same check with one assumption broken. It must fail, or the check
could not have failed either.

    @claim("X1", "the weights of a softmax sum to one", source="textbook", provenance="derived",
           control="scores exponentiated, not normalised", n=(1, 50), scale=(0.0, 100.0))
    def softmax_sums_to_one(case, n, scale):
        weights = np.exp(case.rng.normal(0, scale, n))
        return 1.0, weights.sum() if case.control else (weights / weights.sum()).sum()

In a file of your own, `python -m refimpl audit --from FILE.py` audits it.
"""

import math
from typing import Any, Callable, NamedTuple

import numpy as np

from refimpl import check

PROVENANCE = ("paper", "formalised", "derived")
KINDS = ("exact", "inequality", "limit")


class Case(NamedTuple):
    """What a claim gets beside its instance."""

    rng: np.random.Generator    # seeded by the instance
    control: bool               # break the assumption that the claim names
    text: str                   # real text, for claims about text
    full: bool = False          # take the time for the whole range, where a claim measures a trend


class Claim(NamedTuple):
    """A statement, the space of its instances, and the check of one instance."""

    id: str
    statement: str
    source: str
    provenance: str             # paper, formalised or derived
    kind: str                   # exact, inequality or limit
    tolerance: float
    reason: str                 # why this tolerance
    control: str                # which assumption the control breaks
    cases: int                  # instances by default
    derivation: Any             # what holds the derivation as its docstring
    space: dict                 # name -> (low, high) of int or of float, or a tuple of strings
    control_space: dict         # the same for instances of the control
    check: Callable             # (case, **instance) -> predicted, observed[, scale]

    @property
    def exact(self):
        """Whether it holds without a limit."""
        return self.kind != "limit"


def claim(id, statement, *, source, provenance, control, kind="exact", tolerance=1e-12,
          reason="rounding of a few hundred operations", cases=25, derivation=None, control_space=None,
          **space):
    """Make a Claim of the function below.

    The function takes a Case and the names of `space`. What it returns depends on the kind:

    exact        predicted, observed: numbers, arrays, or tuples of them, of the same shapes. Each
                 |predicted − observed| is at most `tolerance` times the largest entry of the two arrays.
                 A third item, `scale`, is the least size that counts, for numbers that may vanish.
    inequality   smaller, larger: each smaller ≤ larger, up to `tolerance` times the largest entry. The
                 audit reports the smallest margin, (larger − smaller) over that size. A third item,
                 `scale`, is the size.
    limit        predicted, observed, allowed: each |predicted − observed| ≤ allowed, which the check
                 derives. For single numbers the audit reports which values it would have rejected.

    The third item is one number for all parts, or a tuple with one item for each part.

    Every other keyword is a range: two ints, two floats (both ends included) or several strings.
    `control_space` narrows ranges for the control to instances in which there is something to break: it must
    fail in all of them. Raises ValueError on an unknown kind or provenance, a tolerance that is not a
    finite number ≥ 0, and ranges that are none.
    """
    check.choice("provenance", provenance, PROVENANCE)
    check.choice("kind", kind, KINDS)
    for name, words in (("id", id), ("statement", statement), ("source", source), ("control", control)):
        check.instance(name, words, str, "a string")
    tolerance = check.real("tolerance", tolerance, 0) if kind != "limit" else 1.0
    cases = check.integer("cases", cases, 1)
    control_space = {**space, **check.instance("control_space", control_space or {}, dict, "a dict")}
    if set(control_space) != set(space):
        raise ValueError(f"control_space: expected names among {', '.join(space)}, "
                         f"got {', '.join(set(control_space) - set(space))}")
    for name, values in [*space.items(), *control_space.items()]:
        if not (is_range(values, int) or is_range(values, float) or is_choice(values)):
            raise ValueError(f"{name}: expected (low, high) of two ints or two finite floats, or a tuple of "
                             f"strings, got {values!r}")

    def decorate(function):
        return Claim(id, statement, source, provenance, kind, tolerance, reason, control, cases,
                     derivation or function, space, control_space, function)
    return decorate


def is_range(values, kind):
    """Whether `values` is (low, high) of this type, finite and in order."""
    return (isinstance(values, tuple) and len(values) == 2 and all(type(v) is kind for v in values)
            and all(math.isfinite(v) for v in values) and values[0] <= values[1])


def is_choice(values):
    """Whether `values` is a tuple of different strings."""
    return (isinstance(values, tuple) and len(values) > 0 and all(isinstance(v, str) for v in values)
            and len(set(values)) == len(values))


def draw(space, rng, index):
    """Draw an instance: all lows first, all highs second, then at random with a quarter at the ends."""
    instance = {}
    for name, values in space.items():
        end = index if index < 2 else int(rng.integers(8))
        if end < 2:
            instance[name] = values[-end]
        elif isinstance(values[0], int):
            instance[name] = int(rng.integers(values[0], values[1] + 1))
        elif isinstance(values[0], float):
            instance[name] = float(rng.uniform(*values))
        else:
            instance[name] = values[rng.integers(len(values))]
    instance["seed"] = int(rng.integers(2 ** 31))
    return instance
