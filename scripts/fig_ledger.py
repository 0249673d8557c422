"""Which memories a trained model uses (claim I9): its logits and scores, explained by memory after memory.

Left: share of the variance of the logits at the end of designed prompts that is explained when the memories
are added one after the other. The constructed head lives in "WO on E" alone; a model trained with WF sends
most of it through WF a second time. Right: the same for the scores of layer 2, whose head lives in EP. All
together explain all: the ledger is exact. Bars are medians over the seeds, whiskers their range. One minute
on two cores.
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
LABELS = {"logits": ("WO", "+ WF∘WO", "+ token itself\n(direct, WF)", "+ layer 1\n(direct, WF)",
                     "+ history\nthrough WO"), "scores": ("EP", "+ EE", "+ PE", "+ PP")}
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
    figure, axes = drawing.plt.subplots(1, 2, figsize=(13, 4.4), width_ratios=(5, 4))
    for axis, (which, labels) in zip(axes, LABELS.items()):
        for i, name in enumerate(RUNS):
            middle, low, high = training.spread(data[f"{name} {which}"])
            axis.bar(np.arange(len(labels)) + (i - 1) * 0.27, middle, 0.25, color=COLOURS[name], label=name,
                     yerr=[middle - low, high - middle], capsize=3)
        axis.set(ylabel="share of the variance explained", title=f"{which} at the last position")
        axis.set_xticks(range(len(labels)), labels)
        axis.axhline(1, color=drawing.COLOURS["theory"], linewidth=1)
        axis.axhline(0, color=drawing.BLACK, linewidth=0.8)
        axis.set_axisbelow(True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=len(RUNS))
    return figure


if __name__ == "__main__":
    drawing.main("ledger", compute, plot)
