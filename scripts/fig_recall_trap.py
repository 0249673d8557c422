"""Claim R13: where the recall step is trapped at u_n → 1, over the strength and the step size.

The dense model, position-only, from nearly uniform attention, one collision-free prompt (all such prompts
move the logits alike), STEPS steps of SGD. Maps: the loss at the end above the least loss with all
attention on (s_n, r), median of the seeds. With relu the loss over u_n has a kink at 1 − b and only a flat
stretch below it, and climbs to log(R + (N−R) e^{−λ(1−b)}) at u_n = 1. The square has its minimum near ½,
and climbs to log(R + (N−R) e^{−λ}). With relu, what carries u_n to 1 − δ comes back as R13b says: black
lines from the lowest point on (below left), and the time from δ to the kink, of SGD with small steps, over
the strength (below right; a line for each δ). Run time: two minutes on two cores.
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
    figure, (maps, (path, back)) = drawing.plt.subplots(2, 2, figsize=(13, 9.4))
    for axis, excess, phi, words in zip(maps, data["excess"], ("x²", "max(x, 0)"), (
            "large steps end in a trap", "more often")):
        image = axis.imshow(np.median(excess, axis=2), origin="lower", aspect="auto", vmin=0,
                            vmax=np.log(R), cmap="magma")
        axis.set_xticks(range(len(data["lrs"])), [f"{lr:g}" if lr >= 1 else f"1/{1 / lr:.0f}"
                                                  for lr in data["lrs"]])
        axis.set_yticks(range(len(data["lams"])), [f"{lam:g}" for lam in data["lams"]])
        axis.set(title=f"φ(x) = {phi}: {words}", xlabel="step size")
        axis.grid(False)
        last = len(data["lrs"]) - 1, len(data["lams"]) - 1
        axis.text(*last, "trapped\n$u_n$ → 1", ha="right", va="top")
        axis.text(last[0] / 3, last[1] / 2, "learned", color="white", ha="center")
        axis.text(-0.3, 0, "not finished", color="white", va="center")
    maps[0].set_ylabel("strength λ of the memory")
    figure.colorbar(image, ax=maps[1], label="loss above the least [nats]")
    colours = drawing.BLUE, drawing.GREEN, drawing.RED
    steps = np.arange(data["paths"].shape[3])
    for paths, lr, colour, marker in zip(data["paths"], SHOWN_LRS, colours, "o^s"):
        path.plot(steps[::8], paths[:, 1, ::8].T, marker, ms=5, color=colour)
        for alpha_r in paths[:, 1]:
            lowest = alpha_r.argmin()
            delta = np.geomspace(alpha_r[lowest], BIAS, 60) if alpha_r[lowest] < 0.01 else []
            at = [lowest + theory.way_back(delta[0], each, N, R, SHOWN_LAM, BIAS) / lr for each in delta]
            path.plot(at, delta, color=drawing.BLACK, lw=1.5)
    path.set(title=f"φ = max(x, 0), λ = {SHOWN_LAM:g}: the way back", xlabel="steps (black: theory, R13b)",
             ylabel="attention $α_r$ on the relation", yscale="log", ylim=(1e-8, 3), xlim=(0, steps[-1]))
    for height, text, colour in zip((0.025, 1.5e-3, 8e-7), (
            f"1/{1 / SHOWN_LRS[0]:g}: not trapped", f"{SHOWN_LRS[1]:g}: back soon",
            f"step size {SHOWN_LRS[2]:g}: late, or not in time"), colours):
        path.text(0.2 * steps[-1], height, text, color=colour)
    path.axhline(BIAS, ls=":", color=drawing.BLACK)
    path.text(steps[-1], 1.3 * BIAS, "kink b, the least loss", ha="right", va="bottom")
    lam = np.geomspace(data["back_lams"][0], data["back_lams"][-1], 60)
    for start in data["back"][0, :, 0]:
        back.plot(lam, [start * theory.way_back(start, BIAS, N, R, each, BIAS) for each in lam],
                  color=drawing.BLACK, lw=1.5)
    back.plot(data["back_lams"], data["back"].prod(axis=2), "o", color=drawing.COLOURS["relu"])
    back.text(0.95, 0.92, "black: theory (R13b)\nmarkers: SGD, five starts", ha="right", va="top",
              transform=back.transAxes)
    back.set(xscale="log", yscale="log", xlabel="strength λ of the memory", ylabel="time t to the kink × δ",
             title="… and its time, from $α_r$ = δ ≈ 10⁻³")
    back.set_xticks(data["back_lams"], [f"{lam:g}" for lam in data["back_lams"]])
    back.minorticks_off()
    return figure


if __name__ == "__main__":
    drawing.main("recall_trap", compute, plot)
