"""Claim I6, and the flag that gives it its whole range."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from refimpl import claims
from refimpl.claims import induction
from refimpl.induction import theory
from tests.test_claims import TEXT

I6 = induction.gap_of_random_embeddings
INSTANCE = dict(V=8, T=16, strength=0.5)


def holds(seed, **kwargs):
    """Whether the claim holds on this instance, and did not raise."""
    outcome = claims.evaluate(I6, {**INSTANCE, "seed": seed}, TEXT, **kwargs)
    assert not outcome.message, outcome.message
    return not claims.fails(I6, outcome)


@pytest.fixture
def small(monkeypatch):
    """Widths that cost little, over the same factor of 4 as the default ones."""
    monkeypatch.setattr(induction, "WIDTHS", (96, 136, 192, 272, 384))


def test_gap_falls_with_the_root_of_the_width(small):
    held = [holds(seed) for seed in range(5)]
    assert sum(held) >= 4       # an interval of 99 % misses one true slope in a hundred


def test_entries_that_keep_their_variance_break_it(small):
    assert not any(holds(seed, control=True) for seed in range(3))


@pytest.mark.parametrize("slope", [-0.25, -1.0, 0.0, 0.5])
def test_other_slopes_are_caught(slope, small, monkeypatch):
    monkeypatch.setattr(theory, "embedding_slope", lambda: slope)
    assert not all(holds(seed) for seed in range(3))


def test_full_uses_all_widths(monkeypatch):
    monkeypatch.setattr(induction, "ALL_WIDTHS", (8, 16, 32))
    seen = []
    original = induction.init
    monkeypatch.setattr(induction, "init", lambda V, d, *rest: (seen.append(d), original(V, d, *rest))[1])
    claims.evaluate(I6, {**INSTANCE, "seed": 0}, TEXT, full=True)
    assert sorted(set(seen)) == [8, 16, 32]


@settings(max_examples=5)
@given(st.integers(0, 2 ** 31 - 1))
def test_gaps_are_of_order_one_over_root_d(seed):
    """One width: the gap is between 0.1 and 30 times d^(−1/2), the logits being of order one to ten."""
    from refimpl.induction import Bigram, construct, forward, init
    rng, d = np.random.default_rng(seed), 256
    bigram, z = Bigram.random(6, rng), rng.integers(0, 6, 8)
    params = construct(init(6, d, 8, rng), bigram, [0], 1, 1, 1)
    gap = forward(params, z).logits - theory.logits(z, np.log(bigram.pi_b), [0], 1, 1, 1)
    assert 0.1 <= np.sqrt(np.mean(gap ** 2) * d) <= 30
