"""The claims of what fine-tuning does in system R: the flow, its end points, few samples, locality."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, softmax

from refimpl import sgd
from refimpl.claims.claim import OURS, claim
from refimpl.claims.recall import (
    COLLIDING, NOT_LATIN, SPREAD, TABLES, attend, draw_disjoint, draw_facts, prompts_of, show, some)
from refimpl.recall import theory
from refimpl.recall.memory import construct
from refimpl.recall.model import forward, loss, loss_and_grads, position_logits, with_position_logits
from refimpl.recall.task import Facts, sample
from refimpl.recall.theory.dynamics import end_residual


def flow(w, facts, lam):
    """The closed form of dw/dt in the step whose prompts are as long as w."""
    return theory.flow(w, facts.R, lam) if len(w) % 2 else theory.recall_flow(w, facts.N, facts.R, lam)


def rate(params, step):
    """−∂loss/∂w in the model, w the position logits of this step: (T,)."""
    return -position_logits(loss_and_grads(params, *step)[1], step[0].shape[1])


FLOWS: dict = dict(table=TABLES, n=(1, 3), R=(2, 5), spare=(0, 8), lam=(0.1, 20.0), **OURS)
RATES: dict = dict(FLOWS, attention=SPREAD, tolerance=1e-10, reason=(
    "rounding, relative to the largest rate, which may be as small as the weights of all but one token"))


@claim("R5", "gradient flow of the position logits, both steps", derivation=theory.flow,
       control=COLLIDING, **RATES)
def flow_of_position_logits(case, table, attention, n, R, spare, lam):
    """Minus the model's gradient from any start, and its sum, which is zero."""
    facts, prompts = draw_disjoint(case, table, n, R, spare, COLLIDING)
    memory = construct(facts, n, lam)
    pairs = []
    for step in (prompts.infer(), prompts.recall()):
        params, alpha = attend(case, memory, step[0].shape[1], attention)
        predicted, dw = flow(np.log(alpha), facts, lam), rate(params, step)
        pairs.append((np.append(predicted, 0), np.append(dw, dw.sum())))
    return tuple(zip(*pairs))


def infer_rates(case, control, attention, lam, **drawn):
    """Any start: u, v, R and lam, as formulas take them, and dw/dt in the model."""
    facts, prompts = draw_disjoint(case, control=control, **drawn)
    params, alpha = attend(case, construct(facts, drawn["n"], lam), 2 * drawn["n"] + 1, attention)
    return (alpha[0::2], alpha[1::2], facts.R, lam), rate(params, prompts.infer())


@claim("R6", "the gap within every pair shrinks", derivation=theory.gap_rates, control=NOT_LATIN, **RATES)
def gap_within_every_pair_shrinks(case, **drawn):
    """Rates of w_{s_i} − w_{a_i} in the model, from any start."""
    state, dw = infer_rates(case, NOT_LATIN, **drawn)
    return theory.gap_rates(*state), dw[0:-1:2] - dw[1::2], np.abs(dw).max()


@claim("R7", "the query is let go: its logit falls", derivation=theory.query_rate, control=COLLIDING,
       control_space=dict(n=(2, 3)), **RATES)
def query_is_let_go(case, **drawn):
    """The rate of the last position's logit in the model, from any start."""
    state, dw = infer_rates(case, COLLIDING, **drawn)
    return theory.query_rate(*state), dw[-1], np.abs(dw).max()


@claim("R8", "growth rates where all pairs are equal", derivation=theory.growth_rates,
       control="one subject is ahead, so the pairs are not equal",
       tolerance=1e-9, reason="difference quotients of step h = 1e-3 leave lam⁴h⁴/30 and rounding/h",
       attention=("query apart", "uniform"), query=(-3.0, 3.0), **{**FLOWS, "lam": (0.1, 10.0)})
