"""The claims of full attention, and of where fine-tuning ends and how fast (R13b, R16–R18)."""

from itertools import repeat

import numpy as np
from scipy.special import softmax

from refimpl import sgd
from refimpl.claims.claim import OURS, claim
from refimpl.claims.finetuning import disjoint_prompts, rate
from refimpl.claims.recall import ANY, attend, draw_disjoint, draw_prompt, one_prompt, some
from refimpl.recall import implicit, theory
from refimpl.recall.memory import construct
from refimpl.recall.model import loss, with_position_logits
from refimpl.recall.task import Facts


def late(R, lam, powers):
    """Times, powers of 10 in units of 1/(sigma lam), sigma at the end."""
    return 10.0 ** powers * (np.exp(lam / 2) + R - 1) / (lam * (R - 1))


def infer_losses(w, R, lam):
    """Losses of the infer step from logits (count, 2n+1)."""
    return np.array([theory.infer_loss(a[0::2], a[1::2], R, lam) for a in softmax(w, axis=1)])


@claim("R16", "full attention is position-only, c times as fast", derivation=theory.score_factors, cases=10,
       tolerance=1e-11, reason="rounding of ten steps, which may amplify it",
       control="one answer is shared by two training prompts", control_space=dict(M=(2, 5)), n=(1, 3),
       M=(1, 5), lam=(0.5, 10.0), momentum=(0.0, 0.9), **OURS)
def full_attention_is_faster(case, n, M, lam, momentum):
    """Ten steps of full WKQ on M prompts of M relations; position-only ones on one, c times as long."""
    facts, prompts, unseen, _ = disjoint_prompts(case, M + 1, n, M)
    if case.control:
        prompts.answers[1, 0] = prompts.answers[0, 0]
    known, c = implicit.seen(prompts), 1 + 3 / M
    index, start = implicit.index(known, prompts), [case.rng.normal(0, 0.5, 2 * n + T) for T in (1, 2)]
    full = implicit.Steps(*(np.zeros(len(ids)) for ids in known))
    for w, place, w0 in zip(full, index, start):
        w[place[0, :, 3]] = w0

    def trained(weights, facts, prompts, index, lr):
        batches = repeat((facts, prompts, lam, index), 10)
        return list(sgd.train(weights, batches, implicit.loss_and_grads, lr, momentum))[-1].params
    full = trained(full, facts, prompts, index, 0.5 / lam)
    other = Facts.latin(2 * facts.N, M + 1, case.rng)       # in the infer step N does not occur
    large, alone = (trained(implicit.Steps(*start), table, prompt, None, 0.5 * c / lam)
                    for table, prompt in ((other, one_prompt(other, n)), (facts, unseen)))
    predicted, observed = [softmax(alone.infer)], [softmax(large.infer)]
    traces = [implicit.forward(full, facts, each, lam, implicit.index(known, each))
              for each in (some(prompts, slice(case.control, None)), unseen)]
    for w0, Y, train, test in zip(start, alone, *traces):
        predicted += [softmax(Y), softmax(w0 + (Y - w0) / c)]
        observed += [train.attention[0], test.attention[0]]
    return predicted, observed


def leading_start(case, n):
    """A start in which one pair leads, with some distance to the others; its number; the other positions."""
    w0, pair = case.rng.normal(0, 0.5, 2 * n + 1), case.rng.integers(n)
    own = slice(2 * pair, 2 * pair + 2)
    w0[own] += w0.max() + 0.5 - w0[own].min()
    return w0, pair, np.delete(np.arange(2 * n + 1), own)


@claim("R16a", "losers and excess loss fall like 1/t, late", kind="limit", cases=4,
       derivation=theory.training_law, control="full attention on three prompts: the time is 2t, not t",
       n=(1, 4), R=(2, 8), lam=(2.0, 12.0), **OURS)
