"""Claims R5 to R10 and R14 at their boundaries, and what they refuse."""

import types

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.special import softmax

from refimpl import claims
from refimpl.claims import finetuning, recall as recall_claims
from refimpl.gradcheck import central_difference
from refimpl.recall.theory import dynamics
from refimpl.recall import (
    Facts, Prompts, construct, loss_and_grads, position_logits, sample, theory, with_position_logits)
from tests.strategies import seeds

CLAIMS = {claim.id: claim for module in (recall_claims, finetuning) for claim in claims.collect(module)}
NEW = ("R5", "R6", "R7", "R8", "R9", "R10", "R14")
# Rates are sums of some hundred products, as in the claims: a few hundred roundings of lam.
ROUNDING = 1e-12
strengths = st.sampled_from([0.1, 1.0, 20.0])


def model_rate(w, facts, prompts, lam):
    """Minus the model's gradient by the position logits w of the infer step, or of the recall step."""
    n, T = prompts.subjects.shape[1] - 1, len(w)
    params = with_position_logits(construct(facts, n, lam), w)
    step = prompts.infer() if T % 2 else prompts.recall()
    return -position_logits(loss_and_grads(params, *step)[1], T)


def starts(length):
    """Logits: any, many of them equal, and all attention on few tokens."""
    return st.lists(st.sampled_from([0.0, -1.0, 2.0, -800.0]) | st.floats(-3, 3),
                    min_size=length, max_size=length).map(np.array)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), strengths, st.data(), seeds)
def test_flows_match_the_model_at_any_start(n, R, spare, lam, data, seed):
    """R5 down to one relation, and with exact ties and hard attention; two prompts move w alike."""
    rng = np.random.default_rng(seed)
    facts = Facts.latin((n + 1) * R + spare, R, rng)
    prompts = sample(facts, n, 2, rng, collision_free=True)
    w = data.draw(starts(2 * n + 1))
    assert np.abs(theory.flow(w, R, lam) - model_rate(w, facts, prompts, lam)).max() <= ROUNDING * lam
    w = data.draw(starts(2 * n + 2))
    assert (np.abs(theory.recall_flow(w, facts.N, R, lam) - model_rate(w, facts, prompts, lam)).max()
            <= ROUNDING * lam)


@given(st.integers(1, 3), st.integers(2, 5), strengths, st.data())
def test_gaps_shrink_and_the_query_falls_at_finite_logits(n, R, lam, data):
    w = data.draw(st.lists(st.floats(-3, 3), min_size=2 * n + 1, max_size=2 * n + 1).map(np.array))
    dw, alpha = theory.flow(w, R, lam), softmax(w)
    gap, rate = w[0:-1:2] - w[1::2], theory.gap_rates(alpha[0::2], alpha[1::2], R, lam)
    assert (np.sign(rate) == -np.sign(alpha[0:-1:2] - alpha[1::2])).all()
    assert (gap * rate <= 0).all()
    assert dw[-1] < 0 and dw[-1] == pytest.approx(theory.query_rate(alpha[0::2], alpha[1::2], R, lam))


def test_gaps_can_grow_without_the_assumptions_of_r6():
    """The control of R6 says that its rate is wrong; here its statement is: the gap grows."""
    facts = Facts(np.arange(12), np.arange(12), np.arange(3))
    w = np.array([0.0, 0.1, 0.0, 0.1, 0.0])
    apart = Prompts(12, 3, np.array([[0, 3, 6]]), np.array([1]), np.array([[1, 4, 7]]))
    assert model_rate(w, facts, apart, 4.0)[0] > model_rate(w, facts, apart, 4.0)[1]
    shared = Facts(facts.pi, np.where(np.arange(12) == 6, 0, facts.sigma), facts.shifts, is_latin=False)
    assert model_rate(w, shared, apart, 4.0)[0] < model_rate(w, shared, apart, 4.0)[1]
    collided = apart._replace(subjects=np.array([[0, 3, 1]]), answers=np.array([[1, 4, 2]]))
    rate = model_rate(w, facts, collided, 4.0)
    # rho(s_2, a_0) is wrong: a_0 loses, though it is ahead; the other way round the gap grows.
    assert abs((rate[0] - rate[1]) - theory.gap_rates(
        softmax(w)[0::2], softmax(w)[1::2], 3, 4.0)[0]) > 0.01
    w[:2] = w[1::-1]
    rate = model_rate(w, facts, collided, 4.0)
    assert w[0] > w[1] and rate[0] > rate[1]


