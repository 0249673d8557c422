"""WK2 holds one direction for each trigger: its singular values drop after the K-th.

The construction WK2 = b2 Σ_q E[q] (Phi E[q])ᵀ has rank K exactly; training adds a tail. Shown are singular
values of the trained WK2, divided by the largest, for K fixed triggers and for 5 that are drawn anew for
each sequence, where any character can be one. Medians over the seeds, bands their range. Half a minute on
two cores.
"""

from functools import partial

import drawing
import numpy as np
import training
from refimpl import induction

SEEDS, STEPS, SHOWN = 5, 150, 40
CASES = {"K = 1": ("head", 1), "K = 5": ("head", 5), "K = 15": ("head", 15), "5 drawn": ("drawn", 5)}
COLOURS = dict(zip(CASES, (drawing.PURPLE, drawing.ORANGE, drawing.GREEN, drawing.SKY)))
LABELS = dict(zip(CASES, ("1 trigger", "5 triggers", "15 triggers",
                          "5 triggers drawn anew for each sequence")))


def singular_values(name, seed, steps=STEPS, d=training.WIDTH):
    """Singular values (d,) of the trained WK2, largest first."""
    setting, triggers = CASES[name]
    rng = np.random.default_rng(seed)
    start = induction.init(training.V, d, training.LENGTH, rng)
    # One step size for all, at which all of them train.
    options = training.SETTINGS[setting] | {"lr": training.SETTINGS["drawn"]["lr"], "triggers": triggers}
    return np.linalg.svd(training.trained(training.text_bigram(), start, rng, steps, **options).WK2)[1]


def compute(seeds=SEEDS, **small):
    values = iter(drawing.each(partial(singular_values, **small),
                               [(name, seed) for name in CASES for seed in range(seeds)]))
    return training.ORIGIN | {name: np.array([next(values) for _ in range(seeds)]) for name in CASES}


def plot(data):
    figure, axis = drawing.plt.subplots(figsize=(13, 7.5))
    looks = (("^", "-.", (2.3, 0.29)), ("o", "-", (6.5, 0.26)), ("s", "--", (10.3, 0.6)),
             ("D", ":", (22, 0.23)))
    for (name, (setting, K)), (marker, style, at) in zip(CASES.items(), looks):
        values = data[name][:, :SHOWN] / data[name][:, :1]
        middle, low, high = training.spread(values)
        index = np.arange(1, values.shape[1] + 1)
        axis.plot(index, middle, marker + style, color=COLOURS[name])
        axis.fill_between(index, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
        axis.text(*at, LABELS[name], color=COLOURS[name])
        if setting == "head":
            axis.axvline(K + 0.5, color=drawing.COLOURS["theory"], linestyle=":", linewidth=1.5)
            axis.text(K + 0.7, 1.05, f"K = {K}", color=drawing.COLOURS["theory"])
    axis.text(20, 1.05, "theory: nothing to the right of K", color=drawing.COLOURS["theory"])
    axis.set(xlabel="index of the singular value of the trained WK2", ylabel="share of the largest",
             ylim=(0, 1.12), xlim=(0, SHOWN + 0.5), yticks=(0, 0.2, 0.4, 0.6, 0.8, 1),
             title="WK2 holds one direction for each of its K triggers")
    return figure


if __name__ == "__main__":
    drawing.main("rank", compute, plot)
