"""Trained logits against theory: three numbers taken from the weights, and the closed form of I3.

Weights trained from zero are projected on the constructed memories; the strengths b1, b2, bo found there go
into I3, and its logits are compared with those of the trained model on designed prompts: 1 to 5 copies of
q→u among distractors, then q. Nothing is fitted. In an orthonormal frame the closed form explains nearly
all; with Gaussian embeddings what is missing is interference, which a constructed model of the same
strengths and width shows as well. A model that has WF lets WF act on what WO writes, and needs the strength
of both together. Two and a half minutes on two cores.
"""

import drawing      # first: it sets the number of threads

from functools import partial

import numpy as np
import training
from refimpl import induction
from refimpl.induction import probes, theory

SEEDS, EVERY, PROMPTS = 5, 10, 40
# Setting of training.py and embeddings: a width, or the orthonormal frame (d = 3V + T = 259).
RUNS = {
    "frame": ("head", "frame", 150),
    "d = 512": ("head", 512, 150),
    "d = 128": ("head", 128, 150),
    "frame, all, WF": ("all", "frame", 200),
}
COLOURS = dict(zip(RUNS, (drawing.ORANGE, drawing.GREEN, drawing.SKY, drawing.PURPLE)))
LABELS = dict(zip(RUNS, ("orthonormal", "Gaussian, d = 512", "Gaussian, d = 128", "orthonormal, WF too")))
COLUMNS = (207, 326, 424, 524)      # of the words beside the curves


def prompts(bigram, rng):
    """Designed prompts: any trigger q and any u; w is the most probable successor of q."""
    found = []
    for _ in range(PROMPTS):
        q, u, w = training.rivals(bigram, rng)
        k = rng.integers(1, 6)
        length = rng.integers(2 * k + 2, training.LENGTH + 1)
        found.append(training.designed_prompt(bigram, rng, q, u, w, k, length))
    return found


def strengths(params, through_WF):
    """The effective strengths, and bo with or without what WF makes of it: U (I + WF) WO WV Eᵀ."""
    found = probes.effective_strengths(params, training.TRIGGERS, train_length=training.LENGTH)
    if not through_WF:
        return found
    composite = params._replace(WO=params.WO + params.WF @ params.WO)
    return found._replace(bo=probes.WO(composite).strength)


def last_logits(params, tokens, found, log_pi_b):
    """Logits (V,) at the end of each prompt, of the model and of I3, each with mean zero: (2, prompts, V)."""
    pairs = np.array([(induction.forward(params, z).logits[-1],
                       theory.logits(z, log_pi_b, range(training.TRIGGERS), *found)[-1]) for z in tokens])
    return (pairs - pairs.mean(axis=-1, keepdims=True)).swapaxes(0, 1)


def compare(observed, predicted):
    """R² of the prediction (1 − residual / total sum of squares, nothing fitted), and argmax agreement."""
    return (1 - ((observed - predicted) ** 2).sum() / (observed ** 2).sum(),
            (observed.argmax(axis=1) == predicted.argmax(axis=1)).mean())


def one_run(name, seed, count=None, embeddings=None):
    """Rows of step, b1, b2, bo, R², agreement; the last logits; R² of a constructed model like it."""
    setting, default, steps = RUNS[name]
    embeddings = embeddings or default
    bigram, rng = training.text_bigram(), np.random.default_rng(seed)
    start = induction.orthonormal_frame(training.V, training.LENGTH, rng) if embeddings == "frame" else \
        induction.init(training.V, embeddings, training.LENGTH, rng)
    tokens = prompts(bigram, np.random.default_rng([seed, 1]))
    # Outputs are uniform: without context all tokens are equal after a trigger.
    flat, through_WF, rows = np.zeros((training.V, training.V)), setting == "all", []
    for step in training.steps(bigram, start, rng, count or steps, **training.SETTINGS[setting]):
        if (step.step + 1) % EVERY == 0:
            found = strengths(step.params, through_WF)
            logits = last_logits(step.params, tokens, found, flat)
            rows.append([step.step + 1, *found, *compare(*logits)])
    constructed = induction.construct(start, bigram, training.TRIGGERS, *np.maximum(found, 0))
    built = last_logits(constructed._replace(WF=start.WF), tokens, found, flat)
    alone = last_logits(step.params, tokens, strengths(step.params, False), flat)
    return np.array(rows), logits, np.array([compare(*built), compare(*alone)])


def compute(seeds=SEEDS, **small):
    cases = [(name, seed) for name in RUNS for seed in range(seeds)]
    results = iter(drawing.each(partial(one_run, **small), cases))
    data = dict(training.ORIGIN)
    for name in RUNS:
        rows, logits, controls = zip(*(next(results) for _ in range(seeds)))
        data |= {name: np.array(rows), name + " logits": np.array(logits),
                 name + " controls": np.array(controls)}
    return data


def plot(data):
    figure, axes = drawing.plt.subplot_mosaic([["frame", "d = 128"], ["R²", "R²"]], figsize=(13, 9.5))
    for name in ("frame", "d = 128"):
        axis, (observed, predicted) = axes[name], data[name + " logits"][0]
        limits = [min(observed.min(), predicted.min()) - 0.5, max(observed.max(), predicted.max()) + 0.5]
        axis.plot(limits, limits, color=drawing.COLOURS["theory"])
        axis.plot(predicted.ravel(), observed.ravel(), ".", color=COLOURS[name], alpha=0.6, rasterized=True)
        axis.text(0.46, 0.34, "theory I3", transform=axis.transAxes)
        axis.set(xlim=limits, ylim=limits, xlabel="logit by I3 [nats]", ylabel="logit, trained [nats]",
                 title=f"embeddings {LABELS[name]}: R² = {training.spread(data[name][:, -1, 4])[0]:.2f}")
    axis = axes["R²"]
    for name, marker, style, lift in zip(RUNS, "osD^", ("-", "--", "-.", ":"), (0, 0, 0.05, -0.06)):
        x, (middle, low, high) = data[name][0, :, 0], training.spread(data[name][:, :, 4])
        axis.plot(x, middle, marker + style, color=COLOURS[name])
        axis.fill_between(x, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
        built, argmax = np.median(data[name + " controls"][:, 0, 0]), np.median(data[name][:, -1, 5])
        for column, text in zip(COLUMNS, (LABELS[name], f"{middle[-1]:.2f} ({low[-1]:.2f}–{high[-1]:.2f})",
                                          f"{built:.2f}", f"{argmax:.2f}")):
            axis.text(column, middle[-1] + lift, text, color=COLOURS[name], va="center")
    for column, text in zip(COLUMNS[1:], ("R², trained", "constructed", "same argmax")):
        axis.text(column, 1.12, text, va="center")
    axis.set_xlabel("step", x=1 / 6)
    axis.set(title="I3 explains nearly all with orthonormal embeddings, without WF; less in other cases",
             ylabel="R² of I3, nothing fitted", ylim=(0, 1.2), xlim=(0, 600),
             xticks=range(0, 201, 50), yticks=(0, 0.2, 0.4, 0.6, 0.8, 1))
    return figure


if __name__ == "__main__":
    drawing.main("theory", compute, plot)