def growth_rates_of_equal_pairs(case, table, attention, n, R, spare, lam, query):
    """All eigenvalues of the Jacobian of the model's gradient, whatever the query's logit."""
    facts, prompts = draw_disjoint(case, table, n, R, spare)
    params, step = construct(facts, n, lam), prompts.infer()
    w = np.append(np.zeros(2 * n), 0 if attention == "uniform" else query)
    if case.control:
        w[0] += 0.5

    def slope(direction, h=1e-3):
        """Five-point difference quotient of the rate."""
        at = {k: rate(with_position_logits(params, w + k * h * direction), step) for k in (-2, -1, 1, 2)}
        return (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * h)

    rates = theory.growth_rates(n, facts.R, lam, None if attention == "uniform" else softmax(w)[1])
    predicted = [rates.between] * (n - 1) + [rates.within] * n + [rates.together, 0]
    # The Jacobian is symmetric: that of a gradient.
    return np.sort(predicted), np.linalg.eigvalsh(np.array([slope(e) for e in np.eye(len(w))]))


@claim("R9", "end points: one pair at ½ + ½, then the query at x*", derivation=theory.recall_end_point,
       control=NOT_LATIN, reason="rounding, relative to lam, the size of the logits", **FLOWS)
def end_points(case, table, n, R, spare, lam):
    """Losses of the model at both end points, and its own x*; what goes to any other token costs loss."""
    facts, prompts = draw_disjoint(case, table, n, R, spare, NOT_LATIN)
    memory, infer, recall = case.number(construct(facts, n, lam)), prompts.infer(), prompts.recall()

    def slope(z):
        """Rate of w_{s_n} with attention expit(z) on s_n and the rest on r."""
        w = case.number(np.full(2 * n + 2, -800.0))
        w[-2], w[-1] = z, case.number(0.0)
        return rate(with_position_logits(memory, w), recall)[-2]

    pair, x = 2 * case.rng.integers(n), theory.recall_end_point(facts.N, facts.R, float(lam))
    if case.balls:
        w, at = case.number(np.full(2 * n + 1, -800.0)), case.number(np.full(2 * n + 2, -800.0))
        w[pair:pair + 2], z = case.number(0.0), case.number(np.log(x / (1 - x)))
        at[-2:], near = [z, case.number(0.0)], 1 / (1 + (-z).exp())
        pairs = [(theory.infer_end_loss(facts.R, lam), loss(with_position_logits(memory, w), *infer)),
                 (theory.recall_loss(near * np.eye(n + 1)[n], 1 - near, facts.N, facts.R, lam),
                  loss(with_position_logits(memory, at), *recall))]
        if not case.control:    # the model's own x* solves the equation
            z = case.balls.root(lambda z: -slope(z), z - 1e-6, z + 1e-6)
            pairs.append((case.number(0.0), end_residual(1 / (1 + (-z).exp()), facts.N, facts.R, lam)))
        return tuple(zip(*pairs))
    # x* < 1 − 1/N: the bracket.
    z = brentq(slope, -1, np.log(2 * facts.N), xtol=1e-15)
    ends = np.array([theory.infer_end_loss(facts.R, lam), theory.recall_loss(
        np.append(np.zeros(n), x), 1 - x, facts.N, facts.R, lam)])
    attention = np.zeros(2 * n + 1), np.zeros(2 * n + 2)
    attention[0][pair:pair + 2] = 0.5
    attention[1][-2:] = expit(z), expit(-z)
    observed: list = []
    costs: list = []
    for alpha, step, end in zip(attention, (infer, recall), ends):
        others = [(1 - share) * alpha + share * token
                  for token in np.eye(len(alpha)) for share in (0.01, 0.1, 0.5)]
        at_end, *losses = (loss(with_position_logits(memory, np.log(np.maximum(each, 1e-300))), *step)
                           for each in (alpha, *others))
        observed, costs = [*observed, at_end], [*costs, *(np.array(losses) > end)]
    grid = np.array([-3, -1, -0.1, 0.1, 1, 3])
    signs = np.sign([slope(np.log(x / (1 - x)) + step) for step in grid])
    return ((ends, x, -np.sign(grid), np.ones(12 * n + 9)),
            (np.array(observed), expit(z), signs, np.array(costs)), (lam, 0.0, 0.0, 0.0))


