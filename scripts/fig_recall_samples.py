"""Claims R11 and R16: few training prompts suffice, at which times, and what they leave undone.

Above: the flow, training prompts without common tokens, SEEDS starts. To infer, full WKQ trained on M
prompts: the test loss on new tokens (left) stays above the floor of R16b (dotted), and its excess (middle)
falls like t^−M/(M+3), the law (black). The flow is that of position-only attention, c times as fast (R16), so
N does not occur; crosses are SGD of the model itself, M prompts of a table. To recall (right), from uniform
attention: the test loss is small in a window of times. It ends late for a relation that was not seen, unless
k = M, and for a seen one on new subjects at every M; k relations among M prompts.

Below: SGD of the model on random prompts, which may share tokens. Training draws subjects of even number,
tests draw odd ones. The relation of a test prompt is new (odd numbers), or one of those trained: the natural
test. M* is the least M of MS whose median test loss (both steps) is at most TARGET, after so many steps: the
growth with the number of facts depends on when training stops (left, middle; none of MS suffices: no marker).
At one table size (right): the loss against M with one relation in training or with four tells M from the
coverage of relations. Position-only attention needs one prompt: printed in the left panel.
Run time: some 4 minutes on two cores.
"""

import drawing      # first: it sets the number of threads
from itertools import repeat

import numpy as np
from scipy.special import softmax

from refimpl import sgd
from refimpl.recall import Facts, Prompts, implicit, theory
from refimpl.recall.task import distinct

SEEDS, TARGET = tuple(range(5)), 0.1
N_FLOW, R_FLOW, LAM_FLOW, M_FLOW, START_FLOW = 4, 8, 10.0, (1, 2, 3, 6), 0.5
TIMES = np.logspace(0, 12, 61)
SLOPE = slice(45, None)             # t from 1e9 on
RECALL = dict(n=4, N=4096, R=8, lam=30.0)
RECALL_MK = ((2, 1), (8, 1), (64, 1), (4, 4), (7, 7), (64, 4))
RECALL_TIMES = np.logspace(0, 12, 121)
N_PAIRS, R, LAM, LR, START, TEST = 4, 8, 30.0, 0.3, 0.1, 128
LOG_FACTS, MS, STEPS = (7, 10, 13, 16, 19), (1, 2, 3, 4, 6, 8, 12, 16, 24, 32), (150, 500, 1500)
SHOWN_FACTS, POSITION_FACTS = 13, (10, 15, 20, 25)


def infer_flow(M, seed):
    """Test loss along the flow, the floor, the law of the excess, and the fitted slope of the excess."""
    w0, c = np.random.default_rng(seed).normal(0, START_FLOW, 2 * N_FLOW + 1), 1 + 3 / M
    y = theory.trajectory(w0, c * TIMES, R_FLOW, LAM_FLOW)
    alpha = softmax(w0 + (y - w0) / c, axis=1)
    losses = np.array([theory.infer_loss(a[0::2], a[1::2], R_FLOW, LAM_FLOW) for a in alpha])
    winner = (y[-1, 0:-1:2] + y[-1, 1::2]).argmax()
    floor, law = theory.transfer_law(w0, winner, TIMES, M, R_FLOW, LAM_FLOW)
    slope = np.polyfit(np.log(TIMES[SLOPE]), np.log(losses - floor)[SLOPE], 1)[0]
    return losses, floor, law, slope


def infer_sgd(M, seed, steps):
    """Test loss of the model at some steps of SGD, M prompts that share no token and one more to test."""
    rng = np.random.default_rng(seed)
    w0 = rng.normal(0, START_FLOW, 2 * N_FLOW + 1)
    facts = Facts.latin((M + 1) * (N_FLOW + 1) * R_FLOW, R_FLOW, rng)
    s = np.argsort(facts.sigma)[::R_FLOW].reshape(M + 1, N_FLOW + 1)
    r = rng.integers(0, R_FLOW, M + 1)
    prompts = Prompts(facts.N, R_FLOW, s, r, facts.answer(s, r[:, None]))
    return train(facts, some(prompts, slice(M)), [some(prompts, slice(M, None))],
                 implicit.Steps(w0, np.zeros(2 * N_FLOW + 2)), LAM_FLOW, 0.1, steps)[:, 0, 0]


def recall_flow(M, k):
    """Test loss along the flow from uniform attention: relation unseen, and seen on new subjects."""
    n, N, R, lam = RECALL.values()
    c = theory.score_factors(n, M, k)
    y = theory.trajectory(np.zeros(2 * n + 2), RECALL_TIMES, R, lam, N, c)
    seen = y / c * (1 + 1 / k)
    seen[:, -1] = y[:, -1]
    return [[theory.recall_loss(a[0:-1:2], a[-1], N, R, lam) for a in softmax(scores, axis=1)]
            for scores in (y / c, seen)]


