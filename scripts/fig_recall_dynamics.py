"""Claims R5 to R10: SGD through the full model follows the flow of the position logits.

Top: the infer step from the same perturbed start, by theory (`trajectory`, lines) and by SGD on a batch
of collision-free prompts (markers, one table and batch per seed): attention on every position, the gap
within each pair (R6: it shrinks), the query's logit (R7: it falls), the loss with its infimum (R9).
Bottom: the recall step with its end point x* (R9), the loss, the growth of the differences between and
within pairs from nearly equal pairs against R8, and how long it takes until one pair has won, against n.
Top right: who wins from random starts. Run time: a minute on two cores.
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


def both(axes, x, values, lines_x, lines, colour, label):
    """Markers: mean over the seeds with the range; a black line: theory."""
    mean = values.mean(axis=0)
    spread = np.abs([values.min(axis=0) - mean, values.max(axis=0) - mean])
    axes.errorbar(x, mean, spread, fmt="o", ms=4, color=colour, label=label)
    axes.plot(lines_x, lines, color=drawing.BLACK, lw=1.2, zorder=3)


def plot(data):
    figure, axes = drawing.plt.subplots(2, 4, figsize=(15, 7))
    t, lines = data["times"], data["lines"]
    colours = (drawing.BLUE, drawing.ORANGE, drawing.GREEN)
    for name, row, step in (("infer", axes[0], "Infer"), ("recall", axes[1], "Recall")):
        measured, line = softmax(data[name], axis=2), softmax(data[f"{name}_line"], axis=1)
        for i in range(N_PAIRS):
            both(row[0], t, measured[:, :, 2 * i], lines, line[:, 2 * i], colours[i], f"$s_{i}$")
            both(row[0], t, measured[:, :, 2 * i + 1], lines, line[:, 2 * i + 1],
                 (drawing.SKY, drawing.RED, drawing.PURPLE)[i], f"$a_{i}$")
        both(row[0], t, measured[:, :, 2 * N_PAIRS], lines, line[:, 2 * N_PAIRS], "#999999",
             f"$s_{N_PAIRS}$ (query)")
        row[0].set(title=f"{step}: attention on every position", ylabel="attention", ylim=(0, 1))
    both(axes[1, 0], t, softmax(data["recall"], axis=2)[:, :, -1], lines,
         softmax(data["recall_line"], axis=1)[:, -1], "#555555", "$r$")
    x = theory.recall_end_point(N, R, LAM)
    for level, text in ((x, "x*"), (1 - x, "1 − x*")):
        axes[1, 0].axhline(level, ls=":", color=drawing.BLACK, lw=1)
        axes[1, 0].text(t[-1], level + 0.01, text, ha="right", va="bottom")
    for axis in axes[:, 0]:
        axis.legend(ncols=2, fontsize=8.5, loc="upper center")
    for i in range(N_PAIRS):
        both(axes[0, 1], t, data["infer"][:, :, 2 * i] - data["infer"][:, :, 2 * i + 1], lines,
             data["infer_line"][:, 2 * i] - data["infer_line"][:, 2 * i + 1], colours[i],
             f"$w_{{s_{i}}} - w_{{a_{i}}}$")
    both(axes[0, 1], t, data["infer"][:, :, -1], lines, data["infer_line"][:, -1], drawing.COLOURS["query"],
         f"query, $w_{{s_{N_PAIRS}}}$")
    axes[0, 1].set(title="Gaps shrink (R6), the query falls (R7)", ylabel="logit")
    axes[0, 1].legend(fontsize=8.5)
    alpha = softmax(data["infer_line"], axis=1)
    both(axes[0, 2], t, data["infer_loss"], lines,
         [theory.infer_loss(a[0::2], a[1::2], R, LAM) for a in alpha], drawing.COLOURS["infer"], "SGD")
    axes[0, 2].axhline(theory.infer_end_loss(R, LAM), ls=":", color=drawing.BLACK, label="infimum (R9)")
    axes[0, 2].set(title="Infer: loss", ylabel="loss (nats)", yscale="log")
    alpha = softmax(data["recall_line"], axis=1)
    both(axes[1, 1], t, data["recall_loss"], lines,
         [theory.recall_loss(a[0:-1:2], a[-1], N, R, LAM) for a in alpha], drawing.COLOURS["recall"], "SGD")
    axes[1, 1].axhline(theory.recall_loss(np.append(np.zeros(N_PAIRS), x), 1 - x, N, R, LAM), ls=":",
                       color=drawing.BLACK, label="at x* (R9)")
    axes[1, 1].set(title="Recall: loss", ylabel="loss (nats)", yscale="log")
    both(axes[1, 2], data["grown_times"], data["between"], data["fine"], data["growth"][:, 0],
         drawing.BLUE, "between pairs")
    both(axes[1, 2], data["grown_times"], data["within"], data["fine"], data["growth"][:, 1],
         drawing.ORANGE, "within pairs")
    axes[1, 2].set(title="Differences of nearly equal pairs (R8)", ylabel="size, start = 1", yscale="log")
    for axis in (axes[0, 2], axes[1, 1], axes[1, 2]):
        axis.legend(fontsize=8.5)
    for axis in axes.flat:
        axis.set_xlabel("time: steps × learning rate")
    ahead, winner = data["winners"].T
    agree = ahead == winner
    counts = [[(agree & (winner == i)).sum() for i in range(N_PAIRS)],
              [(~agree & (winner == i)).sum() for i in range(N_PAIRS)]]
    axes[0, 3].bar(range(N_PAIRS), counts[0], color=drawing.BLUE, label="it was ahead at the start")
    axes[0, 3].bar(range(N_PAIRS), counts[1], bottom=counts[0], color=drawing.ORANGE, label="it was not")
    axes[0, 3].set(title=f"The winner of {len(agree)} random starts", xlabel="winning pair",
                   ylabel="starts", xticks=range(N_PAIRS), ylim=(0, 1.35 * np.sum(counts, axis=0).max()))
    axes[0, 3].legend(fontsize=8.5)
    axes[0, 3].set_axisbelow(True)
    n, waits = data["pairs"], data["waits"]
    both(axes[1, 3], n, waits[:, :, 0].T, n, waits[:, :, 1].mean(axis=1), drawing.BLUE, "SGD")
    rates = [theory.growth_rates(k, R, LAM).between for k in n]
    axes[1, 3].plot(n, np.log(1 / NEARLY) / rates, ls=":", color=drawing.BLACK,
                    label="log(1/start) / rate at uniform attention (R8)")
    axes[1, 3].set(title=f"Time until one pair has {WON:g}", xlabel="pairs n", yscale="log",
                   ylabel="time: steps × learning rate", xticks=n, ylim=(15, 700))
    axes[1, 3].legend(fontsize=8.5, loc="upper left")
    return figure


if __name__ == "__main__":
    drawing.main("recall_dynamics", compute, plot)