def losers_vanish(case, n, R, lam):
    """log(weight/law) of all losers and log(excess/law) along the flow, at three times.

    Allowed: the first one's largest, times (t/t_0)^{−2/(2n+1)} as the law says, and half as much more.
    """
    (w0, _, others), times = leading_start(case, n), late(R, lam, np.array([3, 5, 7]))
    w = theory.trajectory(w0, (1 + case.control) * times, R, lam)
    weight, law = theory.training_law(n, times, R, lam)
    excess = infer_losses(w, R, lam) - law.floor
    off = np.log(np.column_stack([softmax(w, axis=1)[:, others] / weight[:, None], excess / law.excess]))
    allowed = 1.5 * np.abs(off[0]).max() * (times / times[0]) ** (-2 / (2 * n + 1))
    return 0 * off[1:], off[1:], np.repeat(allowed[1:, None], 2 * n, axis=1)


@claim("R16b", "test excess falls like t^−M/(M+3) to a floor", kind="limit", cases=4,
       derivation=theory.transfer_law, control="the exponent of training, 1",
       n=(1, 4), R=(2, 8), M=(1, 6), lam=(2.0, 12.0), **OURS)
def test_excess_falls(case, n, R, M, lam):
    """log(excess/law) on prompts of unseen tokens, full WKQ along the flow, at three times.

    Allowed: how far the losing weights are from their law in training, over c; and terms of second order in
    the losers' share ε, at most ε (2 + m_f + cosh²(gamma/2)).
    """
    (w0, pair, others), times, c = leading_start(case, n), late(R, lam, np.array([2, 4, 6])), 1 + 3 / M
    y = theory.trajectory(w0, times, R, lam, None, np.full(2 * n + 1, c))
    test, alpha = w0 + (y - w0) / c, softmax(y, axis=1)
    law = theory.transfer_law(w0, pair, times, M, R, lam)
    weight, training = theory.training_law(n, c * times, R, lam)
    excess = infer_losses(test, R, lam) - law.floor
    off = np.abs(np.log(alpha[:, others] / weight[:, None])).max(axis=1) / c
    share = softmax(test, axis=1)[:, others].sum(axis=1)
    gap = np.cosh((1 - 1 / c) * (w0[2 * pair] - w0[2 * pair + 1]) / 2) ** 2
    allowed = off + share * (2 + lam / 2 / gap + gap) / (1 - share)
    predicted = training.excess if case.control else law.excess
    return np.zeros(3), np.log(excess / predicted), allowed


@claim("R16c", "recall drifts apart on test prompts, late", kind="limit", cases=3,
       derivation=theory.drift_law, control="the relation's scores grow like the others",
       control_space=dict(each=(2, 4)), n=(1, 3), k=(1, 3), each=(1, 4), R=(2, 5), spare=(4, 100),
       lam=(2.0, 8.0), **OURS)
def recall_drifts_apart(case, n, k, each, R, spare, lam):
    """Context weights in training, and slopes of log(u_n/alpha_r) on prompts of both kinds, at three times.

    Allowed: the first log(weight/law), times (t/t_0)^{−c_s/(c_s+2nH)}, as weights approach each other, and
    half as much more. The slopes are off by no more than the weights that drive them, relatively, and 1/t.
    """
    R, M = max(R, k + 1), k * each
    N = (n + 1) * R + spare
    w0 = case.rng.normal(0, 0.5, 2 * n + 2)
    w0[-2:] += w0.max()
    c, law = theory.score_factors(n, M, k), theory.drift_law(n, M, k, N, R, lam)
    real = np.where(np.arange(2 * n + 2) > 2 * n, c[0], c) if case.control else c
    units = np.array([1e3, 3e4, 1e6])
    times = units * max(law.answer, 1)
    y = theory.trajectory(w0, times, R, lam, N, real)
    weights = softmax(y, axis=1)[:, :-2] * times[:, None]
    off = np.log(weights / np.where(np.arange(2 * n) % 2, law.answer, law.subject))
    z, at = y - w0, np.log(times)
    unseen = z[:, -2] / c[0] - z[:, -1] / c[-1]
    seen = (1 + 1 / k) * z[:, -2] / c[0] - z[:, -1]
    decay = c[0] / (c[0] + 2 * n * c[0] * c[-1] / (c[0] + c[-1]))
    allowed = 1.5 * np.abs(off[0]).max() * (times / times[0]) ** -decay + 1 / units
    return ((0 * off[1:], np.full(2, law.unseen), np.full(2, law.seen)),
            (off[1:], np.diff(unseen) / np.diff(at), np.diff(seen) / np.diff(at)),
            (np.repeat(allowed[1:, None], 2 * n, axis=1),
             *(abs(slope) * allowed[:-1] + 1 / units[:-1] for slope in (law.unseen, law.seen))))