def some(prompts, chosen):
    """The chosen ones of the prompts."""
    return prompts._replace(subjects=prompts.subjects[chosen], relation=prompts.relation[chosen],
                            answers=prompts.answers[chosen])


def draw(facts, count, rng, odd, relations):
    """Prompts whose subjects have even numbers, or odd ones, and relations among these."""
    s = 2 * distinct(facts.N // 2, N_PAIRS + 1, count, rng) + odd
    r = rng.choice(relations, count)
    return Prompts(facts.N, facts.R, s, r, facts.answer(s, r[:, None]))


def train(facts, prompts, tests, start, lam, lr, steps):
    """Losses of full WKQ after so many steps on each test, and each step of it: (len(steps), tests, 2)."""
    known = implicit.seen(prompts)
    index, weights = implicit.index(known, prompts), implicit.Steps(*(np.zeros(len(ids)) for ids in known))
    for w, place, w0 in zip(weights, index, start):
        w[place[0, :, 3]] = w0
    losses = []
    for last in sgd.train(weights, repeat((facts, prompts, lam, index), steps[-1]), implicit.loss_and_grads,
                          lr):
        if last.step + 1 in steps:
            losses.append([[trace.losses.mean() for trace in implicit.forward(
                last.params, facts, test, lam, implicit.index(known, test))] for test in tests])
    return np.array(losses)


def measure(log_facts, M, relations, seed, steps):
    """Test losses, both steps together: (len(steps), 2), relation new and relation seen."""
    rng = np.random.default_rng([log_facts, seed])
    facts = Facts.latin(2 ** log_facts // R, R, rng)
    start = implicit.Steps(rng.normal(0, START, 2 * N_PAIRS + 1), rng.normal(0, START, 2 * N_PAIRS + 2))
    pool = draw(facts, max(MS), rng, 0, np.arange(0, R, 2)[:relations])     # of one sequence the first M
    prompts = some(pool, slice(M))
    tests = draw(facts, TEST, rng, 1, np.arange(1, R, 2)), draw(facts, TEST, rng, 1, prompts.relation)
    return train(facts, prompts, tests, start, LAM, LR, steps).sum(axis=2)


def measure_positions(log_facts, seed):
    """Test loss of position-only attention trained on one prompt for 500 steps."""
    rng = np.random.default_rng([log_facts, seed, 1])
    facts = Facts.latin(2 ** log_facts // R, R, rng)
    start = implicit.Steps(rng.normal(0, START, 2 * N_PAIRS + 1), rng.normal(0, START, 2 * N_PAIRS + 2))
    prompt, test = (draw(facts, count, rng, odd, np.arange(odd, R, 2)) for count, odd in ((1, 0), (TEST, 1)))
    for last in sgd.train(start, repeat((facts, prompt, LAM), 500), implicit.loss_and_grads, LR):
        pass
    return sum(trace.losses.mean() for trace in implicit.forward(last.params, facts, test, LAM))


def enough(losses):
    """The least M of MS from which on the median loss is at most TARGET: losses (…, MS, seeds) -> (…)."""
    good = np.median(losses, axis=-1) <= TARGET
    good = np.append(good, np.ones((*good.shape[:-1], 1), bool), axis=-1)
    return np.array([*MS, np.nan])[good.argmax(axis=-1)]


def compute(seeds=SEEDS, log_facts=LOG_FACTS, steps=STEPS, shown=SHOWN_FACTS, positions=POSITION_FACTS,
            sgd_steps=(3, 10, 30, 100, 300, 1000)):
    flows = drawing.each(infer_flow, [(M, seed) for M in M_FLOW for seed in seeds])
    losses, floors, laws, slopes = (np.reshape(part, (len(M_FLOW), len(seeds), -1)) for part in zip(*flows))
    points = drawing.each(infer_sgd, [(M, seed, sgd_steps) for M in M_FLOW for seed in seeds])
    tables = [*((k, 4) for k in log_facts), (shown, 1)]
    cases = [(k, M, relations, seed, steps) for k, relations in tables for M in MS for seed in seeds]
    random = np.reshape(drawing.each(measure, cases),
                        (len(log_facts) + 1, len(MS), len(seeds), len(steps), 2))
    random = random.transpose(3, 4, 0, 1, 2)        # steps, relation new or seen, table, M, seed
    alone = drawing.each(measure_positions, [(k, seed) for k in positions for seed in seeds])
    return dict(
        infer=losses, floor=floors[..., 0], law=laws, slope=slopes[..., 0],
        sgd_times=0.1 * np.array(sgd_steps), sgd=np.reshape(points, (len(M_FLOW), len(seeds), -1)),
        recall=np.array(drawing.each(recall_flow, RECALL_MK)), log_facts=np.array(log_facts),
        steps=np.array(steps), least=enough(random[:, :, :-1]), random=random[:, :, :-1],
        one_relation=random[:, :, -1], shown=np.array(shown),
        positions=np.reshape(alone, (len(positions), len(seeds))), position_log_facts=np.array(positions))


def plot(data):
    figure, axes = drawing.plt.subplots(2, 3, figsize=(15.5, 9))
    colours = (drawing.BLUE, drawing.ORANGE, drawing.GREEN, drawing.PURPLE, drawing.RED, drawing.SKY)
    left, middle, right = axes[0]
    for M, losses, floors, laws, slopes, points, colour in zip(
            M_FLOW, data["infer"], data["floor"], data["law"], data["slope"], data["sgd"], colours):
        left.plot(TIMES, losses.T, color=colour, lw=0.9, label=[f"M = {M}"] + [None] * (len(losses) - 1))
        left.plot(data["sgd_times"], points.T, "x", ms=4, color=colour)
        left.plot(TIMES[-12:], np.repeat(floors[:, None], 12, axis=1).T, ":", color=drawing.BLACK, lw=1)
        excess = losses - floors[:, None]
        middle.plot(TIMES[::3], excess[:, ::3].T, "o", ms=2.5, color=colour, label=[
            f"M = {M}: {slopes.min():.3f} … {slopes.max():.3f} (law {-M / (M + 3):.3f})"]
            + [None] * (len(losses) - 1))
        middle.plot(TIMES[20:], laws[:, 20:].T, color=drawing.BLACK, lw=0.7)
    left.set(xscale="log", yscale="log", xlabel="time t", ylabel="test loss, infer (nats)",
             title="Infer: test loss and its floor (dotted)")
    left.legend(fontsize=8.5)
    middle.set(xscale="log", yscale="log", xlabel="time t", ylabel="test loss − floor (nats)",
               ylim=(1e-10, 10), title="Excess over the floor; slopes from t = 10⁹ on")
    middle.legend(fontsize=8.5, loc="lower left")
    for (M, k), (unseen, seen), colour in zip(RECALL_MK, data["recall"], colours):
        right.plot(RECALL_TIMES, unseen, "--", color=colour, lw=1.2)
        right.plot(RECALL_TIMES, seen, color=colour, lw=1.2, label=f"M = {M}, k = {k}")
    right.axhline(TARGET, ls=":", color=drawing.BLACK)
    right.set(xscale="log", yscale="log", ylim=(1e-4, 10), xlabel="time t", ylabel="test loss, recall (nats)",
              title="Recall: relation seen (lines), unseen (dashed)")
    right.legend(fontsize=7.5, loc="lower left", frameon=True, framealpha=0.9)
    steps, x = data["steps"], data["log_facts"]
    for axis, kind, title in zip(axes[1], (0, 1), ("relation new", "relation seen, new subjects")):
        for index, (count, colour) in enumerate(zip(steps, colours)):
            axis.plot(x + 0.12 * (index - 1), data["least"][index, kind], "o-", lw=0.8, color=colour,
                      label=f"{count} steps")
        axis.set(xlabel="facts N·R (R = 8)", ylabel="M*, median of the seeds", ylim=(0, 20),
                 title=f"Random prompts, test: {title}")
        axis.set_xticks(x, [f"$2^{{{k}}}$" for k in x])
        axis.legend(fontsize=8.5)
    axes[1, 0].text(0.02, 0.05, "position-only, one prompt, up to "
                    f"$2^{{{data['position_log_facts'][-1]}}}$ facts:\nloss "
                    f"{data['positions'].min():.2g} … {data['positions'].max():.2g}", fontsize=8.5,
                    transform=axes[1, 0].transAxes)
    middle_step, table = len(steps) // 2, int(np.flatnonzero(x == data["shown"])[0])
    for kind, style, what in ((0, "--", "new"), (1, "-", "seen")):
        for losses, colour, relations in ((data["random"][middle_step, kind, table], drawing.BLUE, "four"),
                                          (data["one_relation"][middle_step, kind], drawing.ORANGE, "one")):
            median = np.median(losses, axis=1)
            axes[1, 2].errorbar(MS, median, [median - losses.min(axis=1), losses.max(axis=1) - median],
                                fmt="o" + style, ms=4, lw=1, color=colour,
                                label=f"{relations} in training, test: {what}")
    axes[1, 2].axhline(TARGET, ls=":", color=drawing.BLACK)
    axes[1, 2].set(xscale="log", yscale="log", xlabel="training prompts M",
                   ylabel="test loss, both steps (nats)",
                   title=f"Relations told from M: $2^{{{data['shown']}}}$ facts, {steps[middle_step]} steps")
    axes[1, 2].legend(fontsize=8.5)
    return figure


if __name__ == "__main__":
    drawing.main("recall_samples", compute, plot)
