"""Attention while it is learned, as films: figures/films/induction.gif and recall.gif. Half a minute.

Induction: both layers of a model that trains from zero, on a prompt that one can read. Recall: the weights of
one prompt's tokens while fine-tuning infers the relation; the line is the gradient flow (claim R5).
"""

import drawing
import numpy as np
import training
from matplotlib.animation import FuncAnimation, PillowWriter
from refimpl import induction, recall, sgd

FILMS = drawing.FIGURES / "films"
PROMPT = "moth, month, mat"
STEPS, EVERY = 100, 4
N, R, PAIRS, LAM, LR = 64, 8, 3, 10.0, 0.02


def induction_frames(steps=STEPS, d=training.WIDTH):
    """(steps taken, attention of layer 1, attention of layer 2) of every few steps."""
    bigram, rng = training.text_bigram(), np.random.default_rng(0)
    tokens = [bigram.chars.index(c) for c in PROMPT]
    start = induction.init(training.V, d, training.LENGTH, rng)
    frames = [(0, start)] + [(last.step + 1, last.params) for last in
                             training.steps(bigram, start, rng, steps) if (last.step + 1) % EVERY == 0]
    traces = [(count, induction.forward(params, tokens)) for count, params in frames]
    return [(count, trace.attention1, trace.attention2) for count, trace in traces]


def recall_frames(frames=40):
    """Times, attention by SGD on the model, and by the flow, at times that grow by a constant factor."""
    rng = np.random.default_rng(3)
    facts = recall.Facts.latin(N, R, rng)
    prompts = recall.sample(facts, PAIRS, 32, rng, collision_free=True)
    w0 = rng.normal(0, 0.3, 2 * PAIRS + 1)
    T, params = len(w0), recall.with_position_logits(recall.construct(facts, PAIRS, LAM), w0)
    at = np.unique(np.geomspace(1, 4000, frames).astype(int))

    def positions_only(params, *batch):
        loss, grads = recall.batched.loss_and_grads(params, *batch)
        alone = recall.position_logits(grads, T)
        return loss, recall.with_position_logits(grads._replace(WKQ=0 * grads.WKQ), alone)
    steps = sgd.train(params, [prompts.infer()] * at[-1], positions_only, LR, trained=("WKQ",))
    w = [recall.position_logits(last.params, T) for last in steps if last.step + 1 in at]
    flow = recall.theory.trajectory(w0, at * LR, R, LAM)
    return at * LR, *(np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (np.array(w), flow))


def film(name, figure, draw, count):
    """Write a film of `count` pictures; draw(i) draws the i-th."""
    FILMS.mkdir(parents=True, exist_ok=True)
    animation = FuncAnimation(figure, draw, count)
    drawing.replace(FILMS / f"{name}.gif", lambda path: animation.save(path, PillowWriter(fps=6), dpi=70))
    print(f"{FILMS / name}.gif: {(FILMS / f'{name}.gif').stat().st_size / 1e3:.0f} kB")


def induction_film():
    frames = induction_frames()
    figure, axes = drawing.plt.subplots(1, 2, figsize=(10, 5.4))
    letters = [c.replace(" ", "␣") for c in PROMPT]
    images = []
    for axis, title in zip(axes, ("layer 1: who came before?", "layer 2: what followed it earlier?")):
        images.append(axis.imshow(frames[0][1], vmin=0, vmax=1))
        axis.set(title=title, xlabel="key", ylabel="query")
        axis.set_xticks(range(len(letters)), letters)
        axis.set_yticks(range(len(letters)), letters)
        axis.grid(False)

    def draw(i):
        for image, attention in zip(images, frames[i][1:]):
            image.set_data(attention)
        figure.suptitle(f"after {frames[i][0]} steps", fontsize=16)
    film("induction", figure, draw, len(frames))


def recall_film():
    times, observed, flow = recall_frames()
    figure, axis = drawing.plt.subplots(figsize=(8, 5))
    names = [f"${kind}_{i}$" for i in range(PAIRS + 1) for kind in "sa"][:2 * PAIRS + 1]
    colours = [drawing.BLUE, drawing.ORANGE] * PAIRS + [drawing.GREEN]
    bars = axis.bar(names, observed[0], color=colours)
    crosses, = axis.plot(names, flow[0], "_", color=drawing.BLACK, markersize=36, label="gradient flow (R5)")
    axis.set(ylim=(0, 0.55), ylabel="attention")
    axis.set_axisbelow(True)
    axis.legend(fontsize=13, loc="upper right")

    def draw(i):
        for bar, height in zip(bars, observed[i]):
            bar.set_height(height)
        crosses.set_ydata(flow[i])
        axis.set_title(f"time {times[i]:.2f}: one pair takes ½ + ½", fontsize=16)
    film("recall", figure, draw, len(times))


if __name__ == "__main__":
    induction_film()
    recall_film()