@claim("R16d", "to recall takes a memory as strong as log N", kind="inequality",
       derivation=theory.recall_floor, reason="rounding, relative to lam",
       control="the memory is twice as strong", lam=(0.1, 20.0),
       **{**ANY, "control_space": dict(lam=(0.5, 8.0))})
def memory_must_be_strong(case, table, attention, n, R, spare, lam):
    """The floor against losses of the model at any attention, on any prompt; at ½ + ½ on (s_n, r) too."""
    facts, prompts = draw_prompt(case._replace(control=False), table, n, R, spare)
    memory = construct(facts, n, lam * (1 + case.control))
    pair = np.append(np.full(2 * n, -800.0), [0, 0])
    losses = [loss(params, *prompts.recall()) for params in (
        attend(case, memory, 2 * n + 2, attention)[0], with_position_logits(memory, pair))]
    return np.full(2, theory.recall_floor(facts.N, facts.R, lam)), np.array(losses), lam


@claim("R13b", "the way back from u_n = 1 with relu, as an integral", derivation=theory.way_back, cases=15,
       control="the square in place of relu", tolerance=1e-9,
       reason="48 nodes of Gauss and Legendre in log δ", n=(1, 2), R=(2, 4), spare=(0, 8), lam=(0.5, 10.0),
       bias=(0.05, 0.5), digits=(1.0, 6.0), **OURS)
def way_back(case, n, R, spare, lam, bias, digits):
    """∫ dz/(dz/dt), z = w_{s_n} − w_r, over the model's own rates, all attention on (s_n, r)."""
    facts, prompts = draw_disjoint(case, "latin", n, R, spare)
    phi = ("square",) if case.control else ("relu", bias)
    memory, step = construct(facts, n, lam, *phi), (*prompts.recall(), phi[0])
    start, end = bias * 10 ** -digits, bias * 0.99
    nodes, weights = np.polynomial.legendre.leggauss(48)
    low, high = np.log(start / (1 - start)), np.log(end / (1 - end))
    speeds = []
    for z in (low + high) / 2 + (high - low) / 2 * nodes:
        dw = rate(with_position_logits(memory, np.append(np.full(2 * n, -800.0), [0, z])), step)
        speeds.append(dw[-1] - dw[-2])
    return (theory.way_back(start, end, facts.N, R, lam, bias),
            (high - low) / 2 * weights @ (1 / np.array(speeds)))


def rates_at(facts, n, case, lam, w, step):
    """The model's own dw/dt in this step, at many states (count, T), on a collision-free prompt."""
    states = implicit.Steps(*(np.zeros((len(w), 2 * n + T)) for T in (1, 2)))._replace(**{step: w})
    # Each prompt reads entries of its own: its state.
    index = implicit.Steps(*(
        np.stack([np.arange(each.size).reshape(each.shape), *[np.full(each.shape, -1)] * 3], axis=2)
        for each in states))
    prompts = some(one_prompt(facts, n, case.rng.integers(facts.R)), np.zeros(len(w), int))
    weights = implicit.Steps(*(each.ravel() for each in states))
    grads = implicit.loss_and_grads(weights, facts, prompts, lam, index)[1]
    return -len(w) * getattr(grads, step).reshape(w.shape)


@claim("R17", "while a pair leads, its lead grows", kind="inequality", derivation=theory.leader_bounds,
       tolerance=1e-11, reason="rounding of rates that cancel, relative to sigma lam",
       control="the largest u v, but not the largest harmonic mean", control_space=dict(spread=(1.0, 2.0)),
       n=(2, 8), R=(2, 9), lam=(0.1, 30.0), spread=(0.01, 2.0), **OURS)
