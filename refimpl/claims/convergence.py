"""The claims of where fine-tuning ends, from which starts and how fast (R13b, R17, R18)."""

import numpy as np
from scipy.special import softmax

from refimpl.claims.claim import claim
from refimpl.claims.recall import OURS, draw_disjoint, one_prompt
from refimpl.recall import implicit, theory
from refimpl.recall.memory import construct
from refimpl.recall.model import loss_and_grads, position_logits, with_position_logits
from refimpl.recall.task import Facts, Prompts


@claim("R13b", "the way back from u_n = 1 with relu, as an integral", derivation=theory.way_back, cases=15,
       control="the square in place of relu", tolerance=1e-9,
       reason="48 nodes of Gauss and Legendre in log δ", n=(1, 2), R=(2, 4), spare=(0, 8), lam=(0.5, 10.0),
       bias=(0.05, 0.5), digits=(1.0, 6.0), **OURS)
def way_back(case, n, R, spare, lam, bias, digits):
    """∫ dz/(dz/dt), z = w_{s_n} − w_r, over the model's own rates, all attention on (s_n, r)."""
    facts, prompts = draw_disjoint(case, "latin", n, R, spare)
    phi = ("square",) if case.control else ("relu", bias)
    memory, (tokens, targets, slot) = construct(facts, n, lam, *phi), prompts.recall()
    start, end = bias * 10 ** -digits, bias * 0.99
    nodes, weights = np.polynomial.legendre.leggauss(48)
    low, high = np.log(start / (1 - start)), np.log(end / (1 - end))
    speeds = []
    for z in (low + high) / 2 + (high - low) / 2 * nodes:
        w = np.full(2 * n + 2, -800.0)
        w[-2:] = 0, z
        grads = loss_and_grads(with_position_logits(memory, w), tokens, targets, slot, phi[0])[1]
        dw = -position_logits(grads, len(w))
        speeds.append(dw[-1] - dw[-2])
    return (theory.way_back(start, end, facts.N, R, lam, bias),
            (high - low) / 2 * weights @ (1 / np.array(speeds)))


def rates_at(facts, prompt, lam, infer, recall):
    """The model's own dw/dt in both steps at many states: (count, 2n+1), (count, 2n+2), likewise returned."""
    count = len(infer)
    prompts = Prompts(facts.N, facts.R, *(np.repeat(field, count, axis=0) for field in prompt[2:]))
    weights = implicit.Steps(infer.ravel(), recall.ravel())
    # Each prompt reads entries of its own: its state.
    index = implicit.Steps(*(
        np.stack([np.arange(w.size).reshape(w.shape), *[np.full(w.shape, -1)] * 3], axis=2)
        for w in (infer, recall)))
    grads = implicit.loss_and_grads(weights, facts, prompts, lam, index)[1]
    return -count * grads.infer.reshape(infer.shape), -count * grads.recall.reshape(recall.shape)


@claim("R17", "while a pair leads, its lead grows", kind="inequality", derivation=theory.leader_bounds,
       tolerance=1e-11, reason="rounding of rates that cancel, relative to sigma lam",
       control="the largest u v, but not the largest harmonic mean", control_space=dict(spread=(1.0, 2.0)),
       n=(2, 8), R=(2, 9), lam=(0.1, 30.0), spread=(0.01, 2.0), **OURS)
def lead_grows(case, n, R, lam, spread, count=500):
    """All four bounds on the model's own rates, at `count` random states less those in which none leads."""
    facts = Facts.latin((n + 1) * R, R, case.rng)
    prompt = one_prompt(facts, n, case.rng.integers(R))
    w = case.rng.normal(0, spread, (count, 2 * n + 1))
    w = w[(theory.leading_pair(w) < 0) == case.control]
    dw = rates_at(facts, prompt, lam, w, np.zeros((len(w), 2 * n + 2)))[0]
    f, g = w[:, 0:-1:2] + w[:, 1::2], w[:, 0:-1:2] - w[:, 1::2]
    i = f.argmax(axis=1)
    bounds = theory.leader_bounds(w, i, R, lam)
    df, dg = dw[:, 0:-1:2] + dw[:, 1::2], dw[:, 0:-1:2] - dw[:, 1::2]
    deta = df / 2 - np.tanh(g / 2) * dg / 2         # eta = √f / cosh(g/2)
    lead, harmonic = (rates[np.arange(len(w)), i][:, None] - rates for rates in (df, deta))
    alpha = softmax(w, axis=1)
    m = 2 * lam * (alpha[:, 0:-1:2] * alpha[:, 1::2]).sum(axis=1)
    query, other = dw[:, -1] - df[np.arange(len(w)), i] / 2, np.arange(n) != i[:, None]
    size = lam * (R - 1) / (np.exp(m) + R - 1)
    sizes = np.broadcast_to(size[:, None], other.shape)[other]
    return ((m, bounds.lead[other], 0 * sizes, bounds.harmonic[other], query),
            (bounds.margin, lead[other], bounds.lead[other], harmonic[other], bounds.query),
            (lam, sizes, sizes, sizes, size))


