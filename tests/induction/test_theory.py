"""I1–I5 on prompts that hypothesis draws and shrinks, and the corners that the theory names."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refimpl.gradcheck import relative_error
from refimpl.induction import construct, forward, init, orthonormal_frame, theory
from tests import strategies

HARD = 60.0     # e^−60 is far below rounding


@given(st.data(), strategies.prompts(), strategies.encodings, strategies.strengths,
       strategies.strengths, strategies.strengths, st.integers(1, 12))
def test_logits_equal_the_model_on_any_prompt(data, prompt, encoding, b1, b2, bo, L0):
    V, z = prompt
    triggers = data.draw(st.lists(st.integers(0, V - 1), min_size=1, unique=True))
    bigram = data.draw(strategies.bigrams(V))
    L0 = None if encoding == "relative" else min(L0, len(z))
    frame = orthonormal_frame(V, len(z), np.random.default_rng(0), encoding)
    params = construct(frame, bigram, triggers, b1, b2, bo, encoding, L0)
    trace = forward(params, z, encoding)
    predicted = theory.logits(z, np.log(bigram.pi_b), triggers, b1, b2, bo, encoding, L0)
    # Scores have rounding 1e-15 of their size, and the exponential passes it on.
    tolerance = 1e-12 + 1e-14 * max(b1, b2)
    assert relative_error(theory.previous_token_attention(len(z), b1, encoding, L0),
                          trace.attention1) <= tolerance
    assert relative_error(predicted, trace.logits) <= tolerance


@pytest.mark.parametrize("T", [4, 5, 6])
def test_absolute_positions_stop_exactly_at_the_training_length(T, rng):
    A1 = theory.previous_token_attention(T, 3.0, "absolute", train_length=4)
    np.testing.assert_array_equal(A1[:4, :4], theory.previous_token_attention(4, 3.0))
    np.testing.assert_allclose(A1[4:], np.tril(np.ones((T, T)) / np.arange(1, T + 1)[:, None])[4:])
    # The control: relative positions do not stop.
    assert T == 4 or abs(A1 - theory.previous_token_attention(T, 3.0)).max() > 0.1


def test_gaussian_embeddings_break_the_closed_form(rng):
    from refimpl.induction import Bigram
    bigram, z = Bigram.random(5, rng), rng.integers(0, 5, 12)
    params = construct(init(5, 40, 12, rng), bigram, 2, 2.0, 2.0, 2.0)
    predicted = theory.logits(z, np.log(bigram.pi_b), [0, 1], 2.0, 2.0, 2.0)
    assert relative_error(predicted, forward(params, z).logits) > 1e-3


@given(strategies.prompts(), st.floats(0, 20), strategies.seeds)
@example((2, np.array([0])), 1.0, 0)                # T = 1: the trigger is all there is
@example((2, np.array([0, 0])), 1.0, 0)             # z_0 = q, and q follows q
@example((3, np.array([0, 1, 2, 0])), 1.0, 0)       # z_0 = q
@example((3, np.array([1, 2, 0])), 1.0, 0)          # C = 0
def test_hard_limit_counts_the_first_position(prompt, b2, seed):
    V, z = prompt
    q, rng = z[-1], np.random.default_rng(seed)
    from refimpl.induction import Bigram
    bigram = Bigram.random(V, rng)
    for strength, limit in ((b2, b2), (HARD, np.inf)):
        params = construct(orthonormal_frame(V, len(z), rng), bigram, [q], HARD, strength, 7.0)
        predicted = np.log(bigram.pi_b[q]) + 7.0 * theory.hard_mass(z, V, limit)
        assert relative_error(predicted, forward(params, z).logits[-1]) <= 1e-12


def test_hard_limit_without_the_first_position_is_wrong():
    z, b2 = np.array([0, 1, 2, 0]), 1.0
    C_u = np.array([0.0, 1, 0])                     # the matches of s ≥ 1 alone
    n_u = np.array([2.0, 1, 1])
    naive = (np.exp(b2) * C_u + n_u - C_u) / (np.exp(b2) + 3)
    assert abs(naive - theory.hard_mass(z, 3, b2)).max() > 0.05


def test_hard_mass_sums_to_one():
    for z in ([0], [0, 0, 0], [1, 0, 2, 0, 1, 0]):
        for b2 in (0.0, 3.0, np.inf):
            assert theory.hard_mass(z, 3, b2).sum() == pytest.approx(1, rel=1e-14)


@given(st.integers(1, 20), st.integers(2, 200), st.floats(0, 8), st.floats(0.01, 3))
def test_hijack_reads_one_boundary_both_ways(k, T, b2, ratio):
    result = theory.hijack(k, T, ratio, b2, 1.0)
    margin = np.exp(b2) * k / (np.exp(b2) * k + T - k) - ratio if T >= k else 0
    if abs(result.critical_length - T) > 1e-9 * T:
        assert result.context_wins == (k > result.critical_repetitions)
        assert T < k or result.context_wins == (margin > 0)
    if ratio >= 1:      # the gap is bo or more: the global knowledge wins on every prompt
        assert result.critical_length <= k


def test_hijack_at_the_tie_and_at_gap_equal_bo():
    # k = 2, e^b2 = 3, bo/gap = 3/2: T* = 2 (1 + 3/2) = 5
    result = theory.hijack(2, [4, 5, 6], 2.0, np.log(3), 3.0)
    np.testing.assert_allclose(result.critical_length, 5)
    np.testing.assert_allclose(result.critical_repetitions, np.array([4, 5, 6]) / 2.5)
    assert result.context_wins[0] and not result.context_wins[2]
    assert theory.hijack(7, 100, 3.0, 1.0, 3.0).critical_length == 7
    assert theory.hijack(7, 100, 9.0, 1.0, 3.0).critical_repetitions == np.inf


def test_hijack_broadcasts_to_a_phase_diagram():
    result = theory.hijack(np.arange(5)[:, None], 40, np.linspace(0.1, 2, 7), 3.0, 1.0)
    assert result.context_wins.shape == (5, 7) and not result.context_wins[0].any()
    assert (np.diff(result.context_wins.astype(int), axis=0) >= 0).all()     # more copies, never less


@pytest.mark.parametrize("call, words", [
    (lambda: theory.hijack(1, 5, 0.0, 1, 1), "gap and bo"),
    (lambda: theory.hijack(1, 5, 1.0, 1, -1), "gap and bo"),
    (lambda: theory.logits([], np.zeros((2, 2)), [0], 1, 1, 1), "tokens"),
    (lambda: theory.logits([2], np.zeros((2, 2)), [0], 1, 1, 1), "tokens"),
    (lambda: theory.logits([0.5], np.zeros((2, 2)), [0], 1, 1, 1), "tokens"),
    (lambda: theory.logits([0], np.zeros((2, 2)), [0], np.nan, 1, 1), "b1"),
    (lambda: theory.logits([0], np.zeros((2, 2)), [0], 1, 1, 1, "none"), "encoding"),
    (lambda: theory.logits([0], np.zeros((2, 2)), [0], 1, 1, 1, train_length=2), "train_length")])
def test_bad_arguments_of_theory_are_named(call, words):
    with pytest.raises(ValueError, match=f"^{words}:"):
        call()
