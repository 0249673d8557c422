"""Which step sizes train, and how those of the other figures were found.

Head accuracy after 100 steps against the step size, in factors of two: of those that train in every seed,
the figures take one near the largest. Markers are medians over the seeds, bars their range. Two and a half
minutes on two cores.
"""

from functools import partial

import drawing
import numpy as np
import training
from refimpl import induction

SEEDS, STEPS, SEQUENCES = 5, 100, 32
NAMES = ("head", "drawn", "head, WF", "all")        # absolute positions take the step size of relative ones
STEP_SIZES = (1.25, 2.5, 5.0, 10.0, 20.0)
TITLES = {"head": "head positions", "drawn": "head positions, triggers drawn",
          "head, WF": "head positions, with WF", "all": "all positions, with WF"}


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
    figure, axes = drawing.plt.subplots(1, len(NAMES), figsize=(13, 3.6), sharey=True)
    for axis, name in zip(axes, NAMES):
        middle, low, high = training.spread(data[name], axis=1)
        axis.errorbar(data["step_sizes"], middle, yerr=[middle - low, high - middle], fmt="o-", capsize=3,
                      color=drawing.ORANGE)
        axis.axvline(training.SETTINGS[name]["lr"], color=drawing.BLACK, linestyle=":", linewidth=1)
        axis.set(xscale="log", xlabel="step size", title=TITLES[name], ylim=(0, 1.02))
        axis.minorticks_off()
        axis.set_xticks(data["step_sizes"], [f"{lr:g}" for lr in data["step_sizes"]])
    axes[0].set_ylabel(f"head accuracy after {STEPS} steps")
    axes[0].annotate("taken in the other figures", (training.SETTINGS["head"]["lr"], 0.05), xytext=(-4, 0),
                     textcoords="offset points", ha="right", fontsize=8)
    return figure


if __name__ == "__main__":
    drawing.main("step_size", compute, plot)
