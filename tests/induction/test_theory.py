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


def counts(z, q, *tokens):
    """C and n of tokens, by hand: what follows a q, the first position included if it is a q."""
    after = ([q] if z[0] == q else []) + [z[s] for s in range(1, len(z)) if z[s - 1] == q]
    return [len(after)] + [after.count(u) for u in tokens] + [list(z).count(u) for u in tokens]


@given(strategies.prompts(), st.floats(0, 8), st.floats(0.01, 3))
def test_hijack_margin_is_the_difference_of_hard_masses(prompt, b2, gap):
    V, z = prompt
    for u in range(V):
        for w in range(V):
            p = theory.hard_mass(z, V, b2)
            if u != w:
                margin = theory.hijack_margin(*counts(z, z[-1], u, w), len(z), gap, b2, 5.0)
                assert margin == pytest.approx(5 * (p[u] - p[w]) - gap, abs=1e-14)


@given(st.integers(1, 20), st.integers(0, 20), st.integers(0, 200), st.floats(0, 8), st.floats(0.01, 3))
def test_hijack_reads_one_boundary_both_ways(k, others, fillers, b2, ratio):
    C, T = k + others, 2 * (k + others) + 2 + fillers
    margin = theory.hijack_margin(C, k, 0, k, 0, T, ratio, b2, 1.0)
    for continuations in (C, *[None] * (others == 0)):
        result = theory.hijack(k, T, ratio, b2, 1.0, continuations)
        # T* − T and k − k* are the margin in tokens and in repetitions.
        tokens = margin * (np.exp(b2) * C + T - C) / ratio
        assert result.critical_length - T == pytest.approx(tokens, rel=1e-9, abs=1e-9 * np.exp(b2) * C)
        if abs(margin) > 1e-9:
            assert result.context_wins == (margin > 0) == (k > result.critical_repetitions)
        if ratio * C >= k:      # the global knowledge wins at every length
            assert result.critical_length <= C * (1 + 1e-12)
    if others:                  # as if q were always followed by u: the context would win more often
        naive = theory.hijack(k, T, ratio, b2, 1.0).critical_length
        more = others * (np.exp(b2) - 1)
        assert naive - result.critical_length == pytest.approx(more, abs=1e-9 * np.exp(b2) * C)


def test_hijack_with_other_continuations_is_not_the_form_without():
    """Counterexample to C = k: q→u twice and q→v twice, e^b2 = 3, bo/gap = 3/2."""
    z = [2, 0, 1, 0, 1, 0, 3, 0, 3, 0]
    margin = theory.hijack_margin(*counts(z, 0, 1, 2), 10, 2.0, np.log(3), 3.0)
    result = theory.hijack(2, 10, 2.0, np.log(3), 3.0, 4)
    # (3·2 − 1 of w elsewhere) / (3·4 + 6) for the margin; T* = 4 + 3 (2·3/2 − 4) = 1.
    assert margin == pytest.approx(3 * 5 / 18 - 2) and result.critical_length == pytest.approx(1)
    assert theory.hijack(2, 6, 2.0, np.log(3) * 3, 3.0).context_wins
    assert not theory.hijack(2, 6, 2.0, np.log(3) * 3, 3.0, 4).context_wins


def test_hijack_refuses_exactly_the_lengths_that_no_prompt_has():
    """All prompts of at most 8 tokens over q = 0, u = 1 and two others, in which u stands after q alone."""
    shortest = {(1, 0): 1}      # q alone, which follows itself
    for T in range(2, 9):
        z = np.append(np.indices((4,) * (T - 1)).reshape(T - 1, -1), np.zeros((1, 4 ** (T - 1)), int), axis=0)
        after = np.vstack([z[:1] == 0, z[:-1] == 0])
        C, k = after.sum(axis=0), (after & (z == 1)).sum(axis=0)
        for pair in set(zip(C[k == (z == 1).sum(axis=0)], k[k == (z == 1).sum(axis=0)])):
            shortest.setdefault(pair, T)
    assert len(shortest) > 20
    for (C, k), T in shortest.items():
        theory.hijack(k, T, 1.0, 1.0, 1.0, C)
        if T > 1:
            with pytest.raises(ValueError, match="^repetitions, length, continuations"):
                theory.hijack(k, T - 1, 1.0, 1.0, 1.0, C)


def test_hijack_at_the_tie_and_at_gap_equal_bo():
    # k = 2, e^b2 = 5, bo/gap = 3/2: T* = 2 (1 + 5/2) = 7
    result = theory.hijack(2, [6, 7, 8], 2.0, np.log(5), 3.0)
    np.testing.assert_allclose(result.critical_length, 7)
    np.testing.assert_allclose(result.critical_repetitions, np.array([6, 7, 8]) / 3.5)
    assert result.context_wins[0] and not result.context_wins[2]
    assert theory.hijack(7, 100, 3.0, 1.0, 3.0).critical_length == 7
    assert theory.hijack(7, 100, 9.0, 1.0, 3.0).critical_repetitions == np.inf


