"""A claim: a statement, where its instances come from, and the check of one instance.

A claim is a function that draws an instance and returns (predicted, observed): predicted by a closed
form, observed in the model. It declares the space that its instances come from, and one control: the
same check with one assumption broken, which must fail, or the check could not have failed either.

    @claim("X1", "the weights of a softmax sum to one", source="textbook", provenance="derived",
           control="scores exponentiated, not normalised", n=(1, 50), scale=(0.0, 100.0))
    def softmax_sums_to_one(case, n, scale):
        weights = np.exp(case.rng.normal(0, scale, n))
        return 1.0, weights.sum() if case.control else (weights / weights.sum()).sum()

In a file of your own, `python -m refimpl audit --from FILE.py` audits it.
"""

from typing import Any, Callable, NamedTuple

import numpy as np

from refimpl import check

PROVENANCE = ("paper", "formalised", "derived")


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
    exact: bool
    tolerance: float
    reason: str                 # why this tolerance
    control: str                # which assumption the control breaks
    cases: int                  # instances by default
    derivation: Any             # what holds the derivation as its docstring
    space: dict                 # name -> (low, high) of int or of float, or a tuple of strings
    check: Callable             # (case, **instance) -> predicted, observed[, allowed]


def claim(id, statement, *, source, provenance, control, exact=True, tolerance=1e-12,
          reason="rounding of a few hundred operations", cases=25, derivation=None, **space):
    """Make a Claim of the function below.

    The function takes a Case and the names of `space`, and returns predicted and observed: numbers,
    arrays, or tuples of them. They agree if each |predicted − observed| is at most `tolerance` times
    the largest entry of the two arrays. A claim that is not exact returns a third item, the allowed
    difference, and its error is counted in units of that (so its tolerance is 1).

    Every other keyword is a range: two ints, two floats (both ends included) or several strings.
    Raises ValueError on an unknown provenance or a range that is none.
    """
    check.choice("provenance", provenance, PROVENANCE)
    for name, values in space.items():
        if not (is_range(values, int) or is_range(values, float) or
                (isinstance(values, tuple) and values and all(isinstance(v, str) for v in values))):
            raise ValueError(f"{name}: expected (low, high) of two ints or two floats, or a tuple of "
                             f"strings, got {values!r}")

    def decorate(function):
        return Claim(id, statement, source, provenance, exact, tolerance if exact else 1.0, reason,
                     control, cases, derivation or function, space, function)
    return decorate


def is_range(values, kind):
    """Whether `values` is (low, high) of this type, in order."""
    return isinstance(values, tuple) and len(values) == 2 and \
        all(type(v) is kind for v in values) and values[0] <= values[1]


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
