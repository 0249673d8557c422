"""Counterexamples to weaker forms of R9, R11, R13 and R17, and what the new formulas do at their ends."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import softmax

from refimpl.recall import Facts, implicit, sample, theory

U = np.array([0.3, 0.2, 0.1])


def test_loss_at_u_n_1_is_not_log_R():
    """R13: log R where λ(1−b) is large alone."""
    assert theory.relu_recall_loss(np.ones(1), 1000, 4, 8.0, 0.25) == pytest.approx(
        np.log(4 + 996 * np.exp(-6)))
    assert theory.relu_recall_loss(np.ones(1), 1000, 4, 8.0, 0.25) > np.log(4) + 0.4
    assert theory.recall_loss(np.array([0.0, 1.0]), 0.0, 1000, 4, 8.0) == pytest.approx(
        np.log(4 + 996 * np.exp(-8)))


@pytest.mark.parametrize("N, lam", [(1000, 8.0), (1000, 2.0), (24, 64.0)])
def test_way_back_takes_e_to_the_loss_not_R(N, lam, R=4, bias=0.25, start=1e-12):
    time, unit = theory.way_back(start, bias, N, R, lam, bias), 1 / (2 * (R - 1) * lam * start)
    peak = np.exp(theory.relu_recall_loss(np.ones(1), N, R, lam, bias)[0])
    assert time == pytest.approx(peak * unit, rel=0.01)
    assert (peak / R > 1.1) == (N == 1000)          # λ(1−b) below log N: R is wrong
    # The flow itself, from dδ/dt = 2 δ² (1−δ)² L'(1−δ), L' by differences of the loss.

    def speed(t, s):
        delta, h = np.exp(s[0]), 1e-6
        rise, = np.diff(theory.relu_recall_loss(1 - delta * np.array([1 + h, 1 - h]), N, R, lam, bias))
        return [2 * delta * (1 - delta) ** 2 * rise / (2 * delta * h)]
    half = theory.way_back(0.01, 0.2, N, R, lam, bias)
    end = solve_ivp(speed, (0, half), [np.log(0.01)], rtol=1e-9, atol=1e-9).y[0, -1]
    assert np.exp(end) == pytest.approx(0.2, rel=1e-4)


def test_way_back_of_the_square_is_half_of_it_at_no_bias():
    N, R, lam, start = 100, 4, 3.0, 1e-6

    def slope(delta):       # of recall_flow, on (s_n, r)
        w = np.array([-800.0, -800, np.log1p(-delta), np.log(delta)])
        dw = theory.recall_flow(w, N, R, lam)
        return delta * (1 - delta) * (dw[3] - dw[2])
    s = np.linspace(np.log(start), np.log(0.01), 4001)
    time = np.trapezoid([np.exp(x) / slope(np.exp(x)) for x in s], s)
    peak = R + (N - R) * np.exp(-lam)
    assert time == pytest.approx(peak / (4 * (R - 1) * lam) * (1 / start - 100), rel=0.01)


def test_random_points_do_not_tell_a_displaced_kink_from_the_right_one():
    """R13 compared four random points: an end that is off by a tenth of b passes in most draws."""
    N, R, lam, bias, rng = 64, 4, 8.0, 0.25, np.random.default_rng(0)
    wrong = theory.relu_recall_loss(np.array([1 - 0.9 * bias]), N, R, lam, bias)
    passes = np.mean([(theory.relu_recall_loss(rng.uniform(0.001, 0.999, 4), N, R, lam, bias) >= wrong).all()
                      for _ in range(500)])
    assert passes > 0.5
    near = 1 - bias + np.array([-1e-3, 0, 1e-3])
    losses = theory.relu_recall_loss(near, N, R, lam, bias)
    assert losses[1] < losses[0] and losses[1] < losses[2] and losses[1] < wrong


def test_random_attention_does_not_tell_a_displaced_end_from_the_right_one():
    """R9 compared one random attention: it is worse than an end in which the pair has 0.3 and 0.3 alike."""
    n, R, lam, rng = 2, 4, 6.0, np.random.default_rng(0)
    wrong = theory.infer_loss(np.array([0.3, 0.2, 0.1]), np.array([0.3, 0.1]), R, lam)
    alphas = softmax(rng.normal(0, 2, (500, 2 * n + 1)), axis=1)
    assert np.mean([theory.infer_loss(a[0::2], a[1::2], R, lam) >= wrong for a in alphas]) > 0.5
    assert wrong > 2 * theory.infer_end_loss(R, lam)


def test_recall_scores_of_training_are_no_multiple_of_those_that_transfer():
    """R11's old consequence divided all scores by one c; in the recall step that holds if k = M alone."""
    assert np.ptp(theory.score_factors(2, 4, 4)) == np.ptp(theory.score_factors(2, 4)) == 0
    assert np.ptp(theory.score_factors(2, 4, 1)) > 0.5
    n, M, k, N, R, lam = 2, 4, 1, 60, 4, 4.0
    w0, c = np.random.default_rng(0).normal(0, 0.3, 2 * n + 2), theory.score_factors(n, M, k)
    y = theory.trajectory(w0, [100.0], R, lam, N, c)[0]
    right = softmax(w0 + (y - w0) / c)
    one = softmax(w0 + (y - w0) / c[0])
    assert np.abs(right - one).max() > 0.05