def lead_grows(case, n, R, lam, spread, count=500):
    """All four bounds on the model's own rates, at `count` random states less those in which none leads."""
    w = case.rng.normal(0, spread, (count, 2 * n + 1))
    w = w[(theory.leading_pair(w) < 0) == case.control]
    dw = rates_at(Facts.latin((n + 1) * R, R, case.rng), n, case, lam, w, "infer")
    (df, dg), (f, g) = ((x[:, 0:-1:2] + x[:, 1::2], x[:, 0:-1:2] - x[:, 1::2]) for x in (dw, w))
    i = f.argmax(axis=1)[:, None]
    bounds = theory.leader_bounds(w, i[:, 0], R, lam)
    deta = df / 2 - np.tanh(g / 2) * dg / 2         # eta = √f / cosh(g/2)
    lead, harmonic = (np.take_along_axis(rates, i, axis=1) - rates for rates in (df, deta))
    m = 2 * lam * shares(w).sum(axis=1)
    query, other = dw[:, -1] - np.take_along_axis(df, i, axis=1)[:, 0] / 2, np.arange(n) != i
    size = lam * (R - 1) / (np.exp(m) + R - 1)
    sizes = np.broadcast_to(size[:, None], other.shape)[other]
    return ((m, bounds.lead[other], 0 * sizes, bounds.harmonic[other], query),
            (bounds.margin, lead[other], bounds.lead[other], harmonic[other], bounds.query),
            (lam, sizes, sizes, sizes, size))


def shares(w):
    """u v of all pairs, (count, n), from logits (count, 2n+1)."""
    alpha = softmax(w, axis=1)
    return alpha[:, 0:-1:2] * alpha[:, 1::2]


@claim("R17b", "below the two-pair loss the largest u v wins", kind="inequality", cases=6,
       derivation=theory.decided_loss, tolerance=1e-9, reason="the error of the solver",
       control="loss above it, and a gap in the leading pair", n=(2, 4), R=(2, 9), lam=(1.0, 12.0),
       gap=(0.0, 1.0), **OURS)
def decided_once(case, n, R, lam, gap):
    """m ≤ lam/4 where two pairs tie at the top; and who leads below the loss leads to the end."""
    w, start = case.rng.normal(0, 1, (2, 2 * n + 1))
    w[0:4] = np.array([1, -1, 0, 0]) * case.rng.normal() + w[:-1].max() + case.rng.exponential()
    start[-1] = -1
    start[:2] = start.max() + np.array([gap, -gap]) / 2
    while infer_losses(start[None], R, lam)[0] > theory.decided_loss(R, lam):
        start[:2] += 0.05
    if case.control:
        start = np.array([2, -2] + [-0.01, -0.01] * (n - 1) + [0.0])
    times = np.append(0, late(R, lam, np.arange(-1, 7, 1.5)))
    f = shares(theory.trajectory(start, times, R, lam))
    return np.append(2 * shares(w[None]).sum(), f[:, 1:].max(axis=1)), np.append(1 / 4, f[:, 0])


@claim("R17c", "the loss of a leading pair ends at R9, in time", kind="inequality", cases=6,
       derivation=theory.leader_loss_bound, tolerance=1e-9, reason="the error of the solver",
       control="the leading pair has the largest gap", n=(1, 5), R=(2, 9), lam=(1.0, 12.0),
       spread=(0.1, 2.0), **OURS)
def leader_ends_at_r9(case, n, R, lam, spread):
    """L_end ≤ L(t) ≤ the bound, at times up to 1e6/(sigma lam), where the bound is near L_end."""
    sums, gaps = case.rng.normal(0, spread, (2, n))
    first, least = sums.argmax(), np.abs(gaps).argmin()
    gaps[[first, least]] = gaps[[least, first]]
    w0 = np.append(np.stack([sums + gaps, sums - gaps], axis=1).ravel() / 2, case.rng.normal(0, spread))
    times = late(R, lam, np.arange(-1, 7))
    bound = theory.leader_loss_bound(w0, times, R, lam)
    if case.control:
        w0[2 * first:2 * first + 2] += 4, -4
    losses = infer_losses(theory.trajectory(w0, times, R, lam), R, lam)
    return (np.append(losses, np.full(8, theory.infer_end_loss(R, lam))), np.append(bound, losses))


