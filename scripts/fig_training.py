"""The induction head trains from zero: WO is learned first, then WK2, then WK1.

Claims: with the loss on head positions, head accuracy is at least 0.95 within 150 steps in every seed; with
the loss on all positions the head comes with a bigram; the strengths of the memories grow in the order WO,
WK2, WK1. Lines are medians over the seeds, bands their range. Two minutes on two cores.
"""

from functools import partial

import drawing
import numpy as np
import training
from refimpl import induction
from refimpl.induction import probes

SEEDS, EVERY, SEQUENCES = 5, 2, 16
STEPS = {"head": 150, "absolute": 150, "drawn": 300, "head, WF": 150, "all": 300}
LABELS = {"head": "head positions", "absolute": "the same, absolute", "drawn": "the same, triggers drawn",
          "head, WF": "the same, with WF", "all": "all positions, with WF"}
KINDS = ("argmax", "margin", "strength")
FIELDS = ("step", "loss", "accuracy", "divergence",
          *(f"{memory} {kind}" for memory in training.ALL for kind in KINDS))


def one_run(name, seed, count=None, d=training.WIDTH):
    """One row of FIELDS every EVERY steps; nan where a memory is zero."""
    options = training.SETTINGS[name]
    bigram, rng = training.text_bigram(), np.random.default_rng(seed)
    encoding, drawn = options.get("encoding", "relative"), options.get("drawn", False)
    test = induction.sample(bigram, SEQUENCES, training.LENGTH, np.random.default_rng([seed, 1]),
                            training.TRIGGERS, drawn=drawn)
    probe = {"WK1": lambda params: probes.WK1(params, encoding),
             "WK2": lambda params: probes.WK2(params, training.V if drawn else training.TRIGGERS),
             "WO": probes.WO, "WF": lambda params: probes.WF(params, bigram)}
    start, rows = induction.init(training.V, d, training.LENGTH, rng), []
    for step in training.steps(bigram, start, rng, count or STEPS[name], **options):
        if (step.step + 1) % EVERY == 0:
            found = [probe[memory](step.params) if getattr(step.params, memory).any() else (np.nan,) * 3
                     for memory in training.ALL]
            rows.append([step.step + 1, step.loss, *training.measure(step.params, bigram, test, encoding),
                         *np.ravel(found)])
    return rows


def compute(seeds=SEEDS, **small):
    cases = [(name, seed) for name in STEPS for seed in range(seeds)]
    rows = iter(drawing.each(partial(one_run, **small), cases))
    return training.ORIGIN | {name: np.array([next(rows) for _ in range(seeds)]) for name in STEPS}


def field(data, name, which):
    """(seeds, rows) of one of FIELDS."""
    return data[name][:, :, FIELDS.index(which)]


def reached(data, name, which, share):
    """The first step at which a field is at least this share of its largest value (seeds,)."""
    values = field(data, name, which)
    enough = values >= share * np.nanmax(values, axis=1, keepdims=True)
    return field(data, name, "step")[0][enough.argmax(axis=1)]


def curve(axes, data, name, which, label, colour, style="-"):
    """Median over the seeds and their range."""
    middle, low, high = training.spread(field(data, name, which))
    x = field(data, name, "step")[0]
    axes.plot(x, middle, style, color=colour, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def plot(data):
    figure, axes = drawing.plt.subplots(2, 3, figsize=(12, 7))
    colours = dict(zip(STEPS, (drawing.ORANGE, drawing.RED, drawing.SKY, drawing.PURPLE, drawing.GREEN)))
    for name in STEPS:
        for axis, which in zip(axes[0], ("loss", "accuracy", "divergence")):
            curve(axis, data, name, which, LABELS[name], colours[name])
    axes[0, 0].set(ylabel="training loss [nats]", title="loss", ylim=(0, 4.5))
    axes[0, 1].set(ylabel="head accuracy", title="accuracy after a trigger seen before", ylim=(0, 1.02))
    axes[0, 1].axhline(0.95, color=drawing.BLACK, linewidth=0.8, linestyle=":")
    axes[0, 2].set(ylabel="KL(bigram ‖ model) [nats]", title="other positions", ylim=(0, 5))
    axes[0, 1].legend(fontsize=8, loc="lower right")
    for axis, name in zip(axes[1], ("head", "all")):
        for memory in training.ALL if name == "all" else training.HEAD:
            curve(axis, data, name, memory + " argmax", memory, drawing.COLOURS[memory])
        axis.set(ylabel="share recalled", ylim=(0, 1.02), title=f"memories, loss on {name} positions")
        axis.legend(loc="lower right")
    order = axes[1, 2]
    for row, memory in enumerate(reversed(training.HEAD)):
        for offset, share in ((-0.18, 0.25), (0, 0.5), (0.18, 0.75)):
            middle, low, high = training.spread(reached(data, "head", memory + " strength", share))
            order.errorbar(middle, 2 - row + offset, xerr=[[middle - low], [high - middle]], fmt="o",
                           color=drawing.COLOURS[memory], capsize=3)
            order.annotate(f"{share:.0%}", (high, 2 - row + offset), xytext=(5, 0), fontsize=8,
                           textcoords="offset points", va="center")
    order.set(yticks=[0, 1, 2], yticklabels=training.HEAD, ylim=(-0.5, 2.5), xlim=(0, 75),
              title="strength reaches a share of its largest value")
    for axis in axes.flat:
        axis.set_xlabel("step")
    return figure


if __name__ == "__main__":
    drawing.main("training", compute, plot)
