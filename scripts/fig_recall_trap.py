"""Claim R13: where the recall step is trapped at u_n → 1, over the strength and the step size.

The dense model, position-only, from nearly uniform attention, one collision-free prompt (all such
prompts move the logits alike), STEPS steps of SGD. Maps: the loss at the end above the least loss with
all attention on (s_n, r), median of the seeds. With relu the loss over u_n has a kink at 1 − b and only
a flat stretch below it, and climbs to log(R + (N−R) e^{−λ(1−b)}) at u_n = 1. What carries u_n to 1 − δ comes
back as R13b says: black lines in the fourth panel, from the lowest point on. The square has its minimum near
½, and climbs to log(R + (N−R) e^{−λ}). Last panel: the time from δ to the kink, of SGD with small steps, over
the strength, in units of 1/(2(R−1)λδ). The integral of R13b holds at every λ. Its leading order e^{L(1)}
holds where e^{λb} λδ is small, and R, which takes the row mates alone, only where also λ(1−b) is above log N.
Run time: two minutes on two cores.
"""

import drawing      # first: it sets the number of threads

import numpy as np
from scipy.special import softmax

from refimpl import sgd
from refimpl.recall import (
    Facts, batched, construct, position_logits, sample, theory, with_position_logits)

N_PAIRS, N, R, START, STEPS = 2, 24, 4, 0.1, 300
LAMS = tuple(2.0 ** k for k in range(1, 9))
LRS = tuple(2.0 ** k for k in range(-5, 4))
SEEDS, ACTIVATIONS = tuple(range(5)), ("square", "relu")
BIAS = 3 / (4 * (N_PAIRS + 1))      # the default of `construct`
SHOWN_LAM, SHOWN_LRS = 64.0, (0.125, 1.0, 2.0)
BACK_LAMS, BACK_START, BACK_STEPS = tuple(2.0 ** k for k in range(-1, 6)), 1e-3, 1500


def train(activation, lam, lr, seed, steps):
    """1 − u_n after every step, on the relation alpha_r, and the loss: (3, steps)."""
    rng = np.random.default_rng(seed)
    facts = Facts.latin(N, R, rng)
    step = sample(facts, N_PAIRS, 1, rng, collision_free=True).recall()
    params, T = construct(facts, N_PAIRS, lam, activation), 2 * N_PAIRS + 2
    before = rng.normal(0, START, T)
    params = with_position_logits(params, before)

    def position_only(params):
        loss, grads = batched.loss_and_grads(params, *step, activation)
        return loss, with_position_logits(grads._replace(WKQ=0 * grads.WKQ), position_logits(grads, T))
    path = []
    for last in sgd.train(params, [()] * steps, position_only, lr, trained=("WKQ",)):
        alpha = softmax(before)
        path.append((np.delete(alpha, -2).sum(), alpha[-1], last.loss))
        before = position_logits(last.params, T)
    return np.array(path).T


def come_back(lam, seed, steps):
    """1 − u_n at the start, and the time of SGD from there to the kink, all attention on (s_n, r), relu."""
    rng = np.random.default_rng(seed)
    facts, start = Facts.latin(N, R, rng), BACK_START * rng.uniform(0.5, 2)
    step = sample(facts, N_PAIRS, 1, rng, collision_free=True).recall()
    w = np.full(2 * N_PAIRS + 2, -800.0)
    w[-2:] = np.log([1 - start, start])
    params, lr = construct(facts, N_PAIRS, lam, "relu"), theory.way_back(start, BIAS, N, R, lam, BIAS) / steps
    path = [start]
    while path[-1] < BIAS:
        grads = batched.loss_and_grads(with_position_logits(params, w), *step, "relu")[1]
        w = w - lr * position_logits(grads, len(w))
        path.append(softmax(w)[-1])
    last = np.log(path[-2:])        # the kink lies between the last two
    return start, lr * (len(path) - 2 + (np.log(BIAS) - last[0]) / (last[1] - last[0]))


def square_loss(x, lam):
    """The same as `relu_recall_loss`, for the square: R4 with all attention on (s_n, r)."""
    return theory.recall_loss(np.append(np.zeros(N_PAIRS), x), 1 - x, N, R, lam)


def least(activation, lam):
    """The least loss with all attention on (s_n, r)."""
    if activation == "relu":
        return theory.relu_recall_loss(1 - BIAS, N, R, lam, BIAS)
    return square_loss(theory.recall_end_point(N, R, lam), lam)


def end(activation, lam, lr, seed, steps):
    """Excess loss and u_n after training."""
    path = train(activation, lam, lr, seed, steps)
    return path[2, -1] - least(activation, lam), 1 - path[0, -1]


def compute(lams=LAMS, lrs=LRS, seeds=SEEDS, steps=STEPS, back_lams=BACK_LAMS, back_steps=BACK_STEPS):
    cases = [(activation, lam, lr, seed, steps)
             for activation in ACTIVATIONS for lam in lams for lr in lrs for seed in seeds]
    ends = np.reshape(drawing.each(end, cases), (2, len(lams), len(lrs), len(seeds), 2))
    back = drawing.each(come_back, [(lam, seed, back_steps) for lam in back_lams for seed in seeds])
    paths = [train("relu", SHOWN_LAM, lr, seed, steps) for lr in SHOWN_LRS for seed in seeds]
    return dict(lams=np.array(lams), lrs=np.array(lrs), excess=ends[..., 0], u=ends[..., 1],
                back_lams=np.array(back_lams), back=np.reshape(back, (len(back_lams), len(seeds), 2)),
                paths=np.reshape(paths, (len(SHOWN_LRS), len(seeds), 3, steps)))