@claim("R18", "with the query ahead all context logits fall", kind="inequality",
       derivation=theory.context_bounds, tolerance=1e-11, reason="rounding of rates, relative to lam",
       control="a subject of the context is ahead of the query", control_space=dict(lam=(4.0, 20.0)),
       n=(1, 4), R=(2, 6), spare=(0, 40), lam=(0.5, 20.0), spread=(0.1, 2.0), **OURS)
def context_falls(case, n, R, spare, lam, spread, count=50):
    """The model's own rates at random states; in the last one u_n = u_0, and s_n gains on s_0."""
    facts = Facts.latin((n + 1) * R + spare, R, case.rng)
    w = case.rng.normal(0, spread, (count, 2 * n + 2))
    w[:, 2 * n] = w[:, 0:-1:2].max(axis=1) + case.rng.exponential(size=count)
    w[-1, 0] = w[-1, 2 * n]
    w[:, 0] += (w[:, 2 * n] - w[:, 0] + 3) * case.control
    dw = rates_at(facts, n, case, lam, w, "recall")
    bounds = np.array([theory.context_bounds(each, facts.N, R, lam) for each in w])
    return ((dw[:, :-2], bounds, np.zeros(count), dw[-1, 0]),
            (bounds, 0 * bounds, dw[:, -2] + dw[:, -1], dw[-1, 2 * n]), lam)


@claim("R18b", "a trap at u_n = 1, left after alpha_r^−(2n+1)", kind="limit", cases=3,
       derivation=theory.trap_law, control="the query is not ahead: uniform attention",
       n=(1, 2), R=(3, 5), spare=(40, 80), lam=(2.0, 4.0), **OURS)
def trap_is_left_late(case, n, R, spare, lam):
    """While trapped: context weights and the slope of alpha_r. Then (n = 1): the time of escape.

    Allowed. The context starts at a = 0.01, so its weights have t + tau for t, tau = context/a. This and
    log(t)/t bound the rest at 30 tau and beyond. The escape has the factor 1 + O(B/A f), f = alpha_r(0)/a.
    """
    N, law, a = (n + 1) * R + spare, theory.trap_law(n, (n + 1) * R + spare, R, lam), 0.01
    w0 = np.log(np.array([a] * (2 * n) + [1, a * 1e-12]))
    if case.control:
        w0[:] = 0
    tau = law.context / a
    times = tau * np.array([30, 300, 3000])
    alpha = softmax(theory.trajectory(w0, times, R, lam, N), axis=1)
    weight, slopes = alpha[:, 0] * times / law.context, np.diff(np.log(alpha[:, -1])) / np.log(10)
    allowed = tau / times * (1 + a / law.context) * (2 + np.log(times / tau))
    if n > 1 or case.control:
        return (np.ones(3), np.full(2, law.fall)), (weight, slopes), (allowed, allowed[:-1])
    p = 1 / (R + (N - R) * np.exp(-lam))
    starts, when = np.array([0.02, 0.005]), []
    for f in starts:
        w0[-1] = np.log(a * f)
        times = tau * np.append(0, np.logspace(1, 1 - 3 * np.log10(f), 400))
        alpha = softmax(theory.trajectory(w0, times, R, lam, N), axis=1)
        ratio = np.log(alpha[1:, -1] / alpha[1:, 0])
        when.append(np.log(times[1:])[np.argmax(ratio > 0)])
    return ((np.ones(3), np.full(2, law.fall), law.escape),
            (weight, slopes, np.diff(when)[0] / np.diff(np.log(starts))[0]),
            (allowed, allowed[:-1], 6 * 2 * (R - 1) * p / (1 - R * p) * starts[0] / np.log(4) + 0.02))
