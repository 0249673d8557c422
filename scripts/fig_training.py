"""The induction head trains from zero: WO grows first, then WK2, then WK1.

Claims: with the loss on head positions, head accuracy is at least 0.95 within 150 steps in every seed; with
the loss on all positions the head comes with a bigram; the strengths of the memories reach a quarter
and a half of their largest values in the order WO, WK2, WK1, three quarters in the order WK2, WO, WK1.
Lines are medians over the seeds, bands and bars their range. Two minutes on two cores.
"""

from functools import partial

import drawing
import numpy as np
import training
from refimpl import induction
from refimpl.induction import probes

SEEDS, EVERY, SEQUENCES = 5, 2, 16
STEPS = {"head": 150, "absolute": 150, "drawn": 300, "head, WF": 150, "all": 300}
LABELS = {"head": "loss on head positions", "absolute": "the same, absolute positions",
          "drawn": "the same, triggers drawn anew", "head, WF": "the same, WF trained too",
          "all": "loss on all positions, WF trained too"}
ENOUGH = 0.95       # head accuracy
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


def reached(data, name, enough):
    """The first step at which `enough` (seeds, rows) is true (seeds,)."""
    return field(data, name, "step")[0][enough.argmax(axis=1)]


def curve(axis, data, name, which, colour, style="-"):
    """Median over the seeds and their range."""
    middle, low, high = training.spread(field(data, name, which))
    x = field(data, name, "step")[0]
    axis.plot(x, middle, style, color=colour)
    axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def times(axis, values, y, colour, marker):
    """Median over the seeds and their range, from left to right."""
    middle, low, high = training.spread(values)
    axis.errorbar(middle, y, xerr=[[middle - low], [high - middle]], fmt=marker, color=colour, capsize=5,
                  markersize=10)
    return high


def plot(data):
    figure, ((accuracy, passed), (memories, order)) = drawing.plt.subplots(2, 2, figsize=(13, 9))
    for name, colour, style in (("head", drawing.ORANGE, "-"), ("all", drawing.GREEN, "--")):
        curve(accuracy, data, name, "accuracy", colour, style)
    accuracy.axhline(ENOUGH, color=drawing.BLACK, linewidth=1, linestyle=":")
    accuracy.text(10, 1.05, LABELS["head"], color=drawing.ORANGE)
    accuracy.text(105, 0.5, LABELS["all"].replace(", ", ",\n"), color=drawing.GREEN)
    accuracy.set(xlim=(0, 200), ylim=(0, 1.15), xlabel="step", ylabel="head accuracy",
                 title="the answer after a trigger seen before")
    for row, name in enumerate(STEPS):
        values = field(data, name, "accuracy")
        times(passed, reached(data, name, values >= ENOUGH), row + 0.2, drawing.BLUE, "o")
        passed.text(3, row - 0.15, LABELS[name], va="center")
    passed.set(yticks=(), xlim=(0, 200), xlabel="step", ylim=(len(STEPS) - 0.5, -0.6),
               title=f"first right on {ENOUGH * 100:.0f} %: five seeds")
    for memory, style, x, y in (("WO", "-", 45, 0.87), ("WK2", "--", 12, 1.05), ("WK1", "-.", 62, 0.7)):
        curve(memories, data, "head", memory + " argmax", drawing.COLOURS[memory], style)
        memories.text(x, y, memory, color=drawing.COLOURS[memory])
    memories.set(xlim=(0, 150), ylim=(0, 1.15), xlabel="step", ylabel="share recalled",
                 title="the memories hold what they should")
    for row, share in enumerate((0.25, 0.5, 0.75)):
        for shift, memory, marker in zip((-0.22, 0, 0.22), ("WO", "WK2", "WK1"), "osD"):
            values = field(data, "head", memory + " strength")
            enough = values >= share * np.nanmax(values, axis=1, keepdims=True)
            high = times(order, reached(data, "head", enough), row + shift, drawing.COLOURS[memory], marker)
            order.annotate(memory, (high, row + shift), xytext=(8, 0), textcoords="offset points",
                           va="center", color=drawing.COLOURS[memory])
    order.set(yticks=[0, 1, 2], yticklabels=("¼", "½", "¾"), ylim=(2.5, -0.5), xlim=(0, 80), xlabel="step",
              ylabel="share of its largest strength", title="up to ½ in the order WO, WK2, WK1; not at ¾")
    return figure


if __name__ == "__main__":
    drawing.main("training", compute, plot)
