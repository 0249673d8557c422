"""What hypothesis draws: tokens, bigrams, tables, strengths, down to T = 1, V = 2, n = 1, R = 2."""

import numpy as np
from hypothesis import strategies as st

from refimpl import induction, recall

seeds = st.integers(0, 2 ** 31 - 1)
encodings = st.sampled_from(["relative", "absolute"])
# Zero, ordinary and huge: attention from uniform to hard, logits up to 1e3.
strengths = st.one_of(st.sampled_from([0.0, 1.0, 1e3]), st.floats(0, 30))


@st.composite
def prompts(draw, max_V=6, max_T=12):
    """(V, tokens (T,)): few tokens, so that repetitions and ties are common."""
    V = draw(st.integers(2, max_V))
    tokens = draw(st.lists(st.integers(0, V - 1), min_size=1, max_size=max_T))
    return V, np.array(tokens)


@st.composite
def bigrams(draw, V):
    """A bigram over V tokens: counts 1 … 4 (ties are common), or uniform on the simplex."""
    if draw(st.booleans()):
        return induction.Bigram.random(V, np.random.default_rng(draw(seeds)))
    row = st.lists(st.integers(1, 4), min_size=V, max_size=V)
    return induction.Bigram.from_counts(np.array(draw(st.lists(row, min_size=V, max_size=V))))


@st.composite
def batches(draw, max_V=5, max_T=6):
    """(params, tokens (B, T+1), mask (B, T)) with random weights; at least one position in the loss."""
    rng = np.random.default_rng(draw(seeds))
    V, d, T = draw(st.integers(2, max_V)), draw(st.integers(2, 5)), draw(st.integers(1, max_T))
    B, L = draw(st.integers(1, 3)), T + draw(st.integers(0, 2))
    scale = draw(st.sampled_from([0.1, 1.0]))
    # Scores of order 1: where attention saturates, its gradient cancels and has fewer digits.
    params = induction.Params(*(a + rng.normal(0, scale * d ** -0.5, a.shape)
                                for a in induction.init(V, d, L, rng)))
    mask = rng.random((B, T)) < 0.5
    mask.flat[rng.integers(mask.size)] = True
    return params, rng.integers(0, V, (B, T + 1)), mask


@st.composite
def tables(draw, n):
    """A Latin table with room for n+1 subjects: random, months or pitches."""
    kind = draw(st.sampled_from(["latin", "months", "pitches"]))
    R = draw(st.integers(2, 6))
    if kind != "latin":
        return getattr(recall.Facts, kind)(R)
    N = max(R, n + 1) + draw(st.integers(0, 8))
    return recall.Facts.latin(N, R, np.random.default_rng(draw(seeds)))