@claim("R10", "SGD follows the flow, and its gap is first order in the step", kind="limit", cases=8,
       derivation=theory.trajectory, control="momentum 0.9",
       reason="the observed order is 1 + O(lam × step), and lam × step is at most 1/4", table=TABLES,
       step=("infer", "recall"), n=(1, 2), R=(2, 3), spare=(0, 4), lam=(0.5, 10.0), time=(1.0, 4.0), **OURS)
def sgd_follows_the_flow(case, table, step, n, R, spare, lam, time):
    """The order observed when the step of SGD through the model is halved."""
    facts, prompts = draw_disjoint(case, table, n, R, spare)
    batch = getattr(prompts, step)()
    T = batch[0].shape[1]
    w0 = case.rng.normal(0, 1, T)
    start = with_position_logits(construct(facts, n, lam), w0)
    end = theory.trajectory(w0, [time / lam], facts.R, lam, facts.N if step == "recall" else None)[0]
    gaps = []

    def position_only(params, *batch):
        """The gradient of the position logits alone: the other blocks stay zero."""
        loss, grads = loss_and_grads(params, *batch)
        return loss, with_position_logits(grads._replace(WKQ=0 * grads.WKQ), position_logits(grads, T))
    for steps in (16, 32):
        *_, last = sgd.train(start, [batch] * steps, position_only, time / lam / steps, 0.9 * case.control,
                             trained=("WKQ",))
        gaps.append(np.abs(position_logits(last.params, T) - end).max())
    return 1.0, np.log2(gaps[0] / gaps[1]), 0.2


def disjoint_prompts(case, R, n, M):
    """A Latin table, and M collision-free prompts and one more that share no subject and no answer.

    The M use every relation but the last equally often, or one, in turn; the one more uses the last.
    """
    k = R - 1 if M % (R - 1) == 0 else 1
    facts = Facts.latin(R * (n + 1) * (M + 1) + case.rng.integers(4), R, case.rng)
    # Subjects R apart on the cycle have disjoint rows.
    s = np.argsort(facts.sigma)[:R * (n + 1) * (M + 1):R]
    s = case.rng.permutation(s).reshape(M + 1, n + 1)
    prompts = prompts_of(facts, s, np.append(np.arange(M) % k, R - 1))
    show(case, prompts)
    return facts, some(prompts, slice(M)), some(prompts, slice(M, None)), k


@claim("R11", "few samples: full attention is position-only, scaled", derivation=theory.score_factors,
       cases=10, tolerance=1e-11, control="one answer more is shared by two prompts",
       reason="rounding, relative to the largest score, of five steps that may amplify it",
       step=("infer", "recall"), n=(1, 2), R=(2, 4), M=(2, 6), lam=(0.1, 10.0), **OURS)
def few_samples_scale_the_scores(case, step, n, R, M, lam):
    """Scores after five steps of full WKQ, in training prompts and in one of unseen tokens."""
    facts, prompts, unseen, k = disjoint_prompts(case, R, n, M)
    batch, other = getattr(prompts, step)(), getattr(unseen, step)()[0]
    if case.control:
        batch[0][1, 1] = batch[0][0, 1]
    T = batch[0].shape[1]
    w0 = case.rng.normal(0, 1, T)
    params = with_position_logits(construct(facts, n, lam), w0)
    *_, last = sgd.train(params, [batch] * 5, loss_and_grads, 1 / lam, 0.5, trained=("WKQ",))
    w, velocity = w0, 0.0
    c = theory.score_factors(n, M, None if step == "infer" else k)
    for _ in range(5):
        velocity = 0.5 * velocity + flow(w0 + c * (w - w0), facts, lam)
        w = w + velocity / lam
    observed = [forward(last.params, z).scores for z in (*batch[0], other[0])]
    return np.array([w0 + c * (w - w0)] * M + [w]), np.array(observed)


