"""Claims R5 to R10: SGD through the full model follows the flow of the position logits.

By theory (`trajectory`, black lines) and by SGD on a batch of collision-free prompts (markers, one table
and batch per seed), from the same perturbed start: attention on every position in both steps, with the end
points of R9; the gap within each pair (R6: it shrinks) and the query's logit (R7: it falls); the growth of
the differences between and within pairs from nearly equal pairs against R8. Saved, not drawn: the losses of
both steps, and the time until one pair has won, against n. Run time: a minute on two cores.
"""

from itertools import repeat

import drawing
import numpy as np
from scipy.special import softmax

from refimpl import sgd
from refimpl.recall import (
    Facts, batched, construct, implicit, position_logits, sample, theory, with_position_logits)

N_PAIRS, N, R, LAM, LR, PROMPTS = 3, 32, 4, 8.0, 0.1, 8
STEPS, KEEP = 1200, 60
SEEDS, STARTS = tuple(range(5)), 24
# The first pair ahead, the second behind; unequal within each; markers of all seeds start here.
START = np.array([0.5, -0.1, 0.1, -0.5, -0.4, 0.2, 0.2])
RECALL_START = np.array([0.3, 0.0, -0.2, 0.1, 0.1, -0.1, 0.0, 0.2])
NEARLY = 1e-3           # how far the pairs are from equal where R8 is measured
PAIRS, WON = (2, 3, 4, 5, 6, 8), 0.9


def train(rng, step, w0, steps, keep):
    """Position logits after 0, keep, 2 keep, … steps of SGD on WKQ, and the loss at each: (k, T), (k,)."""
    facts = Facts.latin(N, R, rng)
    prompts = sample(facts, N_PAIRS, PROMPTS, rng, collision_free=True)
    params, T = with_position_logits(construct(facts, N_PAIRS, LAM), w0), len(w0)
    batch = getattr(prompts, step)()

    def positions_only(params, *batch):
        loss, grads = batched.loss_and_grads(params, *batch)
        return loss, with_position_logits(grads._replace(WKQ=0 * grads.WKQ), position_logits(grads, T))
    logits, losses = [], []
    for taken in sgd.train(params, [batch] * (steps + 1), positions_only, LR, trained=("WKQ",)):
        if taken.step % keep == 0:
            losses.append(taken.loss)
            logits.append(w0)
        w0 = position_logits(taken.params, T)
    return np.array(logits), np.array(losses)


def follow(seed, steps, keep):
    """Both steps from the fixed starts."""
    return (*train(np.random.default_rng(seed), "infer", START, steps, keep),
            *train(np.random.default_rng(seed), "recall", RECALL_START, steps, keep))


def grow(seed, steps, keep):
    """How much the differences between and within pairs have grown, from nearly equal pairs."""
    rng = np.random.default_rng(seed)
    w0 = NEARLY * np.append(rng.normal(0, 1, 2 * N_PAIRS), 0)
    logits, _ = train(rng, "infer", w0, steps, keep)
    sums = logits[:, 0:-1:2] + logits[:, 1:-1:2]
    between = np.linalg.norm(sums - sums.mean(axis=1, keepdims=True), axis=1)
    within = np.linalg.norm(logits[:, 0:-1:2] - logits[:, 1:-1:2], axis=1)
    return between / between[0], within / within[0]


def wait(n, seed):
    """Time until one of n pairs has WON of the attention, by SGD and by the flow, from nearly equal pairs."""
    rng = np.random.default_rng([seed, 2])
    w0 = NEARLY * rng.normal(0, 1, 2 * n + 1)
    facts = Facts.latin(2 * (n + 1) * R, R, rng)
    prompts = sample(facts, n, 2, rng, collision_free=True)

    def ahead(w):
        alpha = softmax(w, axis=-1)
        return (alpha[..., 0:-1:2] + alpha[..., 1::2]).max(axis=-1)
    start = implicit.Steps(w0, np.zeros(2 * n + 2))
    for last in sgd.train(start, repeat((facts, prompts, LAM)), implicit.loss_and_grads, LR):
        if ahead(last.params.infer) >= WON:
            break
    measured = LR * (last.step + 1)
    times = np.linspace(0, 1.2 * measured, 2000)[1:]
    path = ahead(theory.trajectory(w0, times, R, LAM))
    return measured, times[(path >= WON).argmax()] if path[-1] >= WON else np.nan


def win(seed):
    """Which pair was ahead at a random start, by the sum of its logits, and which one won."""
    rng = np.random.default_rng([seed, 1])
    w0 = rng.normal(0, 0.3, 2 * N_PAIRS + 1)
    logits, _ = train(rng, "infer", w0, 1000, 1000)
    pairs = [(alpha[0:-1:2] + alpha[1::2]) for alpha in softmax(logits, axis=1)]
    ahead = (w0[0:-1:2] + w0[1::2]).argmax()
    return ahead, pairs[-1].argmax()


