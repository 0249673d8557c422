"""Length: how far beyond the training length L0 the trained head reaches, relative against absolute.

On natural prompts the triggers have mostly been seen within L0, and both encodings go on. On designed
prompts, q→u three times and all of q in the last 48 tokens, absolute positions fail as soon as these lie
beyond L0 (claim I2). Relative ones fail slowly: b1 is finite, and attention to the previous token,
e^b1/(e^b1 + t), falls with t (claim I1). Lines: I3 with the effective strengths of the trained models.
Markers are medians over the seeds, bars their range. One minute and a half on two cores.
"""

from functools import partial

import drawing
import numpy as np
import training
from refimpl import induction
from refimpl.induction import probes, theory

SEEDS, STEPS, FACTORS, PROMPTS = 5, 150, (1, 2, 4, 8), 12
COPIES, WINDOW = 3, 48
FIELDS = ("natural accuracy", "designed accuracy", "designed mass", "mass by I3")


def natural(params, bigram, rng, encoding, length, count):
    """Share of right predictions at all head positions."""
    batch = induction.sample(bigram, count, length, rng, training.TRIGGERS)
    right = []
    for z, head in zip(batch.tokens, training.head(batch)):
        predicted = induction.forward(params, z[:-1], encoding).logits.argmax(axis=1)
        right.append((predicted == z[1:])[head])
    return np.concatenate(right).mean()


def designed(params, bigram, rng, encoding, length, count, strengths):
    """Share of prompts with argmax u, mean attention of layer 2 on u, and the same by I3."""
    L0 = None if encoding == "relative" else training.LENGTH
    found = []
    for _ in range(count):
        q, u, w = training.rivals(bigram, rng)
        others = np.setdiff1d(np.arange(training.V), [q, u, w])
        before = rng.choice(others, length - WINDOW, p=bigram.pi_u[others] / bigram.pi_u[others].sum())
        z = np.append(before, training.designed_prompt(bigram, rng, q, u, w, COPIES, WINDOW))
        trace = induction.forward(params, z, encoding)
        predicted = theory.in_context_mass(z, [q], *strengths[:2], encoding, L0)[0][-1]
        found.append((trace.logits[-1].argmax() == u, trace.attention2[-1] @ (z == u), predicted @ (z == u)))
    return np.mean(found, axis=0)


def one_run(encoding, seed, steps=STEPS, factors=FACTORS, count=PROMPTS, d=training.WIDTH):
    """FIELDS at each multiple of the training length: (factors, fields)."""
    bigram, rng = training.text_bigram(), np.random.default_rng(seed)
    start = induction.init(training.V, d, max(factors) * training.LENGTH, rng)
    params = training.trained(bigram, start, rng, steps, encoding=encoding)
    strengths = probes.effective_strengths(params, training.TRIGGERS, encoding, training.LENGTH)
    return [(natural(params, bigram, rng, encoding, factor * training.LENGTH, count),
             *designed(params, bigram, rng, encoding, factor * training.LENGTH, count, strengths))
            for factor in factors]


def compute(seeds=SEEDS, factors=FACTORS, **small):
    cases = [(encoding, seed) for encoding in ("relative", "absolute") for seed in range(seeds)]
    results = drawing.each(partial(one_run, factors=factors, **small), cases)
    return training.ORIGIN | {"factors": np.array(factors), "relative": np.array(results[:seeds]),
                              "absolute": np.array(results[seeds:])}


def plot(data):
    figure, axes = drawing.plt.subplots(1, 2, figsize=(13, 7.5), sharey=True)
    for encoding, shift, fmt, style in (("relative", 0.97, "o", "-"), ("absolute", 1.03, "s", "--")):
        colour = drawing.COLOURS[encoding]
        for axis, column, line, face in ((axes[0], 0, "-", colour), (axes[0], 1, ":", "white"),
                                         (axes[1], 2, "", "white")):
            middle, low, high = training.spread(data[encoding][:, :, column])
            axis.errorbar(data["factors"] * shift, middle, yerr=[middle - low, high - middle], fmt=fmt + line,
                          capsize=5, color=colour, markerfacecolor=face, markersize=10)
        axes[1].plot(data["factors"], np.median(data[encoding][:, :, 3], axis=0), style,
                     color=drawing.COLOURS["theory"])
    axes[0].set(title="natural prompts hold; designed ones fail,\nat once with absolute positions",
                ylabel="head accuracy")
    axes[1].set(title=f'designed: "q u" {COPIES} times in the last {WINDOW} tokens,\n'
                'attention of layer 2 on u', ylabel="attention")
    blue, red, black = (drawing.COLOURS[name] for name in ("relative", "absolute", "theory"))
    labels = (((1.45, 1.05, "natural, both encodings", black), (2.4, 0.66, "designed,\nrelative", blue),
               (1, 0.2, "designed,\nabsolute", red)),
              ((1.45, 0.74, "theory I3, relative", black), (1, 0.2, "theory I3,\nabsolute", black),
               (2.1, 0.5, "trained, relative", blue), (2.15, 0.06, "absolute", red)))
    for axis, texts in zip(axes, labels):
        for x, y, text, colour in texts:
            axis.text(x, y, text, color=colour)
        axis.set(xscale="log", xlabel=f"length / training length of {training.LENGTH} tokens",
                 ylim=(-0.03, 1.12))
        axis.minorticks_off()
        axis.set_xticks(data["factors"], [f"{factor}×" for factor in data["factors"]])
    return figure


if __name__ == "__main__":
    drawing.main("length", compute, plot)
