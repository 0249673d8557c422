"""Claim R13: where the recall step is trapped at u_n → 1, over the strength and the step size.

The dense model, position-only, from nearly uniform attention, one collision-free prompt (all such
prompts move the logits alike), STEPS steps of SGD. Maps: the loss at the end above the least loss with
all attention on (s_n, r), median of the seeds. With relu the loss over u_n has a kink at 1 − b and only
a flat stretch below it, and climbs to log R at u_n = 1; what carries u_n to 1 − δ comes back in time
R/(2(R−1)λδ). The square has its minimum near ½, and log R at 1 as well. Black lines in the last
panel: that way back, from the lowest point on. Run time: a minute and a half on two cores.
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


def compute(lams=LAMS, lrs=LRS, seeds=SEEDS, steps=STEPS):
    cases = [(activation, lam, lr, seed, steps)
             for activation in ACTIVATIONS for lam in lams for lr in lrs for seed in seeds]
    ends = np.reshape(drawing.each(end, cases), (2, len(lams), len(lrs), len(seeds), 2))
    paths = [train("relu", SHOWN_LAM, lr, seed, steps) for lr in SHOWN_LRS for seed in seeds]
    return dict(lams=np.array(lams), lrs=np.array(lrs), excess=ends[..., 0], u=ends[..., 1],
                paths=np.reshape(paths, (len(SHOWN_LRS), len(seeds), 3, steps)))


def plot(data):
    figure, axes = drawing.plt.subplots(1, 4, figsize=(16, 4.4), width_ratios=(1, 1.2, 1.1, 1.1))
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
    for lam, style in ((8.0, "--"), (64.0, "-")):
        axes[2].plot(x, theory.relu_recall_loss(x, N, R, lam, BIAS), style,
                     color=drawing.COLOURS["relu"], label=f"relu, λ = {lam:g}")
        axes[2].plot(x, [square_loss(value, lam) for value in x], style, color=drawing.COLOURS["square"],
                     label=f"square, λ = {lam:g}")
    axes[2].axvline(1 - BIAS, ymax=0.8, ls=":", color=drawing.BLACK)
    axes[2].text(1 - BIAS - 0.02, 0.75, "1 − b", ha="right")
    axes[2].axhline(np.log(R), ls=":", color=drawing.BLACK)
    axes[2].text(0.55, np.log(R) + 0.04, "log R", ha="center")
    axes[2].set(title="Loss with all attention on $(s_n, r)$", xlabel="$u_n$", ylabel="loss (nats)",
                ylim=(0, 3.4))
    axes[2].legend(fontsize=8.5, loc="upper right", ncols=2)
    steps = np.arange(data["paths"].shape[3])
    for lr, paths, colour in zip(SHOWN_LRS, data["paths"], (drawing.BLUE, drawing.GREEN, drawing.RED)):
        axes[3].plot(steps[::6], paths[:, 1, ::6].T, "o", ms=3, color=colour,
                     label=[f"learning rate {lr:g}"] + [None] * (len(paths) - 1))
        for alpha_r in paths[:, 1]:
            lowest = alpha_r.argmin()
            way_back = 1 / alpha_r[lowest] - 2 * lr * SHOWN_LAM * (R - 1) / R * (steps[lowest:] - lowest)
            back = (way_back > 1 / BIAS) & (alpha_r[lowest] < 0.01)
            axes[3].plot(steps[lowest:][back], 1 / way_back[back], color=drawing.BLACK, lw=1)
    axes[3].axhline(BIAS, ls=":", color=drawing.BLACK)
    axes[3].text(steps[-1], BIAS * 1.2, "b, the kink", ha="right", va="bottom")
    axes[3].set(title=f"relu, λ = {SHOWN_LAM:g}: attention on r\n(lines: the way back by R13)",
                xlabel="steps", ylabel="$α_r$", yscale="log", ylim=(None, 30))
    axes[3].legend(fontsize=8.5, loc="upper left")
    return figure


if __name__ == "__main__":
    drawing.main("recall_trap", compute, plot)
