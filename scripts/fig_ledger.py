"""Which memories a trained model uses (claim I9): its logits and scores, explained by memory after memory.

Above: share of the variance of the logits at the end of designed prompts that is explained when the
memories are added one after the other. The constructed head lives in "WO on E" alone; a model trained with
WF sends most of it through WF a second time. Below: the same for the scores of layer 2, whose head lives in
EP. In EP, EE, PE, PP the first letter is the token that asks, the second the one asked: E is the token
itself, P what layer 1 brought it, mostly the token before. All together explain all: the ledger is exact.
Bars are medians over the seeds, whiskers their range. One minute on two cores.
"""

from functools import partial

import drawing
import numpy as np
import training
from refimpl import induction
from refimpl.induction import ledger

SEEDS, PROMPTS = 5, 30
# Setting of training.py, orthonormal frame or Gaussian embeddings, steps.
RUNS = {"frame": ("head", True, 150), "d = 128": ("head", False, 150),
        "d = 128, all, WF": ("all", False, 200)}
COLOURS = dict(zip(RUNS, (drawing.ORANGE, drawing.SKY, drawing.PURPLE)))
LOGITS = (("WO on E",), ("WF WO on E",), ("direct on E", "WF on E"), ("direct on P", "WF on P"),
          ("WO on P", "WF WO on P"))
IN_WORDS = dict(zip(RUNS, ("trained in an orthonormal frame", "trained with Gaussian embeddings, d = 128",
                           "the same, with WF trained too, loss on all positions")))
LABELS = {
    "logits": ("WO: copies the token\nthat layer 2 looks at", "+ that copy once more\nthrough WF (WF∘WO)",
               "+ the last token, and what\nlayer 1 brought it",
               "+ what layer 1 brought\nto the token looked at"),
    "scores": ("EP: token asking,\ntoken before the key", "+ EE: token asking,\nkey itself",
               "+ PE: token before the one\nasking, key itself", "+ PP: tokens before both")}
SHOWN = {"logits": [0, 1, 3, 4], "scores": [0, 1, 2, 3]}
TITLES = {"logits": "Logits: with WF trained, most goes through WF a second time",
          "scores": "Scores of layer 2: EP, the induction head, then EE; hardly anything else"}
SCORES = ("EP", "EE", "PE", "PP")


def explained(total, parts):
    """1 − residual / total sum of squares, as parts (samples, n), centred over n, are added one by one."""
    total, parts = (np.asarray(x) - np.mean(x, axis=-1, keepdims=True) for x in (total, parts))
    return [1 - ((total - part) ** 2).sum() / (total ** 2).sum() for part in np.cumsum(parts, axis=0)]


def one_run(name, seed, steps=None, count=PROMPTS, d=training.WIDTH):
    """Explained shares of the logits (5,) and of the scores (4,)."""
    setting, frame, default = RUNS[name]
    bigram, rng = training.text_bigram(), np.random.default_rng(seed)
    start = induction.orthonormal_frame(training.V, training.LENGTH, rng) if frame else \
        induction.init(training.V, d, training.LENGTH, rng)
    params = training.trained(bigram, start, rng, steps or default, **training.SETTINGS[setting])
    logits, scores = [], []
    for _ in range(count):
        q, u, w = training.rivals(bigram, rng)
        z = training.designed_prompt(bigram, rng, q, u, w, rng.integers(1, 6), training.LENGTH)
        by_memory, by_block = ledger.logits(params, z), ledger.scores(params, z)
        logits.append([sum(by_memory[memory][-1] for memory in group) for group in LOGITS])
        scores.append([by_block[block][-1] for block in SCORES])
    return [np.array(explained(sum(parts), parts))
            for parts in (np.swapaxes(logits, 0, 1), np.swapaxes(scores, 0, 1))]


def compute(seeds=SEEDS, **small):
    results = iter(drawing.each(partial(one_run, **small), [(name, seed) for name in RUNS
                                                            for seed in range(seeds)]))
    data = dict(training.ORIGIN)
    for name in RUNS:
        logits, scores = zip(*(next(results) for _ in range(seeds)))
        data |= {name + " logits": np.array(logits), name + " scores": np.array(scores)}
    return data


def plot(data):
    figure, axes = drawing.plt.subplots(2, 1, figsize=(13, 9.2), sharex=True)
    for axis, (which, labels) in zip(axes, LABELS.items()):
        for i, (name, words) in enumerate(IN_WORDS.items()):
            shares = data[f"{name} {which}"][:, SHOWN[which]]
            middle, low, high = training.spread(shares)
            axis.barh(np.arange(len(labels)) + 0.28 * (i - 1), middle, 0.27, color=COLOURS[name],
                      hatch=("", "", "//")[i], edgecolor="white", linewidth=0)
            axis.errorbar(middle, np.arange(len(labels)) + 0.28 * (i - 1), fmt="none", capsize=4,
                          xerr=[middle - low, high - middle], color=drawing.BLACK, linewidth=1.5)
            if which == "logits":
                x = 0.01 if middle[0] > 0.5 else max(high[0], 0) + 0.02
                axis.text(x, 0.28 * (i - 1), words, va="center")
        axis.axvline(1, color=drawing.COLOURS["theory"])
        axis.axvline(0, color=drawing.BLACK, linewidth=0.8)
        axis.set_title(TITLES[which], loc="left", weight="bold")
        axis.set_yticks(range(len(labels)), labels)
        axis.grid(False, axis="y")
        axis.set_axisbelow(True)
        axis.invert_yaxis()
    axes[1].set_xlabel("share of the variance explained; line: theory (I9), all together explain all")
    return figure


if __name__ == "__main__":
    drawing.main("ledger", compute, plot)
