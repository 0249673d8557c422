"""The head is learned on longer sequences, and with outputs of another law than the uniform one.

Head accuracy against the step, by the recipe of training.py but for one thing: sequences of 256 characters
(with half the step size: with the whole of it one seed of five lost its head again, and stood at 0.30), or
outputs drawn from the unigram, where frequent characters answer most triggers. Tests are natural prompts of
the same task. Thin lines are seeds, thick ones their medians. One minute and a half on two cores.
"""

from functools import partial

import drawing
import numpy as np
import training
from refimpl import induction

SEEDS, STEPS, EVERY, SEQUENCES, ENOUGH = 5, 150, 5, 16, 0.95
RUNS = {"T = 64, uniform outputs": (64, "uniform", 10.0),
        "T = 256, uniform outputs": (256, "uniform", 5.0),
        "T = 64, outputs from the unigram": (64, "unigram", 10.0)}


def one_run(name, seed, steps=STEPS):
    """Rows of step and head accuracy."""
    length, law, lr = RUNS[name]
    bigram, rng = training.text_bigram(), np.random.default_rng(seed)
    outputs = law if law == "uniform" else np.tile(bigram.pi_u, (training.V, 1))
    test = induction.sample(bigram, SEQUENCES, length, np.random.default_rng([seed, 1]), training.TRIGGERS,
                            outputs)
    start = induction.init(training.V, training.WIDTH, length, rng)
    return [(step.step + 1, training.measure(step.params, bigram, test)[0])
            for step in training.steps(bigram, start, rng, steps, lr, length=length, outputs=outputs)
            if (step.step + 1) % EVERY == 0]


def compute(seeds=SEEDS, **small):
    cases = [(name, seed) for name in RUNS for seed in range(seeds)]
    rows = iter(drawing.each(partial(one_run, **small), cases))
    return training.ORIGIN | {name: np.array([next(rows) for _ in range(seeds)]) for name in RUNS}


def plot(data):
    figure, axes = drawing.plt.subplots(1, len(RUNS), figsize=(13, 6), sharex=True, sharey=True)
    first, *_ = RUNS
    for axis, name, colour in zip(axes, RUNS, (drawing.ORANGE, drawing.BLUE, drawing.GREEN)):
        x, accuracy = data[name][0, :, 0], data[name][:, :, 1]
        if name != first:
            axis.plot(x, np.median(data[first][:, :, 1], axis=0), "--", color="0.5")
            axis.text(0.98, 0.05, "dashed: as on the left", color="0.4", ha="right", transform=axis.transAxes)
        axis.plot(x, accuracy.T, color=colour, linewidth=1)
        axis.plot(x, np.median(accuracy, axis=0), color=colour, linewidth=4)
        axis.axhline(ENOUGH, color=drawing.BLACK, linewidth=1, linestyle=":")
        axis.set(xlabel="step", ylim=(0, 1.02), xlim=(0, x[-1]), xticks=(0, 50, 100),
                 yticks=(0, 0.2, 0.4, 0.6, 0.8, ENOUGH), title=name.replace(", ", " tokens,\n"))
    axes[0].set_ylabel("head accuracy")
    return figure


if __name__ == "__main__":
    drawing.main("tasks", compute, plot)