def test_the_largest_product_can_lose():
    """R17's control as a flow: pair 0 has the largest u v, pair 1 the largest harmonic mean, and wins."""
    w0 = np.array([2, -2, -0.01, -0.01, 0.0])
    assert theory.leading_pair(w0[None]) == -1
    alpha = softmax(theory.trajectory(w0, [1e4], 4, 6.0)[0])
    assert alpha[2] > 0.49 and alpha[0] < 0.01


@pytest.mark.parametrize("w, leader", [
    ([[1, 1, 0, 0, 9]], 0), ([[0, 0, 1, 1, 0]], 1), ([[1, 1, 1, 1, 0]], -1), ([[1, -1, -1, 1, 0]], -1),
    ([[2, 0, 1, 1, 0]], 1), ([[5, 5, 0]], 0)])
def test_leading_pair_at_ties(w, leader):
    """Equal products: the smaller gap leads; equal gaps too: none does."""
    assert theory.leading_pair(np.array(w, float)) == leader


def test_bound_of_the_loss_stays_at_two_equal_pairs():
    """r = 1 never falls: from equal pairs none wins."""
    w0, times = np.array([1, 1, 1, 1, 0.0]), np.array([0, 1e2, 1e8])
    bound = theory.leader_loss_bound(w0, times, 4, 6.0)
    assert (np.diff(bound) <= 0).all() and bound[-1] > 2 * theory.infer_end_loss(4, 6.0)
    one = theory.leader_loss_bound(w0[[0, 1, 4]], times, 4, 6.0)
    assert one[-1] == pytest.approx(theory.infer_end_loss(4, 6.0), rel=1e-5)


def test_one_pair_is_exact_at_its_start():
    w0 = np.array([0.3, -0.2, 0.1])
    alpha = softmax(w0)
    assert theory.leader_loss_bound(w0, [0.0], 4, 6.0) == pytest.approx(
        theory.infer_loss(alpha[0::2], alpha[1::2], 4, 6.0), rel=1e-12)


def test_months_and_tables_too_small():
    assert theory.collision_free_probability(2, 12, 4) == pytest.approx(1 / 55, rel=1e-14)
    assert theory.collision_free_probability(2, 11, 4) == 0
    assert theory.collision_free_probability(3, 9, 1) == 1
    prompts = sample(Facts.months(), 2, 4000, np.random.default_rng(0)).subjects
    gaps = np.diff(np.sort(prompts, axis=1), axis=1, append=np.sort(prompts, axis=1)[:, :1] + 12)
    assert abs((gaps >= 4).all(axis=1).mean() - 1 / 55) < 4 * np.sqrt(1 / 55 / 4000)


