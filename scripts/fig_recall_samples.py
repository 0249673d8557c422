"""Claim R11: few training prompts suffice, and hardly more where there are many more facts.

M* is the number of training prompts that full WKQ needs for a test loss (both steps together) of at
most 0.1 nats, after STEPS steps of full-batch SGD: of one random sequence of prompts the first M, the
least M by bisection. The table has R = 8 relations; training draws subjects and relations of even
number, testing those of odd number (the table is shuffled, so that is a random half of each): no test
prompt holds a subject or the relation of a training prompt. Answers may occur in both. Position-only
attention trains on one prompt, R = 32. Theory: `score_factors` and the flow, for prompts without
common tokens, whose relations are equally frequent. Run time: some 2 minutes on two cores.
"""

import drawing      # first: it sets the number of threads
from itertools import repeat

import numpy as np
from scipy import stats
from scipy.special import softmax

from refimpl import sgd
from refimpl.recall import Facts, implicit, sample, theory

N_PAIRS, R, LAM, LR, STEPS, START, TARGET = 4, 8, 30.0, 0.3, 500, 0.1, 0.1
LOG_FACTS, SEEDS, LARGEST, TEST = tuple(range(7, 23)), tuple(range(5)), 128, 256
POSITION_LOG_FACTS, POSITION_R = (10, 15, 20, 25, 27), 32


def some(prompts, chosen):
    """The chosen ones of the prompts."""
    return prompts._replace(subjects=prompts.subjects[chosen], relation=prompts.relation[chosen],
                            answers=prompts.answers[chosen])


def half(facts, count, rng, odd):
    """Prompts whose subjects and relation all have even numbers, or odd ones."""
    while True:
        prompts = sample(facts, N_PAIRS, 200 * count, rng)
        chosen = (prompts.subjects % 2 == odd).all(axis=1) & (prompts.relation % 2 == odd)
        if chosen.sum() >= count:
            return some(prompts, np.flatnonzero(chosen)[:count])


def starts(rng):
    """Position logits at the start, small and different: from equal pairs none would win."""
    return implicit.Steps(rng.normal(0, START, 2 * N_PAIRS + 1), rng.normal(0, START, 2 * N_PAIRS + 2))


