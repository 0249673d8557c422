"""Claims R11 and R16: few training prompts suffice, at which times, and what they leave undone.

The flow, training prompts without common tokens. To infer, full WKQ trained on M prompts, SEEDS starts: the
test loss on new tokens (left) stays above the floor of R16b, and its excess (right) falls like t^−M/(M+3),
the law. The flow is that of position-only attention, c times as fast (R16), so N does not occur; markers at
the left are SGD of the model itself, M prompts of a table. To recall (below), from uniform attention: the
test loss is small in a window of times. It ends late for a relation that was not seen, unless k = M, and
for a seen one on new subjects at every M; k relations among M prompts.

Saved, not drawn: SGD of the model on random prompts, which may share tokens. Training draws subjects of
even number, tests draw odd ones. The relation of a test prompt is new (odd numbers), or one of those
trained: the natural test. `least` is M*, the least M of MS whose median test loss (both steps) is at most
TARGET, after so many steps: its growth with the number of facts depends on when training stops (not a
number: none suffices). At one table size, one relation in training or four tell M from the coverage of
relations. `positions`: the test loss of position-only attention trained on one prompt. Run time: some 4
minutes on two cores.
"""

import drawing      # first: it sets the number of threads
from fractions import Fraction
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
    figure = drawing.plt.figure(figsize=(13, 10))
    grid = figure.add_gridspec(2, 2)
    left, right, below = (figure.add_subplot(place) for place in (grid[0, 0], grid[0, 1], grid[1, :]))
    looks = ((drawing.BLUE, "o"), (drawing.RED, "^"), (drawing.GREEN, "s"), (drawing.PURPLE, "D"))
    shown = {0: 0.25, len(M_FLOW) - 1: 0.1}        # the loss at which the label stands
    for i, (M, (colour, marker)) in enumerate(zip(M_FLOW, looks)):
        losses, floors, laws = data["infer"][i], data["floor"][i], data["law"][i]
        if i in shown:
            left.plot(TIMES, losses.T, color=drawing.BLACK, lw=1.2, ls="-" if i else "--")
            left.plot(data["sgd_times"], data["sgd"][i].T, marker, ms=6, color=colour)
            left.plot(TIMES[-12:], np.repeat(floors[:, None], 12, axis=1).T, ":", color=drawing.BLACK)
            left.annotate(f"M = {M}", (TIMES[(losses.max(axis=0) < shown[i]).argmax()], shown[i]), (8, 0),
                          color=colour, textcoords="offset points")
        right.plot(TIMES[::4], (losses - floors[:, None])[:, ::4].T, marker, ms=4, color=colour)
        right.plot(TIMES[20:], laws[:, 20:].T, color=drawing.BLACK, lw=1)
        right.text(4 * TIMES[-1], np.median(laws[:, -1]), f"M = {M}: $t^{{-{Fraction(M, M + 3)}}}$",
                   color=colour, va="center")
    left.text(TIMES[-1], 0.93 * data["floor"].min(), "dotted: its floor (R16b)", ha="right", va="top")
    left.text(TIMES[-1], 1.0, "black: theory, the flow (R16)\nmarkers: SGD", ha="right", va="center")
    left.set(xscale="log", yscale="log", xlabel="time t", ylabel="test loss, infer [nats]", ylim=(0.03, 2.5),
             title="Infer: one prompt is enough, up to a floor")
    right.set(xscale="log", yscale="log", xlabel="time t", ylabel="test loss − floor [nats]",
              xlim=(0.1, 1e20), ylim=(1e-9, 10), xticks=(1, 1e4, 1e8, 1e12),
              yticks=(1e-8, 1e-6, 1e-4, 1e-2, 1),
              title="The rest falls by a law (black: theory, R16b)")
    for row, losses in enumerate(data["recall"]):
        for shift, loss, colour, hatch, words in ((0.2, losses[0], drawing.ORANGE, "//", "a new relation"),
                                                  (-0.2, losses[1], drawing.SKY, "", "a relation seen")):
            good = RECALL_TIMES[loss <= TARGET]
            below.barh(row + shift, good[-1] - good[0], 0.36, left=good[0], color=colour, hatch=hatch,
                       edgecolor="white", linewidth=0)
            if row == 0:
                at, side = (good[-1] * 1.3, "left") if shift < 0 else (good[0] / 1.3, "right")
                below.text(at, shift, f"test: {words}", va="center", ha=side)
    below.set_yticks(range(len(RECALL_MK)), [f"M = {M}, k = {k}" for M, k in RECALL_MK])
    below.set(xscale="log", xlabel="time t, trained on M prompts of k relations", xlim=(1, RECALL_TIMES[-1]),
              title=f"Recall: test loss ≤ {TARGET:g} nats in a window of times (theory: flow, R16c)")
    below.invert_yaxis()
    below.grid(False, axis="y")
    below.set_axisbelow(True)
    return figure


if __name__ == "__main__":
    drawing.main("recall_samples", compute, plot)