def test_leader_bounds_are_what_they_say(R=4, lam=6.0):
    """Pinned by the definitions, pair by pair: a bound that is too loose would pass its claim."""
    w = np.random.default_rng(3).normal(0, 1, (40, 7))
    leaders = theory.leading_pair(w)
    assert (leaders >= 0).sum() > 20
    for state, i in zip(w[leaders >= 0], leaders[leaders >= 0]):
        alpha = np.exp(state) / np.exp(state).sum()
        u, v = alpha[0:-1:2], alpha[1::2]
        assert (u * v)[i] == (u * v).max() and (1 / u + 1 / v)[i] == (1 / u + 1 / v).min()
        m = 2 * lam * (u @ v)
        sigma = 3 * np.exp(-m) / (1 + 3 * np.exp(-m))
        bounds = theory.leader_bounds(state[None], np.array([i]), R, lam)
        C = np.cosh((state[0:-1:2] - state[1::2]) / 2)
        assert bounds.margin[0] == pytest.approx(lam * np.sqrt(u[i] * v[i]) / C[i])
        assert bounds.query[0] == pytest.approx(-2 * sigma * m * alpha[-1])
        for j in range(3):
            f, r = u[i] * v[i], np.sqrt(u[j] * v[j] / (u[i] * v[i]))
            theta = r * C[i] / C[j]
            assert bounds.lead[0, j] == pytest.approx(
                4 * sigma * lam * f * min(1 - r ** 2, r ** 2 * (1 - theta) / theta), abs=1e-15)
            assert bounds.harmonic[0, j] == pytest.approx(
                2 * sigma * lam * f * (1 - r ** 2 - (1 - theta) / C[i] ** 2), abs=1e-15)


def test_other_bounds_are_what_they_say():
    assert theory.trap_law(3, 12, 3, 2.0)[1:] == (-6 / 7, -7)
    assert theory.decided_loss(4, 6.0) == pytest.approx(np.log(1 + 3 * np.exp(-1.5)))
    assert theory.noisy_accuracy(0.5, 3, 8, 2) == pytest.approx((1 - 0.4375 ** 3, 3))
    assert theory.population_bounds(2, 12, 4, 3.0) == pytest.approx((12 * 54 / 55, 24 * 54 / 55))
    assert theory.collision_loss(U, U[:2], 12, 4, 3.0)[1] == pytest.approx(1.5 * 3 * 2 * 36 / (11 * 9))
    assert theory.collision_loss(U[:2], U[:1], 12, 4, 3.0)[1] == 0
    # In the recall step: the share of each class by hand, N = 12, R = 3, n = 1.
    w, lam = np.array([0.1, -0.3, 0.5, 0.2]), 3.0
    u0, _, u1, r = np.exp(w) / np.exp(w).sum()
    logit = lam * np.array([u1 ** 2 + 2 * r * u1, u0 ** 2 + 2 * r * u0, u1 ** 2, u0 ** 2, 0])
    p = np.array([1, 1, 2, 2, 6]) * np.exp(logit) / (np.array([1, 1, 2, 2, 6]) @ np.exp(logit))
    alpha = np.exp(w) / np.exp(w).sum()
    assert theory.context_bounds(w, 12, 3, lam) == pytest.approx(
        -2 * (logit[0] - p @ logit) * alpha[:2])