def test_weight_of_the_query_can_rise_while_its_logit_falls():
    w = np.log([0.9, 0.1, 1e-6])
    dw = theory.flow(w, 4, 6.0)
    assert dw[-1] < 0 < dw[-1] - softmax(w) @ dw


@given(st.integers(1, 4), st.integers(2, 5), strengths, st.floats(-4, 4))
def test_growth_rates_belong_to_the_modes_that_they_name(n, R, lam, query):
    """R8 by theory alone, the flow's derivative along each mode."""
    w = np.append(np.zeros(2 * n), query)
    rates = theory.growth_rates(n, R, lam, softmax(w)[0])
    modes = [(np.array([1.0, -1] + [0] * (2 * n - 1)), rates.within),
             (np.append(np.ones(2 * n), -2.0 * n), rates.together),
             (np.ones(2 * n + 1), 0)]
    if n > 1:
        modes.append((np.array([1.0, 1, -1, -1] + [0] * (2 * n - 3)), rates.between))
        assert rates.between > 0
    scale = max(np.abs(rates))
    for mode, rate in modes:
        for k in range(2 * n + 1):
            slope = central_difference(lambda x: theory.flow(w + x[0] * mode, R, lam)[k], np.zeros(1))[0]
            # The difference quotient has about 10 digits of the largest rate times lam.
            assert abs(slope - rate * mode[k]) <= 1e-8 * (1 + lam) * max(scale, 1e-3)


def test_growth_rates_default_to_uniform_attention():
    assert theory.growth_rates(3, 4, 5.0) == theory.growth_rates(3, 4, 5.0, 1 / 7)
    assert theory.growth_rates(2, 4, 5.0, 0.25).together == 0       # the query has nothing to give
    assert theory.growth_rates(2, 1, 5.0) == (0, 0, 0)              # one relation: nothing to infer


def losses_along(w0, times, R, lam):
    alphas = softmax(theory.trajectory(w0, times, R, lam), axis=1)
    return alphas, np.array([theory.infer_loss(a[0::2], a[1::2], R, lam) for a in alphas])


@pytest.mark.parametrize("n, R, lam", [(1, 2, 6.0), (2, 4, 6.0), (3, 5, 3.0)])
def test_the_leading_pair_takes_half_and_half(n, R, lam):
    w0 = np.random.default_rng(n).normal(0, 0.3, 2 * n + 1)
    w0[2 * n - 2:2 * n] += 1
    alphas, losses = losses_along(w0, [1e2, 1e3, 1e4], R, lam)
    excess = losses - theory.infer_end_loss(R, lam)
    assert (excess > 0).all()
    assert (excess[:-1] / excess[1:] > 5).all()         # like 1/t: never reached
    np.testing.assert_allclose(alphas[-1, 2 * n - 2:2 * n], 0.5, atol=2e-3)


def test_equal_pairs_stay_equal_and_share_the_end():
    """The exception of R9: no pair is ahead at the uniform start, so none wins."""
    n, R, lam = 3, 4, 6.0
    alphas, losses = losses_along(np.zeros(2 * n + 1), [1e3], R, lam)
    np.testing.assert_allclose(alphas[0, :-1], 1 / (2 * n), atol=2e-3)
    assert losses[0] == pytest.approx(np.log1p((R - 1) * np.exp(-lam / (2 * n))), rel=1e-2)
    assert losses[0] > 2 * theory.infer_end_loss(R, lam)


def test_recall_attention_goes_to_query_and_relation():
    n, N, R, lam = 2, 12, 4, 6.0
    alpha = softmax(theory.trajectory(np.zeros(2 * n + 2), [3e3], R, lam, N)[0])
    x = theory.recall_end_point(N, R, lam)
    np.testing.assert_allclose(alpha[-2:], [x, 1 - x], atol=1e-3)


def test_recall_end_point_at_its_limits():
    assert theory.recall_end_point(64, 16, 10.0) == pytest.approx(0.540, abs=5e-4)
    assert theory.recall_end_point(8, 8, 3.0) == 0.5                    # no answers out of the row
    assert theory.recall_end_point(64, 16, 1e-9) == pytest.approx(63 / 78)
    x = [theory.recall_end_point(64, 16, lam) for lam in (1, 10, 40, 80)]
    assert (np.diff(x) < 0).all()
    # The next term is smaller by a factor of e^(−lam/4) lam.
    assert x[-1] - 0.5 == pytest.approx(48 / 60 * np.exp(-20), rel=1e-6)


def test_a_seen_relation_speaks_on_unseen_subjects():
    """The limit of R14: in the recall step the row of r is not zero once r was seen."""
    tokens = np.array([[0, 10, 1, 20]])
    support = theory.gradient_support(tokens, 25, 4)
    assert support[20, 25:].all() and support[28, 25:].all() and not support[21].any()
    assert support.sum() == 2 * 8