@given(strategies.prompts(), st.floats(0, 12), st.floats(0, 20))
@example((4, np.array([3, 0, 1, 2, 0])), 0.0, 3.0)
def test_finite_b1_stays_within_the_remainder(prompt, b1, b2):
    V, z = prompt
    mass = theory.in_context_mass(z, [z[-1]], b1, b2)[1][-1]
    mass = np.append(mass, np.zeros(V - len(mass)))
    bound = theory.hard_remainder(len(z), b1, b2)
    assert np.abs(mass - theory.hard_mass(z, V, b2)).sum() / 2 <= bound + 1e-12
    C = counts(z, z[-1])[0]
    rest = (len(z) - C) / (np.exp(b2) * C + len(z) - C) if C else 1
    assert np.abs(mass - theory.hard_mass(z, V, np.inf)).sum() / 2 <= bound + rest + 1e-12


def test_remainder_by_hand():
    """T = 3, e^b1 = 2: η = b2/2, and tanh(η/2) = 1/2 at b2 = 2 log 3."""
    assert theory.hard_remainder(3, np.log(2), 2 * np.log(3)) == pytest.approx(0.5, rel=1e-15)
    assert theory.hard_remainder(1, 0.0, 5.0) == 0


def test_the_remainder_is_almost_attained():
    """One match after T/2 other tokens, half the mass on it: the bound is not loose."""
    T, b1 = 4000, 12.0
    z = np.array([1] * (T - 3) + [0, 2, 0])
    b2 = np.log(T - 1)
    distance = np.abs(theory.in_context_mass(z, [0], b1, b2)[1][-1] - theory.hard_mass(z, 3, b2)).sum() / 2
    assert 0.4 < distance / theory.hard_remainder(T, b1, b2) <= 1


@pytest.mark.parametrize("b1", [1.0, 2.0, 3.0])
def test_the_other_order_of_limits_finds_the_first_match_alone(b1, rng):
    """b2 → ∞ at fixed b1: counterexample to a limit in both at once. All continuations differ."""
    z = np.array([9, 0, 1, 0, 2, 8, 0, 3, 7, 7, 0])
    mass = theory.in_context_mass(z, [0], b1, 1e6)[1][-1]
    assert mass[1] == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(theory.hard_mass(z, 10, np.inf)[[1, 2, 3]], 1 / 3)
    # The iterated limit: b1 first.
    mass = theory.in_context_mass(z, [0], 1e4, 60.0)[1][-1]
    np.testing.assert_allclose(mass[[1, 2, 3]], 1 / 3, rtol=1e-12)


def test_the_first_match_wins_only_near_the_beginning():
    """A first match at s > e^b1 has less than half of its own layer's weight, and a later one has more."""
    z = np.array([9] * 10 + [0, 1, 0, 2, 0, 3, 0])
    assert theory.in_context_mass(z, [0], 1.0, 1e6)[1][-1][3] == pytest.approx(1, abs=1e-12)
    assert theory.in_context_mass(z, [0], 3.0, 1e6)[1][-1][1] == pytest.approx(1, abs=1e-12)


def test_hijack_broadcasts_to_a_phase_diagram():
    result = theory.hijack(np.arange(5)[:, None], 40, np.linspace(0.1, 2, 7), 3.0, 1.0)
    assert result.context_wins.shape == (5, 7) and not result.context_wins[0].any()
    assert (np.diff(result.context_wins.astype(int), axis=0) >= 0).all()     # more copies, never less


@pytest.mark.parametrize("call, words", [
    (lambda: theory.hijack(1, 5, 0.0, 1, 1), "gap and bo"),
    (lambda: theory.hijack(1, 5, 1.0, 1, -1), "gap and bo"),
    (lambda: theory.hijack(3, 7, 1.0, 1, 1), "repetitions, length, continuations"),
    (lambda: theory.hijack(3, 70, 1.0, 1, 1, 2), "repetitions, length, continuations"),
    (lambda: theory.hijack_margin(1, 2, 0, 2, 0, 9, 1.0, 1, 1), "C, C_u, C_w, n_u, n_w, T"),
    (lambda: theory.hijack_margin(3, 2, 0, 1, 0, 9, 1.0, 1, 1), "C, C_u, C_w, n_u, n_w, T"),
    (lambda: theory.logits([], np.zeros((2, 2)), [0], 1, 1, 1), "tokens"),
    (lambda: theory.logits([2], np.zeros((2, 2)), [0], 1, 1, 1), "tokens"),
    (lambda: theory.logits([0.5], np.zeros((2, 2)), [0], 1, 1, 1), "tokens"),
    (lambda: theory.logits([0], np.zeros((2, 2)), [0], np.nan, 1, 1), "b1"),
    (lambda: theory.logits([0], np.zeros((2, 2)), [0], 1, 1, 1, "none"), "encoding"),
    (lambda: theory.logits([0], np.zeros((2, 2)), [0], 1, 1, 1, train_length=2), "train_length")])
def test_bad_arguments_of_theory_are_named(call, words):
    with pytest.raises(ValueError, match=f"^{words}:"):
        call()