def compute(seeds=SEEDS, steps=STEPS, keep=KEEP, starts=STARTS, pairs=PAIRS):
    runs = drawing.each(follow, [(seed, steps, keep) for seed in seeds])
    infer, infer_loss, recall, recall_loss = map(np.array, zip(*runs))
    early = steps // 4
    between, within = map(np.array, zip(*drawing.each(
        grow, [(seed, early, max(early // 20, 1)) for seed in seeds])))
    times = LR * keep * np.arange(infer.shape[1])
    grown_times = LR * max(early // 20, 1) * np.arange(between.shape[1])
    # R8's rates along the orbit of equal pairs, on which only the query moves.
    fine = np.linspace(0, grown_times[-1], 400)
    orbit = softmax(theory.trajectory(np.zeros(2 * N_PAIRS + 1), fine[1:], R, LAM), axis=1)[:, 0]
    rates = np.array([theory.growth_rates(N_PAIRS, R, LAM, u)[:2]
                      for u in np.append(1 / (2 * N_PAIRS + 1), orbit)])
    exponent = np.cumsum((rates[1:] + rates[:-1]) / 2 * fine[1], axis=0)
    lines = np.linspace(0, times[-1], 300)[1:]
    return dict(times=times, infer=infer, infer_loss=infer_loss, recall=recall, recall_loss=recall_loss,
                lines=lines, infer_line=theory.trajectory(START, lines, R, LAM),
                recall_line=theory.trajectory(RECALL_START, lines, R, LAM, N),
                grown_times=grown_times, between=between, within=within, fine=fine,
                growth=np.exp(np.concatenate([np.zeros((1, 2)), exponent])),
                winners=np.array(drawing.each(win, [(seed,) for seed in range(starts)])),
                pairs=np.array(pairs), waits=np.reshape(
                    drawing.each(wait, [(n, seed) for n in pairs for seed in seeds]),
                    (len(pairs), len(seeds), 2)))


def both(axes, x, values, lines_x, lines, colour, marker="o"):
    """Markers: mean over the seeds with the range; a black line: theory."""
    mean = values.mean(axis=0)
    spread = np.abs([values.min(axis=0) - mean, values.max(axis=0) - mean])
    axes.errorbar(x, mean, spread, fmt=marker, color=colour)
    axes.plot(lines_x, lines, color=drawing.BLACK, lw=1.5, zorder=3)


def plot(data):
    figure, ((infer, gaps), (recall, growth)) = drawing.plt.subplots(2, 2, figsize=(13, 9.2))
    t, lines, middle = data["times"], data["lines"], data["times"][len(data["times"]) // 2]
    blue, red, grey = drawing.BLUE, drawing.RED, "#888888"
    for name, axis in (("infer", infer), ("recall", recall)):
        measured, line = softmax(data[name], axis=2), softmax(data[f"{name}_line"], axis=1)
        looks = {"infer": {0: (blue, "o"), 1: (drawing.SKY, "^")},
                 "recall": {6: (red, "v"), 7: (blue, "s")}}[name]
        for i in range(measured.shape[2]):
            both(axis, t, measured[:, :, i], lines, line[:, i], *looks.get(i, (grey, ".")))
        axis.set(ylabel="attention", ylim=(-0.02, 0.75), xlabel="time t")
    ahead, winner = data["winners"].T
    infer.set(title="To infer, one pair takes ½ + ½ (R9)")
    infer.text(middle, 0.52, "$s_0$ and $a_0$, the pair ahead", color=blue, ha="center")
    infer.text(middle, 0.05, "two other pairs, query", color="#666666", ha="center")
    infer.text(middle, 0.22, f"In {(ahead == winner).sum()} of {len(ahead)} random starts\n"
               "the pair ahead won", ha="center")
    x = theory.recall_end_point(N, R, LAM)
    for level, text, colour in ((x, "query $s_3$: theory x*", red),
                                (1 - x, "relation r: theory 1 − x*", blue)):
        recall.axhline(level, ls=":", color=drawing.BLACK)
        recall.text(t[-1], level + 0.02, text, color=colour, ha="right")
    recall.text(middle, 0.05, "all pairs", color="#666666", ha="center")
    recall.set(title="To recall, query and relation share all (R9)")
    for i, marker in enumerate("o^s"):
        both(gaps, t, data["infer"][:, :, 2 * i] - data["infer"][:, :, 2 * i + 1], lines,
             data["infer_line"][:, 2 * i] - data["infer_line"][:, 2 * i + 1], blue, marker)
    both(gaps, t, data["infer"][:, :, -1], lines, data["infer_line"][:, -1], red, "v")
    gaps.text(middle, 0.3, "$w_{s_i} - w_{a_i}$, three pairs", color=blue, ha="center")
    gaps.text(middle, -0.95, "query, $w_{s_3}$", color=red, ha="center")
    gaps.set(title="Gaps within pairs close (R6), the query falls (R7)", ylabel="position logit",
             xlabel="time t")
    both(growth, data["grown_times"], data["between"], data["fine"], data["growth"][:, 0], blue)
    both(growth, data["grown_times"], data["within"], data["fine"], data["growth"][:, 1], red, "v")
    for line, text, colour, place in ((data["growth"][:, 0], "between pairs", blue, "bottom"),
                                      (data["growth"][:, 1], "within pairs", red, "top")):
        half = len(line) // 2
        growth.annotate(text, (data["fine"][half], line[half]), (-12, 10 if place == "bottom" else -10),
                        textcoords="offset points", color=colour, ha="right", va=place)
    growth.set(title="Nearly equal pairs part, by R8", yscale="log",
               ylabel="difference, start = 1", xlabel="time t")
    figure.suptitle(f"SGD (markers; {len(data['infer'])} seeds, bars: their range) stays on theory "
                    "(black lines: the flow, R5)", fontsize=18, weight="bold")
    figure.get_layout_engine().set(h_pad=0.08)
    return figure


if __name__ == "__main__":
    drawing.main("recall_dynamics", compute, plot)