@claim("R13", "recall with relu: its logits, and its end at u_n = 1 − b", control=NOT_LATIN,
       derivation=theory.relu_recall_loss, reason="rounding, relative to lam, the size of the logits",
       bias=(0.01, 0.49), **FLOWS)
def relu_recall(case, table, n, R, spare, lam, bias):
    """Logits at any attention; losses with all of it on (s_n, r), and their slopes around the kink."""
    facts, prompts = draw_disjoint(case, table, n, R, spare, NOT_LATIN)
    s, r = prompts.subjects[0], prompts.relation[0]
    memory = case.number(construct(facts, n, lam, "relu", bias))
    (tokens, targets, slot), T = prompts.recall(), 2 * n + 2
    params, alpha = attend(case, memory, T, "random")
    logits = theory.relu_recall_logits(alpha[0:-1:2], alpha[-1],
                                       facts.answer(s[:, None], np.arange(facts.R)), r, facts.N, lam, bias)
    # Down to ½: further below, p(x) decides, and L rises to log N at x = 0.
    steps = np.array([-1, -0.1, -1e-3, 1e-3, 0.1, 0.9])
    x = np.append(1 - bias + steps * min(bias, 0.5 - bias), [1 - bias, 1])

    def at(x):
        """Loss of the model with u_n = x, alpha_r = 1 − x, and its slope in the logit of s_n."""
        w = case.number(np.full(T, -800.0))
        w[-2:] = np.log(case.number(np.maximum([x, 1 - x], 1e-300)))
        loss, grads = loss_and_grads(with_position_logits(memory, w), tokens, targets, slot, "relu")
        return loss, position_logits(grads, T)[-2]
    losses, rates = np.transpose([at(value) for value in x])
    return ((logits, theory.relu_recall_loss(x, facts.N, facts.R, lam, bias), np.sign(steps)),
            (forward(params, tokens[0], "relu").logits[slice(*slot)], losses, np.sign(rates[:-2])),
            (lam, lam, 0.0))


@claim("R14", "fine-tuning is local: only what occurred moves", derivation=theory.gradient_support, cases=15,
       control="token embeddings Gaussian, not one-hot", step=("infer", "recall"), count=(1, 2),
       **{**FLOWS, "lam": (0.1, 10.0)})
def fine_tuning_is_local(case, table, step, n, R, spare, count, lam):
    """Where the model's gradient is not zero; and, after training, attention on a prompt of new tokens."""
    facts = draw_facts(case, table, max(R, 5 * (n + 1)) + spare, R)
    n = min(n, facts.N // 5 - 1)        # room for prompts that share no token
    # Prompts of the last relation, and one of the first on new subjects and answers.
    seen = prompts_of(facts, sample(facts, n, count, case.rng).subjects, np.full(count, facts.R - 1))
    show(case, seen)
    s = np.setdiff1d(np.arange(facts.N), seen.subjects)
    s = s[~np.isin(facts.answer(s, 0), seen.answers)]
    unseen = prompts_of(facts, s[None, :n + 1], np.array([0]))
    params = construct(facts, n, lam)
    if case.control:
        params = params._replace(E=case.rng.normal(0, 1, params.E.shape))
    batch, (tokens, _, _) = getattr(seen, step)(), getattr(unseen, step)()
    V, L, T = len(params.E), len(params.P), tokens.shape[1]
    start = params._replace(WKQ=case.rng.normal(0, 1, params.WKQ.shape))
    nonzero = loss_and_grads(start, *batch)[1].WKQ != 0
    *_, last = sgd.train(params, [batch] * 3, loss_and_grads, 1.0, trained=("WKQ",))
    return ((theory.gradient_support(batch[0], V, L), softmax(position_logits(last.params, T))),
            (nonzero, forward(last.params, tokens[0]).attention))