def test_bound_of_the_loss_solves_its_own_lines():
    """R17c, line by line, by another root finder."""
    w0, t, R, lam = np.array([1.2, 1.0, 0.1, 0.7, -0.4, 0.6, 0.2]), 50.0, 4, 6.0
    alpha = np.exp(w0) / np.exp(w0).sum()
    f, C = alpha[0:-1:2] * alpha[1::2], np.cosh((w0[0:-1:2] - w0[1::2]) / 2)
    m, sigma = 2 * lam * f.sum(), 3 * np.exp(-3) / (1 + 3 * np.exp(-3))
    F = m / (2 * lam * 3)

    def h(r):
        return 1 / r + np.log((1 - r) / r)
    r = [brentq(lambda x, r0=np.sqrt(f[j] / f[0]): h(x) - h(r0) - 2 * sigma * lam * F * t, 1e-9, 1 - 1e-9)
         for j in (1, 2)]
    q = 1 / (np.sqrt(f[0]) / alpha[-1] + 2 * sigma * m * np.sqrt(F) * t)
    gap = 4 * np.arctanh(np.tanh(0.05) * np.exp(-2 * sigma * m * np.sqrt(F) * t))
    root = 1 / (2 * np.cosh(gap / 2) + 2 * (r[0] * C[1] + r[1] * C[2]) + q)
    assert theory.leader_loss_bound(w0, [t], R, lam)[0] == pytest.approx(
        np.log(1 + 3 * np.exp(-2 * lam * root ** 2)), rel=1e-9)


@pytest.mark.parametrize("p, lam", [(0.01, 24.5), (0.1, 16.9), (0.3, 13.7), (0.5, 12.3)])
def test_two_pairs_bear_noise_better_beyond_a_strength(p, lam):
    """R19b: below it one pair has less loss, above it two."""
    one, two = (np.array([0.5, 0, 0]), np.array([0.5, 0])), (np.full(3, 0.25), np.full(2, 0.25))
    gaps = [theory.noisy_loss(*one, p, 8, each) - theory.noisy_loss(*two, p, 8, each) for each in
            (lam - 0.1, lam + 0.1)]
    assert gaps[0] < 0 < gaps[1]


def test_noise_spares_the_losing_pairs_weight():
    """R19: with 0.9 and 0.06 of the attention on two pairs, either one suffices."""
    rng = np.random.default_rng(0)
    facts = Facts.latin(2 ** 14, 4, rng)
    prompts = sample(facts, 2, 4000, rng)
    wrong = rng.random((4000, 2)) < 0.5
    prompts.answers[:, :-1][wrong] = rng.integers(0, facts.N, wrong.sum())
    w = np.log([0.45, 0.45, 0.03, 0.03, 0.04])
    right = implicit.forward(implicit.Steps(w, np.zeros(6)), facts, prompts, 10.0).infer.margins > 0
    assert right.mean() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("call, message", [
    (lambda: theory.drift_law(2, 4, 3, 12, 3, 4.0), "k: "),
    (lambda: theory.drift_law(2, 4, 2, 3, 3, 4.0), "N: "),
    (lambda: theory.transfer_law(np.zeros(5), 2, [1.0], 1, 2, 1.0), "pair: "),
    (lambda: theory.training_law(2, [0.5], 2, 1.0), "times: "),
    (lambda: theory.leader_bounds(np.zeros((1, 5)), np.array([2]), 2, 1.0), "i: "),
    (lambda: theory.leader_loss_bound([2.1, -2, 0, 0, 0], [1.0], 2, 1.0), "w0: "),
    (lambda: theory.way_back(0.1, 0.05, 12, 3, 1.0, 0.2), "end: "),
    (lambda: theory.way_back(0.1, 0.3, 12, 3, 1.0, 0.2), "end: "),
    (lambda: theory.collision_loss([0.3, 0.3], [0.3], 5, 3, 1.0), "N: "),
    (lambda: theory.collision_free_probability(4, 4, 2), "n: "),
    (lambda: theory.trajectory(np.zeros(4), [1.0], 3, 1.0, 8, np.ones(3)), "factors: "),
    (lambda: theory.trajectory(np.zeros(4), [1.0], 3, 1.0, 5), "N: "),
    (lambda: theory.noisy_loss(np.zeros(14), np.zeros(13), 0.1, 2, 1.0), "v: "),
])
def test_formulas_refuse_what_they_do_not_assume(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    assert theory.recall_floor(65, 4, 3.0) == pytest.approx(np.log(1 + 64 * np.exp(-3)))
