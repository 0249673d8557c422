"""A window with sliders: the closed forms redrawn beside the model's own forward pass.

    python scripts/explore.py induction     strengths b1, b2, bo, the habit Δ, repetitions k, length T
    python scripts/explore.py recall        strength λ, relations R, pairs n, time along the gradient flow

Lines and crosses are theory, bars and dots the model. Needs a display.
"""

import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.widgets import Slider
from refimpl import induction, recall

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
V, LONGEST = 6, 64
Q, U, W = 0, 1, 2           # the trigger, what follows it in the prompt, what pretraining prefers


# name -> (lowest, highest, start, step); a step of None is continuous
SLIDERS = {
    "induction": {"b1": (0, 10, 6, None), "b2": (0, 8, 4, None), "bo": (0.5, 20, 9, None),
                  "Δ": (0.1, 12, 5, None), "k": (1, 12, 3, 1), "T": (28, LONGEST, 32, 1)},
    "recall": {"λ": (1, 30, 10, None), "R": (2, 8, 4, 1), "n": (1, 4, 2, 1), "log10 t": (-2, 4, 0, None)}}


def designed_prompt(k, T):
    """k times "q u" among fillers, then q; neither u nor w elsewhere."""
    fillers = 3 + np.arange(T - 2 * k - 1) % (V - 3)
    places = np.linspace(1, len(fillers), k).astype(int)
    z = np.insert(fillers, np.repeat(places, 2), np.tile([Q, U], k))
    return np.append(z, Q)


def draw_induction(axes, b1, b2, bo, gap, k, T):
    """Both attention maps, the two logits, and the boundary of the hijack."""
    for axis in axes:
        axis.clear()
    z = designed_prompt(k, T)
    counts = np.ones((V, V))
    counts[Q, W] = np.exp(gap)
    bigram = induction.Bigram(tuple(range(V)), np.full(V, 1 / V), counts / counts.sum(axis=1, keepdims=True))
    frame = induction.orthonormal_frame(V, LONGEST, np.random.default_rng(0))
    trace = induction.forward(induction.construct(frame, bigram, [Q], b1, b2, bo), z)
    theory = induction.theory.logits(z, np.log(bigram.pi_b), [Q], b1, b2, bo)
    for axis, attention, title in zip(axes, (trace.attention1, trace.attention2),
                                      ("layer 1: who came before", "layer 2: what followed q")):
        axis.imshow(attention, vmin=0, vmax=1)
        axis.set(title=title, xlabel="key s", ylabel="query t")
    axes[2].bar(["u: context", "w: habit"], trace.logits[-1, [U, W]], color=[GREEN, PURPLE])
    axes[2].plot([0, 1], theory[-1, [U, W]], "kx", markersize=12, label="theory (I3)")
    axes[2].set(title="logits after the last q [nats]")
    axes[2].legend()
    lengths = np.arange(4, LONGEST + 1)
    needed = induction.theory.hijack(1, lengths, gap, b2, bo).critical_repetitions
    axes[3].plot(lengths, np.minimum(needed, 13), "k-", label="k* (I5, b1 → ∞)")
    wins = trace.logits[-1, U] > trace.logits[-1, W]
    axes[3].plot(T, k, "o", color=GREEN if wins else PURPLE, markersize=12)
    axes[3].annotate("context wins" if wins else "habit hijacks", (T, k), (0, 14), textcoords="offset points",
                     ha="center")
    axes[3].set(title="repetitions needed", xlabel="length T", ylabel="k", ylim=(0, 13), xlim=(4, LONGEST))
    axes[3].legend()


def draw_recall(axes, lam, R, n, log_t):
    """Attention along the flow, the votes for the relations, and the loss over time."""
    for axis in axes:
        axis.clear()
    rng = np.random.default_rng(0)
    facts = recall.Facts.latin(2 * (n + 1) * R, R, rng)
    prompt = recall.sample(facts, n, 1, rng, collision_free=True)
    w0, t = np.random.default_rng(1).normal(0, 0.3, 2 * n + 1), 10.0 ** log_t
    times = np.geomspace(1e-2, 1e4, 60)
    path = recall.theory.trajectory(w0, np.unique(np.append(times, t)), R, lam)
    w = path[np.searchsorted(np.unique(np.append(times, t)), t)]
    tokens, targets, slot = prompt.infer()
    params = recall.with_position_logits(recall.construct(facts, n, lam), w)
    trace = recall.forward(params, tokens[0])
    names = [f"{kind}{i}" for i in range(n + 1) for kind in "sa"][:2 * n + 1]
    axes[0].bar(names, trace.attention, color=[BLUE, ORANGE] * n + [GREEN])
    axes[0].set(title="attention of the infer step", ylim=(0, 0.6))
    alpha = np.exp(path - path.max(axis=1, keepdims=True))
    alpha /= alpha.sum(axis=1, keepdims=True)
    for i, name in enumerate(names):
        axes[1].plot(np.unique(np.append(times, t)), alpha[:, i], label=name)
    axes[1].axvline(t, color="k", linewidth=1)
    axes[1].set(title="along the flow (R5)", xscale="log", xlabel="time", ylim=(0, 0.6))
    axes[1].legend(fontsize=8)
    s, a = prompt.subjects[0], prompt.answers[0]
    u, v = trace.attention[0::2], trace.attention[1::2]
    votes = recall.theory.infer_logits(u, v, facts.relation(s[:, None], a[:-1]), R, lam)
    axes[2].bar(range(R), trace.logits[slice(*slot)],
                color=[GREEN if r == prompt.relation[0] else PURPLE for r in range(R)])
    axes[2].plot(range(R), votes, "kx", markersize=12, label="theory (R2)")
    axes[2].set(title="logits of the relations; green: the true one", xlabel="relation")
    axes[2].legend()
    losses = [recall.theory.infer_loss(row[0::2], row[1::2], R, lam) for row in alpha]
    axes[3].plot(np.unique(np.append(times, t)), losses, "k-", label="theory (R4)")
    axes[3].plot(t, recall.loss(params, tokens, targets, slot), "o", color=BLUE, markersize=10, label="model")
    axes[3].axhline(recall.theory.infer_end_loss(R, lam), color="k", linestyle=":", label="end (R9)")
    axes[3].set(title="loss of the infer step [nats]", xscale="log", yscale="log", xlabel="time")
    axes[3].legend()


DRAW = {"induction": draw_induction, "recall": draw_recall}


def window(system):
    """The figure with its sliders, drawn once."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 8), layout="none")      # whatever style is in use
    figure.subplots_adjust(bottom=0.3, hspace=0.4, top=0.95)
    sliders = []
    for i, (name, (low, high, start, step)) in enumerate(SLIDERS[system].items()):
        place = figure.add_axes((0.1 + 0.45 * (i % 2), 0.18 - 0.05 * (i // 2), 0.32, 0.03))
        sliders.append(Slider(place, name, low, high, valinit=start, valstep=step))

    def redraw(_=None):
        values = (round(slider.val) if slider.valstep else slider.val for slider in sliders)
        DRAW[system](axes.ravel(), *values)
        figure.canvas.draw_idle()

    for slider in sliders:
        slider.on_changed(redraw)
    redraw()
    return figure, sliders


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in SLIDERS:
        sys.exit(__doc__)
    if matplotlib.get_backend().lower() == "agg":
        sys.exit("explore: expected a display, found none; the tours and figures/ show the same in pictures")
    kept = window(sys.argv[1])      # a slider that nobody holds stops answering
    plt.show()
    del kept


if __name__ == "__main__":
    main()
