"""The claims of samples against time: full attention in training, and what of it transfers (R16)."""

from itertools import repeat

import numpy as np
from scipy.special import softmax

from refimpl import sgd
from refimpl.claims.claim import claim
from refimpl.claims.finetuning import disjoint_prompts, some
from refimpl.claims.recall import ANY, OURS, attend, draw_prompt, one_prompt
from refimpl.recall import implicit, theory
from refimpl.recall.memory import construct
from refimpl.recall.model import loss, with_position_logits
from refimpl.recall.task import Facts


@claim("R16", "full attention is position-only, c times as fast", derivation=theory.score_factors, cases=10,
       tolerance=1e-11, reason="rounding of ten steps, which may amplify it",
       control="one answer is shared by two training prompts", control_space=dict(M=(2, 5)), n=(1, 3),
       M=(1, 5), lam=(0.5, 10.0), momentum=(0.0, 0.9), **OURS)
def full_attention_is_faster(case, n, M, lam, momentum):
    """Ten steps of full WKQ on M prompts of M relations, against position-only ones, c times as long, on one.

    Attention in both steps on a training prompt and on one of unseen tokens; to infer, also against
    position-only training on a larger table, as N does not occur.
    """
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
    other = Facts.latin(2 * facts.N, M + 1, case.rng)
    large, alone = (trained(implicit.Steps(*start), table, prompt, None, 0.5 * c / lam)
                    for table, prompt in ((other, one_prompt(other, n)), (facts, unseen)))
    predicted, observed = [softmax(alone.infer)], [softmax(large.infer)]
    traces = [implicit.forward(full, facts, each, lam, implicit.index(known, each))
              for each in (some(prompts, slice(1, None) if case.control else slice(1)), unseen)]
    for w0, Y, train, test in zip(start, alone, *traces):
        predicted += [softmax(Y), softmax(w0 + (Y - w0) / c)]
        observed += [train.attention[0], test.attention[0]]
    return predicted, observed


def leading_start(case, n, spread=0.5):
    """A start in which one pair leads, with some distance to the others; its number; the other positions."""
    w0, pair = case.rng.normal(0, spread, 2 * n + 1), case.rng.integers(n)
    own = slice(2 * pair, 2 * pair + 2)
    w0[own] += w0.max() + 0.5 - w0[own].min()
    return w0, pair, np.delete(np.arange(2 * n + 1), own)


def late(R, lam):
    """Three times, in units of 1/(sigma lam)."""
    return np.array([1e2, 1e4, 1e6]) * (np.exp(lam / 2) + R - 1) / (lam * (R - 1))


@claim("R16a", "losers and excess loss fall like 1/t, late", kind="limit", cases=4,
       derivation=theory.training_law, control="full attention on three prompts: the time is 2t, not t",
       n=(1, 4), R=(2, 8), lam=(2.0, 12.0), **OURS)
def losers_vanish(case, n, R, lam):
    """log(weight/law) of all losers and log(excess/law) along the flow, at three times.

    Allowed: the first one's largest, times (t/t_0)^{−2/(2n+1)} as the law says, and half as much more.
    """
    (w0, _, others), times = leading_start(case, n), 10 * late(R, lam)
    alpha = softmax(theory.trajectory(w0, (1 + case.control) * times, R, lam), axis=1)
    weight, law = theory.training_law(n, times, R, lam)
    excess = np.array([theory.infer_loss(a[0::2], a[1::2], R, lam) for a in alpha]) - law.floor
    off = np.log(np.column_stack([alpha[:, others] / weight[:, None], excess / law.excess]))
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
    (w0, pair, others), times, c = leading_start(case, n), late(R, lam), 1 + 3 / M
    y = theory.trajectory(w0, times, R, lam, None, np.full(2 * n + 1, c))
    test, alpha = softmax(w0 + (y - w0) / c, axis=1), softmax(y, axis=1)
    law = theory.transfer_law(w0, pair, times, M, R, lam)
    weight, training = theory.training_law(n, c * times, R, lam)
    excess = np.array([theory.infer_loss(a[0::2], a[1::2], R, lam) for a in test]) - law.floor
    off = np.abs(np.log(alpha[:, others] / weight[:, None])).max(axis=1) / c
    share = test[:, others].sum(axis=1)
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
