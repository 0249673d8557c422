"""Every claim of the project as a property."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl import claims
from tests import strategies

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune"
BUILTIN = {c.id: c for c in claims.builtin()}


def instances(space):
    """A hypothesis strategy for the instances of a space."""
    def values(low_high):
        if isinstance(low_high[0], int):
            return st.integers(*low_high)
        return st.floats(*low_high) if isinstance(low_high[0], float) else st.sampled_from(low_high)
    return st.fixed_dictionaries({**{n: values(v) for n, v in space.items()}, "seed": strategies.seeds})


@pytest.mark.parametrize("id", BUILTIN)
def test_claim_holds(id):
    # A trend is a statement about many instances: as often as the audit tries it.
    @settings(max_examples=20 if BUILTIN[id].exact else min(BUILTIN[id].cases, 5))
    @given(instances(BUILTIN[id].space))
    def holds(instance):
        outcome = claims.evaluate(BUILTIN[id], instance, TEXT)
        assert outcome.error <= BUILTIN[id].tolerance, outcome.message
    holds()


@pytest.mark.parametrize("id", BUILTIN)
def test_claim_is_described(id):
    c = BUILTIN[id]
    assert len(c.statement) <= 60 and c.source and c.control and c.reason and c.check.__doc__
    assert len(c.derivation.__doc__) > 60
    assert pickle.loads(pickle.dumps(c)) is c


def test_ids_are_distinct_and_complete():
    assert len(BUILTIN) == len(claims.builtin())
    wanted = ["M1", "M2", "M3", *(f"I{k}" for k in range(1, 10)), "I11", *(f"R{k}" for k in range(1, 11)),
              "R14", "IG", "RG"]
    assert set(wanted) <= set(BUILTIN)