def pairs_along(w0, R, lam):
    """f of all pairs (6, n) along the flow from w0, at times up to 1e6/(sigma lam)."""
    sigma = (R - 1) * np.exp(-lam / 2) / (1 + (R - 1) * np.exp(-lam / 2))
    times = np.append(0, 10.0 ** np.arange(-1, 7, 1.5)) / (sigma * lam)
    alpha = softmax(theory.trajectory(w0, times, R, lam), axis=1)
    return alpha[:, 0:-1:2] * alpha[:, 1::2]


@claim("R17b", "below the two-pair loss the largest u v wins", kind="inequality", cases=6,
       derivation=theory.decided_loss, tolerance=1e-9, reason="the error of the solver",
       control="loss above it, and a gap in the leading pair", n=(2, 4), R=(2, 9), lam=(1.0, 12.0),
       gap=(0.0, 1.0), **OURS)
def decided_once(case, n, R, lam, gap):
    """m ≤ lam/4 where two pairs tie at the top; and who leads below the loss leads to the end."""
    w = np.append(case.rng.normal(0, 1, 2 * n), case.rng.normal())
    w[0:4] = np.array([1, -1, 0, 0]) * case.rng.normal() + w[:-1].max() + case.rng.exponential()
    alpha = softmax(w)
    tied = 2 * alpha[0:-1:2] @ alpha[1::2]
    start = np.append(case.rng.normal(0, 1, 2 * n), -1.0)
    start[:2] = start.max() + np.array([gap, -gap]) / 2
    while theory.infer_loss(softmax(start)[0::2], softmax(start)[1::2], R, lam) > theory.decided_loss(R, lam):
        start[:2] += 0.05
    if case.control:
        start = np.array([2, -2] + [-0.01, -0.01] * (n - 1) + [0.0])
    f = pairs_along(start, R, lam)
    return (np.append(tied, f[:, 1:].max(axis=1)), np.append(1 / 4, f[:, 0]))


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
    times = 10.0 ** np.arange(-1, 7) / (lam * (R - 1) / (np.exp(lam / 2) + R - 1))
    bound = theory.leader_loss_bound(w0, times, R, lam)
    if case.control:
        w0[2 * first:2 * first + 2] += 4, -4
    alpha = softmax(theory.trajectory(w0, times, R, lam), axis=1)
    losses = np.array([theory.infer_loss(a[0::2], a[1::2], R, lam) for a in alpha])
    return (np.append(losses, np.full(8, theory.infer_end_loss(R, lam))), np.append(bound, losses))


@claim("R18", "with the query ahead all context logits fall", kind="inequality",
       derivation=theory.context_bounds, tolerance=1e-11, reason="rounding of rates, relative to lam",
       control="a subject of the context is ahead of the query", control_space=dict(lam=(4.0, 20.0)),
       n=(1, 4), R=(2, 6), spare=(0, 40), lam=(0.5, 20.0), spread=(0.1, 2.0), **OURS)
def context_falls(case, n, R, spare, lam, spread, count=50):
    """The model's own rates at random states; in the last one u_n = u_0, and s_n gains on s_0."""
    facts = Facts.latin((n + 1) * R + spare, R, case.rng)
    prompt = one_prompt(facts, n, case.rng.integers(R))
    w = case.rng.normal(0, spread, (count, 2 * n + 2))
    w[:, 2 * n] = w[:, 0:-1:2].max(axis=1) + case.rng.exponential(size=count)
    w[-1, 0] = w[-1, 2 * n]
    w[:, 0] += (w[:, 2 * n] - w[:, 0] + 3) * case.control
    dw = rates_at(facts, prompt, lam, np.zeros((count, 2 * n + 1)), w)[1]
    bounds = np.array([theory.context_bounds(each, facts.N, R, lam) for each in w])
    return ((dw[:, :-2], bounds, np.zeros(count), dw[-1, 0]),
            (bounds, 0 * bounds, dw[:, -2] + dw[:, -1], dw[-1, 2 * n]), lam)


@claim("R18b", "a trap at u_n = 1, left after alpha_r^−(2n+1)", kind="limit", cases=3,
       derivation=theory.trap_law, control="the query is not ahead: uniform attention",
       n=(1, 2), R=(3, 5), spare=(40, 80), lam=(2.0, 4.0), **OURS)
def trap_is_left_late(case, n, R, spare, lam):
    """While trapped: context weights and the slope of alpha_r. Then (n = 1): the time of escape.

    Allowed. The context starts at a = 0.01, so its weights have t + tau for t, tau = context/a. This and
    log(t)/t bound what is left at 30 tau and beyond. The time of escape has the factor 1 + O(B/A f), where
    f is alpha_r(0)/a.
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
    late, when = np.array([0.02, 0.005]), []
    for f in late:
        w0[-1] = np.log(a * f)
        times = tau * np.append(0, np.logspace(1, 1 - 3 * np.log10(f), 400))
        alpha = softmax(theory.trajectory(w0, times, R, lam, N), axis=1)
        ratio = np.log(alpha[1:, -1] / alpha[1:, 0])
        when.append(np.log(times[1:])[np.argmax(ratio > 0)])
    return ((np.ones(3), np.full(2, law.fall), law.escape),
            (weight, slopes, np.diff(when)[0] / np.diff(np.log(late))[0]),
            (allowed, allowed[:-1], 6 * 2 * (R - 1) * p / (1 - R * p) * late[0] / np.log(4) + 0.02))
