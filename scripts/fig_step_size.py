"""Which step sizes train, and how those of the other figures were found.

Head accuracy after 100 steps against the step size. The figures take one whose lowest seed is the best on the
grid or within 0.03 of it. At the next larger one the lowest seed falls by 0.2 or more; with drawn triggers it
falls by 0.08 at the next but one. Markers are medians over the seeds, bars their range. Three minutes on two
cores.
"""

from functools import partial

import drawing
import numpy as np
import training
from refimpl import induction

SEEDS, STEPS, SEQUENCES = 5, 100, 32
NAMES = ("head", "drawn", "head, WF", "all")        # absolute positions take the step size of relative ones
STEP_SIZES = (1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 20.0)
TITLES = {"head": "loss on head positions", "drawn": "loss on head positions, triggers drawn anew",
          "head, WF": "loss on head positions, WF trained too",
          "all": "loss on all positions, WF trained too"}


def accuracy(name, lr, seed, count=STEPS, d=training.WIDTH):
    """Head accuracy after training."""
    options = training.SETTINGS[name] | {"lr": lr}
    bigram, rng = training.text_bigram(), np.random.default_rng(seed)
    test = induction.sample(bigram, SEQUENCES, training.LENGTH, np.random.default_rng([seed, 1]),
                            training.TRIGGERS, drawn=options.get("drawn", False))
    start = induction.init(training.V, d, training.LENGTH, rng)
    try:
        with np.errstate(all="ignore"):
            params = training.trained(bigram, start, rng, count, **options)
    except FloatingPointError:
        return 0.0      # diverged
    return training.measure(params, bigram, test)[0]


def compute(seeds=SEEDS, **small):
    cases = [(name, lr, seed) for name in NAMES for lr in STEP_SIZES for seed in range(seeds)]
    found = np.reshape(drawing.each(partial(accuracy, **small), cases), (len(NAMES), len(STEP_SIZES), seeds))
    return training.ORIGIN | {"step_sizes": np.array(STEP_SIZES), **dict(zip(NAMES, found))}


def plot(data):
    figure, axes = drawing.plt.subplots(2, 2, figsize=(13, 8.5), sharex=True, sharey=True)
    behind = []
    for axis, name in zip(axes.flat, NAMES):
        sizes, taken = data["step_sizes"], training.SETTINGS[name]["lr"]
        middle, low, high = training.spread(data[name], axis=1)
        axis.errorbar(sizes, middle, yerr=[middle - low, high - middle], fmt="o-", capsize=5,
                      color=drawing.ORANGE)
        axis.plot(taken, middle[sizes == taken], "o", color=drawing.BLACK, markersize=16,
                  markerfacecolor="none")
        axis.axvline(taken, color=drawing.BLACK, linestyle=":", linewidth=1)
        axis.annotate(f"taken: {taken:g}", (taken, 0.05), xytext=(-6, 0), textcoords="offset points",
                      ha="right")
        # By how much the lowest seed is below that of the best step size.
        behind.append(low.max() - low[sizes == taken])
        axis.set(xscale="log", title=TITLES[name], ylim=(0, 1.12))
        axis.minorticks_off()
        axis.set_xticks(sizes, [f"{lr:g}" for lr in sizes])
    for row, axis in zip(axes, axes[1]):
        row[0].set_ylabel(f"accuracy after {STEPS} steps")
        axis.set_xlabel("step size")
    figure.suptitle(f"step sizes taken: the lowest seed is at most {np.max(behind):.2f} below the best")
    return figure


if __name__ == "__main__":
    drawing.main("step_size", compute, plot)