def bisect(enough, largest):
    """The least M in 1..largest with enough(M), if that is monotone; largest + 1 if there is none."""
    low, high = 0, largest + 1
    while high - low > 1:
        middle = min((low + high) // 2, 2 * low + 1)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def measure(log_facts, seed):
    """M* and the test accuracies of both steps there."""
    rng = np.random.default_rng([log_facts, seed])
    facts = Facts.latin(2 ** log_facts // R, R, rng)
    pool, test, start = half(facts, LARGEST, rng, 0), half(facts, TEST, rng, 1), starts(rng)
    found = {}

    def enough(M):
        prompts = some(pool, slice(M))
        known = implicit.seen(prompts)
        index = implicit.index(known, prompts)
        weights = implicit.Steps(*(np.zeros(len(ids)) for ids in known))
        for w, place, w0 in zip(weights, index, start):
            w[place[0, :, 3]] = w0
        batches = repeat((facts, prompts, LAM, index), STEPS)
        for last in sgd.train(weights, batches, implicit.loss_and_grads, LR):
            pass
        traces = implicit.forward(last.params, facts, test, LAM, implicit.index(known, test))
        found[M] = [(trace.margins > 0).mean() for trace in traces]
        return sum(trace.losses.mean() for trace in traces) <= TARGET

    M = bisect(enough, LARGEST)
    return [M, *found.get(M, (np.nan, np.nan))]


def measure_positions(log_facts, seed):
    """Test loss and accuracies of position-only attention trained on one prompt."""
    rng = np.random.default_rng([log_facts, seed, 1])
    facts = Facts.latin(2 ** log_facts // POSITION_R, POSITION_R, rng)
    prompt, test = half(facts, 1, rng, 0), half(facts, TEST, rng, 1)
    batches = repeat((facts, prompt, LAM), STEPS)
    for last in sgd.train(starts(rng), batches, implicit.loss_and_grads, LR):
        pass
    traces = implicit.forward(last.params, facts, test, LAM)
    return [sum(trace.losses.mean() for trace in traces),
            *((trace.margins > 0).mean() for trace in traces)]


def predict(log_facts, seed):
    """M* of R11: prompts without common tokens, R/2 relations equally often; interpolated between these."""
    N, k = 2 ** log_facts // R, R // 2
    start, losses = starts(np.random.default_rng(seed)), {}

    def enough(times):
        infer, recall = start
        c = theory.score_factors(N_PAIRS, k * times)
        c_recall = theory.score_factors(N_PAIRS, k * times, k)
        for _ in range(STEPS):
            infer = infer + LR * theory.flow(start.infer + c * (infer - start.infer), R, LAM)
            recall = recall + LR * theory.recall_flow(
                start.recall + c_recall * (recall - start.recall), N, R, LAM)
        alpha, last = softmax(infer), softmax(recall)
        losses[times] = (theory.infer_loss(alpha[0::2], alpha[1::2], R, LAM)
                         + theory.recall_loss(last[0:-1:2], last[-1], N, R, LAM))
        return losses[times] <= TARGET
    times = bisect(enough, LARGEST // k)
    if times == 1:
        return k
    above, below = np.log(losses[times - 1]), np.log(losses[times])
    return k * (times - 1 + (above - np.log(TARGET)) / (above - below))


def fit(x, y):
    """Least squares y = a + b x: a, b, 95 % interval of b, R²."""
    line = stats.linregress(x, y)
    half_width = stats.t.ppf(0.975, len(x) - 2) * line.stderr
    return np.array([line.intercept, line.slope, line.slope - half_width, line.slope + half_width,
                     line.rvalue ** 2])


def compute(log_facts=LOG_FACTS, seeds=SEEDS, position_log_facts=POSITION_LOG_FACTS):
    cases = [(k, seed) for k in log_facts for seed in seeds]
    measured = np.array(drawing.each(measure, cases)).reshape(len(log_facts), len(seeds), 3)
    # Collision-free prompts need N ≥ (n+1) R.
    theory_log_facts = [k for k in log_facts if 2 ** k // R >= (N_PAIRS + 1) * R]
    predicted = drawing.each(predict, [(k, seed) for k in theory_log_facts for seed in seeds])
    positions = drawing.each(measure_positions, [(k, seed) for k in position_log_facts for seed in seeds])
    x = np.repeat(log_facts, len(seeds))
    y = measured[:, :, 0].ravel()
    return dict(
        log_facts=np.array(log_facts), M=measured[:, :, 0], accuracy=measured[:, :, 1:],
        theory_log_facts=np.array(theory_log_facts),
        theory_M=np.reshape(predicted, (len(theory_log_facts), len(seeds))),
        position_log_facts=np.array(position_log_facts),
        positions=np.reshape(positions, (len(position_log_facts), len(seeds), 3)),
        logarithm=fit(x, y), power=fit(x, np.log2(y)))


def plot(data):
    figure, (left, right) = drawing.plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=(3, 2))
    x, M = data["log_facts"], data["M"]
    jitter = np.linspace(-0.15, 0.15, M.shape[1])
    left.plot((x[:, None] + jitter).ravel(), M.ravel(), "o", color=drawing.COLOURS["trained"],
              alpha=0.5, label=f"full WKQ, {M.shape[1]} seeds")
    left.plot(x, np.median(M, axis=1), "_", color=drawing.COLOURS["trained"], ms=14, mew=2.5,
              label="median")
    left.plot(data["theory_log_facts"], np.median(data["theory_M"], axis=1), color=drawing.BLACK,
              label="theory (R11), no common tokens, median start")
    a, b, low, high, r2 = data["logarithm"]
    left.plot(x, a + b * x, "--", color=drawing.BLUE,
              label=f"logarithm: {b:.2f} [{low:.2f}, {high:.2f}] per doubling, R² = {r2:.2f}")
    a, b, low, high, r2 = data["power"]
    left.plot(x, 2 ** (a + b * x), ":", color=drawing.GREEN,
              label=f"power law: exponent {b:.3f} [{low:.3f}, {high:.3f}]")
    left.set(xlabel="facts N·R (R = 8)", ylabel="M*: training prompts for test loss ≤ 0.1",
             title="Full attention (content and position)", ylim=(0, None))
    ticks = np.arange(x[0] + x[0] % 2, x[-1] + 1, 4)
    left.set_xticks(ticks, [f"$2^{{{k}}}$" for k in ticks])
    left.legend(loc="upper left", fontsize=8.5)
    x, loss = data["position_log_facts"], data["positions"][:, :, 0]
    right.plot(np.repeat(x, loss.shape[1]), loss.ravel(), "o", color=drawing.COLOURS["trained"], alpha=0.6,
               label=f"one training prompt, {loss.shape[1]} seeds")
    right.axhline(TARGET, ls="--", color=drawing.RED, label="0.1 nats")
    right.set(xlabel="facts N·R (R = 32)", ylabel="test loss, both steps (nats)", yscale="log",
              title="Position-only attention, M = 1", ylim=(None, 1))
    right.set_xticks(x, [f"$2^{{{k}}}$" for k in x])
    right.legend(loc="upper left", fontsize=8.5)
    return figure


if __name__ == "__main__":
    drawing.main("recall_samples", compute, plot)