def plot(data):
    figure, axes = drawing.plt.subplots(1, 5, figsize=(19, 4.4), width_ratios=(1, 1.2, 1.1, 1.1, 1.1))
    for axis, excess, activation in zip(axes, data["excess"], ACTIVATIONS):
        image = axis.imshow(np.median(excess, axis=2), origin="lower", aspect="auto", vmin=0,
                            vmax=np.log(R), cmap="magma")
        axis.set_xticks(range(len(data["lrs"])), [f"{lr:.3g}" for lr in data["lrs"]], rotation=60)
        axis.set_yticks(range(len(data["lams"])), [f"{lam:g}" for lam in data["lams"]])
        axis.set(title=f"φ = {activation}: excess loss\nafter {data['paths'].shape[3]} steps",
                 xlabel="learning rate", ylabel="strength λ")
        axis.grid(False)
    figure.colorbar(image, ax=axes[1], label="loss − least loss (nats)")
    x = np.linspace(0, 1, 401)
    for lam, style in ((2.0, "--"), (64.0, "-")):
        axes[2].plot(x, theory.relu_recall_loss(x, N, R, lam, BIAS), style,
                     color=drawing.COLOURS["relu"], label=f"relu, λ = {lam:g}")
        axes[2].plot(x, [square_loss(value, lam) for value in x], style, color=drawing.COLOURS["square"],
                     label=f"square, λ = {lam:g}")
    axes[2].axvline(1 - BIAS, ymax=0.8, ls=":", color=drawing.BLACK)
    axes[2].text(1 - BIAS - 0.02, 0.75, "1 − b", ha="right")
    axes[2].set(title="Loss with all attention on $(s_n, r)$", xlabel="$u_n$", ylabel="loss (nats)",
                ylim=(0, 3.4))
    axes[2].legend(fontsize=8.5, loc="upper right", ncols=2)
    steps = np.arange(data["paths"].shape[3])
    for lr, paths, colour in zip(SHOWN_LRS, data["paths"], (drawing.BLUE, drawing.GREEN, drawing.RED)):
        axes[3].plot(steps[::6], paths[:, 1, ::6].T, "o", ms=3, color=colour,
                     label=[f"learning rate {lr:g}"] + [None] * (len(paths) - 1))
        for alpha_r in paths[:, 1]:
            lowest = alpha_r.argmin()
            delta = np.geomspace(alpha_r[lowest], BIAS, 60) if alpha_r[lowest] < 0.01 else []
            at = [lowest + theory.way_back(delta[0], each, N, R, SHOWN_LAM, BIAS) / lr for each in delta]
            axes[3].plot(at, delta, color=drawing.BLACK, lw=1)
    axes[3].axhline(BIAS, ls=":", color=drawing.BLACK)
    axes[3].text(steps[-1], BIAS * 1.2, "b, the kink", ha="right", va="bottom")
    axes[3].set(title=f"relu, λ = {SHOWN_LAM:g}: attention on r\n(lines: the way back by R13b)",
                xlabel="steps", ylabel="$α_r$", yscale="log", ylim=(None, 30), xlim=(0, steps[-1]))
    axes[3].legend(fontsize=8.5, loc="upper left")
    lam = np.geomspace(data["back_lams"][0], data["back_lams"][-1], 100)
    start = np.median(data["back"][:, :, 0])
    unit = 1 / (2 * (R - 1) * lam * start)
    axes[4].plot(lam, [theory.way_back(start, BIAS, N, R, each, BIAS) for each in lam] / unit,
                 color=drawing.BLACK, label="integral (R13b), median δ; +: each δ")
    axes[4].plot(lam, R + (N - R) * np.exp(-lam * (1 - BIAS)), "--", color=drawing.BLUE, label="$e^{L(1)}$")
    axes[4].axhline(R, ls=":", color=drawing.RED, label="R")
    units = 2 * (R - 1) * data["back_lams"][:, None] * data["back"][:, :, 0]
    axes[4].plot(data["back_lams"], data["back"][:, :, 1] * units, "o", ms=4, color=drawing.COLOURS["relu"])
    each = [[theory.way_back(start, BIAS, N, R, lam, BIAS) for start in row]
            for lam, row in zip(data["back_lams"], data["back"][:, :, 0])]
    axes[4].plot(data["back_lams"], each * units, "+", ms=7, color=drawing.BLACK)
    axes[4].set(xscale="log", xlabel="strength λ", ylabel="time to the kink × 2(R−1)λδ", ylim=(0, None),
                title="relu: the way back from δ ≈ 10⁻³")
    axes[4].legend(fontsize=8.5)
    return figure


if __name__ == "__main__":
    drawing.main("recall_trap", compute, plot)
