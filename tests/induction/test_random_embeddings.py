"""Claims I6 and I12, and the flag that gives it its whole range."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import ks_2samp

from refimpl import claims
from refimpl.claims import embeddings
from refimpl.induction import Bigram, construct, forward, init, theory
from tests.test_claims import TEXT

I6 = embeddings.gap_of_random_embeddings
INSTANCE = dict(V=8, T=12, strength=0.5)


def holds(seed, **kwargs):
    """Whether the claim holds on this instance, and did not raise."""
    outcome = claims.evaluate(I6, {**INSTANCE, "seed": seed}, TEXT, **kwargs)
    assert not outcome.message, outcome.message
    return not claims.fails(I6, outcome)


def test_gap_falls_with_the_root_of_the_width():
    assert all(holds(seed) for seed in range(3))


def test_entries_that_keep_their_variance_break_it():
    assert not any(holds(seed, control=True) for seed in range(2))


@pytest.mark.parametrize("slope", [-0.4, -0.6])
def test_close_slopes_are_caught(slope, monkeypatch):
    monkeypatch.setattr(theory, "embedding_slope", lambda: slope)
    assert not any(holds(seed) for seed in range(2))


def gaps(frames, bigram, z):
    """Mean square gap of each frame, attention not uniform."""
    expected = theory.logits(z, np.log(bigram.pi_b), [0], 1.0, 1.0, 2.0)
    models = (construct(frame, bigram, [0], 1.0, 1.0, 2.0) for frame in frames)
    return np.array([((forward(params, z).logits - expected) ** 2).mean() for params in models])


def test_narrow_models_have_the_law_of_wide_ones(rng):
    """Few coordinates, all inner products: the gaps of 3000 drawn models of each kind have one law."""
    V, T, d = 3, 4, 13
    bigram, z = Bigram.random(V, rng), np.array([0, 1, 2, 0])
    wide = gaps((init(V, d, T, rng) for _ in range(3000)), bigram, z)

    def narrow(width, own=True):
        drawn = (embeddings.draw_coordinates(rng, V, T, width) for _ in range(3000))
        if not own:
            drawn = (each._replace(values=np.eye(3 * V + T)) for each in drawn)
        return ks_2samp(wide, gaps((embeddings.narrow(each, V) for each in drawn), bigram, z)).pvalue
    assert narrow(d) > 0.01
    # Controls: three dimensions more, and WV orthogonal.
    assert narrow(d + 3) < 1e-4 and narrow(d, own=False) < 1e-4


def test_coordinates_tend_to_the_frame_with_their_variances(rng):
    frame, variances = embeddings.mean_and_spread(3, 4)
    d = 10 ** 6
    drawn = [embeddings.draw_coordinates(rng, 3, 4, d) for _ in range(2000)]
    for mean, variance, *fields in zip(frame, variances, *drawn):
        added = np.sqrt(d) * (np.array(fields) - mean)
        # Five standard deviations of a mean and of a variance over 2000 draws.
        assert abs(added.mean(axis=0)).max() < 5 / 2000 ** 0.5
        assert abs(added.var(axis=0) - variance).max() < 5 * (2 / 2000) ** 0.5


def test_full_draws_ten_times_as_often(monkeypatch):
    seen = []
    original = embeddings.draw_coordinates
    monkeypatch.setattr(embeddings, "WIDTHS", np.array([64.0, 128.0, 256.0]))
    monkeypatch.setattr(embeddings, "DRAWS", 2)
    monkeypatch.setattr(embeddings, "draw_coordinates",
                        lambda *args: (seen.append(args[-1]), original(*args))[1])
    claims.evaluate(I6, {**INSTANCE, "seed": 0}, TEXT, full=True)
    assert len(seen) == 60 and set(seen) == {64, 128, 256}


@settings(max_examples=5)
@given(st.integers(0, 2 ** 31 - 1))
def test_gaps_are_of_order_one_over_root_d(seed):
    """One width: the gap is between 0.1 and 30 times d^(−1/2), the logits being of order one to ten."""
    rng, d = np.random.default_rng(seed), 256
    bigram, z = Bigram.random(6, rng), rng.integers(0, 6, 8)
    params = construct(init(6, d, 8, rng), bigram, [0], 1, 1, 1)
    gap = forward(params, z).logits - theory.logits(z, np.log(bigram.pi_b), [0], 1, 1, 1)
    assert 0.1 <= np.sqrt(np.mean(gap ** 2) * d) <= 30