@pytest.mark.parametrize("call, message", [
    (lambda: theory.flow(np.zeros(4), 2, 1.0), "w: "),
    (lambda: theory.flow(np.zeros(1), 2, 1.0), "w: "),
    (lambda: theory.flow(np.zeros((3, 1)), 2, 1.0), "w: "),
    (lambda: theory.flow([0, np.nan, 0], 2, 1.0), "w: "),
    (lambda: theory.flow(np.zeros(3), 0, 1.0), "R: "),
    (lambda: theory.flow(np.zeros(3), 2.0, 1.0), "R: "),
    (lambda: theory.flow(np.zeros(3), True, 1.0), "R: "),
    (lambda: theory.flow(np.zeros(3), 2, 0.0), "lam: "),
    (lambda: theory.flow(np.zeros(3), 2, np.inf), "lam: "),
    (lambda: theory.flow(np.zeros(3), 2, "1"), "lam: "),
    (lambda: theory.recall_flow(np.zeros(3), 8, 2, 1.0), "w: "),
    (lambda: theory.recall_flow(np.zeros(2), 8, 2, 1.0), "w: "),
    (lambda: theory.recall_flow(np.zeros(4), 3, 2, 1.0), "N: "),
    (lambda: theory.recall_flow(np.zeros(4), 8.0, 2, 1.0), "N: "),
    (lambda: theory.recall_flow(np.zeros(4), 8, 0, 1.0), "R: "),
    (lambda: theory.recall_flow(np.zeros(4), 8, 2, -1.0), "lam: "),
    (lambda: theory.gap_rates([0.5], [], 2, 1.0), "u: "),
    (lambda: theory.gap_rates([0.5, 0.2], [0.1, 0.2], 2, 1.0), "v: "),
    (lambda: theory.query_rate([0.5, 0.2], [0.3], 0, 1.0), "R: "),
    (lambda: theory.growth_rates(0, 2, 1.0), "n: "),
    (lambda: theory.growth_rates(2, 2, 1.0, 0.3), "u: "),
    (lambda: theory.growth_rates(2, 2, 1.0, 0.0), "u: "),
    (lambda: theory.growth_rates(2, 2, 1.0, np.nan), "u: "),
    (lambda: theory.growth_rates(2, 2, -1.0), "lam: "),
    (lambda: theory.infer_end_loss(0, 1.0), "R: "),
    (lambda: theory.infer_end_loss(2, np.nan), "lam: "),
    (lambda: theory.recall_end_point(8, 1, 1.0), "R: "),
    (lambda: theory.recall_end_point(3, 4, 1.0), "N: "),
    (lambda: theory.recall_end_point(8, 4, 0), "lam: "),
    (lambda: theory.trajectory(np.zeros(4), [1.0], 2, 1.0), "w0: "),
    (lambda: theory.trajectory(np.zeros(3), [1.0], 2, 1.0, N=8), "w0: "),
    (lambda: theory.trajectory(np.zeros(4), [1.0], 2, 1.0, N=3), "N: "),
    (lambda: theory.trajectory(np.zeros(3), [], 2, 1.0), "times: "),
    (lambda: theory.trajectory(np.zeros(3), [0.0], 2, 1.0), "times: "),
    (lambda: theory.trajectory(np.zeros(3), [-1.0, 1.0], 2, 1.0), "times: "),
    (lambda: theory.trajectory(np.zeros(3), [1.0, 1.0], 2, 1.0), "times: "),
    (lambda: theory.trajectory(np.zeros(3), [1.0, np.inf], 2, 1.0), "times: "),
    (lambda: theory.trajectory(np.zeros(3), 1.0, 2, 1.0), "times: "),
    (lambda: theory.gradient_support([0, 1], 4, 3), "tokens: "),
    (lambda: theory.gradient_support([[0, 4]], 4, 3), "tokens: "),
    (lambda: theory.gradient_support([[0.0, 1.0]], 4, 3), "tokens: "),
    (lambda: theory.gradient_support([[0, 1]], 4, 1), "L: "),
    (lambda: theory.gradient_support([[0, 1]], 0, 2), "V: "),
])
def test_flow_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_trajectory_says_when_the_solver_fails(monkeypatch):
    failed = types.SimpleNamespace(success=False, message="too stiff")
    monkeypatch.setattr(dynamics, "solve_ivp", lambda *args, **options: failed)
    with pytest.raises(RuntimeError, match="too stiff"):
        theory.trajectory(np.zeros(3), [1.0], 2, 1.0)
