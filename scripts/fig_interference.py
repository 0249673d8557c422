"""Random embeddings interfere: the gap to the closed form (claim I6) and the capacity of a memory (claim M4).

Left: root-mean-square gap between the logits of the constructed model with Gaussian embeddings and I3,
against the width; the theory is a line of slope −1/2 through the last point, and the fitted slope is
steeper where terms of order V/d still count. Right: the largest number N*(d) of random pairs whose argmax
recall is at least 99 %; the theory, asymptotic, is proportional to d²/log d, drawn through the last point:
N* is steeper at these widths and bends towards it. Half a minute on two cores.
"""

import drawing      # first: it sets the number of threads

import numpy as np
import training
from refimpl import associative, induction
from refimpl.induction import theory
from scipy.stats import linregress, t as student

SEEDS = 8
GAP_WIDTHS, V, T, STRENGTHS, PROMPTS = (128, 256, 512, 1024), 10, 12, (0.8, 0.8, 1.0), 4
CAPACITY_WIDTHS, RECALL = (32, 64, 128, 256), 0.99


def gap(d, seed):
    """Root-mean-square gap (nats) over the logits of a few prompts, each with embeddings of its own."""
    rng, squares = np.random.default_rng([seed, d]), []
    bigram = induction.Bigram.from_counts(np.random.default_rng(seed).integers(1, 5, (V, V)))
    for z in induction.sample(bigram, PROMPTS, T, rng, [0]).tokens[:, :T]:
        params = induction.construct(induction.init(V, d, T, rng), bigram, [0], *STRENGTHS)
        logits = theory.logits(z, np.log(bigram.pi_b), [0], *STRENGTHS)
        squares.append(np.mean((induction.forward(params, z).logits - logits) ** 2))
    return np.sqrt(np.mean(squares))


def recall(N, d, seed):
    """Share of N random pairs with the right argmax, over enough memories for 2,000 pairs."""
    u, v = np.random.default_rng([seed, d, N]).normal(0, d ** -0.5, (2, 2 + 2000 // N, N, d))
    scores = associative.read(associative.write(u, v), u, v)
    return (scores.argmax(axis=-2) == np.arange(N)).mean()


def capacity(d, seed):
    """N*(d), by doubling and bisection, to 2 %."""
    low, high = 2, 4
    while recall(high, d, seed) >= RECALL:
        low, high = high, 2 * high
    while high > max(low + 1, low * 1.02):
        middle = (low + high) // 2
        low, high = (middle, high) if recall(middle, d, seed) >= RECALL else (low, middle)
    return low


def compute(seeds=SEEDS, gap_widths=GAP_WIDTHS, capacity_widths=CAPACITY_WIDTHS):
    gaps = drawing.each(gap, [(d, seed) for d in gap_widths for seed in range(seeds)])
    capacities = drawing.each(capacity, [(d, seed) for d in capacity_widths for seed in range(seeds)])
    return {"gap_widths": np.array(gap_widths), "gaps": np.reshape(gaps, (-1, seeds)),
            "capacity_widths": np.array(capacity_widths), "capacities": np.reshape(capacities, (-1, seeds))}


def slope(x, y):
    """Slope of log y, averaged over the seeds, against log x, and its 95 % half-width."""
    line = linregress(np.log(x), np.log(y).mean(axis=1))
    return line.slope, line.stderr * student.ppf(0.975, len(x) - 2)


def plot(data):
    figure, axes = drawing.plt.subplots(1, 2, figsize=(10, 4.2))
    shapes = (lambda d: d ** theory.embedding_slope(), lambda d: d ** 2 / np.log(d))
    for axis, x, y, shape, label in zip(axes, (data["gap_widths"], data["capacity_widths"]),
                                        (data["gaps"], data["capacities"]), shapes,
                                        ("I6: slope −1/2", "M4: d²/log d")):
        middle, low, high = training.spread(y, axis=1)
        axis.plot(x, middle[-1] * shape(x) / shape(x[-1]), color=drawing.COLOURS["theory"], label=label)
        axis.errorbar(x, middle, yerr=[middle - low, high - middle], fmt="o", capsize=3,
                      color=drawing.COLOURS["constructed"],
                      label="measured, fitted slope {:.2f} ± {:.2f}".format(*slope(x, y)))
        axis.set(xscale="log", yscale="log", xlabel="width d")
        axis.minorticks_off()
        axis.set_xticks(x, [str(d) for d in x])
        axis.legend()
    axes[0].set_yticks([0.3, 0.5, 1.0], ["0.3", "0.5", "1"])
    axes[0].set(ylabel="rms gap of the logits to I3 [nats]", title="interference of Gaussian embeddings")
    axes[1].set(ylabel="pairs recalled at 99 %, N*(d)", title="capacity of an outer-product memory")
    return figure


if __name__ == "__main__":
    drawing.main("interference", compute, plot)
