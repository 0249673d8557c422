"""Random embeddings interfere: the gap to the closed form (I6, I12) and the capacity of a memory (M5).

Left: root-mean-square gap, at the last position, between the logits of the constructed model with
Gaussian embeddings and I3. Without attention strengths (b1 = b2 = 0) I12 is its limit, of slope −1/2. With
them only the slope is known (I6). Models of any width are drawn in few coordinates, as in the claims.
Right: the largest number N*(d) of random pairs whose argmax recall is at least 99 %, against the capacity
formula. No line is fitted. A minute on two cores.
"""

import drawing      # first: it sets the number of threads

import numpy as np
import training
from refimpl import associative, induction
from refimpl.claims import embeddings
from refimpl.induction import theory

SEEDS = 8
GAP_WIDTHS, V, T, PROMPTS = tuple(4 ** k for k in range(3, 11)), 10, 12, 60
STRENGTHS = ((0.0, 0.0, 1.0), (0.8, 0.8, 1.0))
CAPACITY_WIDTHS, RECALL = (32, 64, 128, 256), 0.99


def gap(d, seed, strengths):
    """Root-mean-square gap (nats) at the end of prompts, each with embeddings of its own, and by I12."""
    rng, squares, constants = np.random.default_rng([seed, d]), [], []
    bigram = induction.Bigram.from_counts(np.random.default_rng(seed).integers(1, 5, (V, V)))
    log_pi_b = np.log(bigram.pi_b)
    for z in induction.sample(bigram, PROMPTS, T, rng, [0]).tokens[:, :T]:
        frame = embeddings.narrow(embeddings.draw_coordinates(rng, V, T, d), V)
        params = induction.construct(frame, bigram, [0], *strengths)
        logits = theory.logits(z, log_pi_b, [0], *strengths)
        squares.append(np.mean((induction.forward(params, z).logits - logits)[-1] ** 2))
        constants.append(embeddings.limit_of_the_gap(bigram, z, strengths[2]).mean())
    return np.sqrt(np.mean(squares)), np.sqrt(np.mean(constants) / d)


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
    gaps = drawing.each(gap, [(d, seed, strengths) for strengths in STRENGTHS for d in gap_widths
                              for seed in range(seeds)])
    capacities = drawing.each(capacity, [(d, seed) for d in capacity_widths for seed in range(seeds)])
    return {"gap_widths": np.array(gap_widths), "gaps": np.reshape(gaps, (2, -1, seeds, 2)),
            "capacity_widths": np.array(capacity_widths), "capacities": np.reshape(capacities, (-1, seeds))}


def points(axis, x, y, marker, colour):
    """Median and range over the seeds."""
    middle, low, high = training.spread(y, axis=1)
    axis.errorbar(x, middle, yerr=[middle - low, high - middle], fmt=marker, capsize=4, color=colour)


def plot(data):
    figure, (left, right) = drawing.plt.subplots(1, 2, figsize=(13, 7))
    black, blue, red, x = drawing.BLACK, drawing.COLOURS["constructed"], drawing.RED, data["gap_widths"]
    (alone, constant), (attending, _) = np.moveaxis(data["gaps"], -1, 1)
    left.plot(x, np.median(constant, axis=1), color=black)
    points(left, x, alone, "o", blue)
    points(left, x * 1.25, attending, "s", red)
    for height, text, colour in (
            (0.95, "theory (I12): slope −1/2,\nthe constant too", black),
            (0.81, "● attention on all alike\n   ($b_1 = b_2 = 0$), as in I12", blue),
            (0.67, "■ $b_1 = b_2 = 0.8$ (I6)", red)):
        left.text(0.44, height, text, color=colour, va="top", transform=left.transAxes)
    left.set(ylabel="rms gap of the logits to I3 [nats]", title="Random embeddings interfere:\n"
             "the gap to the closed form falls with the width")
    x = data["capacity_widths"]
    widths = np.unique(np.geomspace(x[0], x[-1], 25).astype(int))
    right.plot(widths, [associative.capacity(int(d), RECALL) for d in widths], color=black)
    points(right, x, data["capacities"], "o", blue)
    right.text(0.05, 0.95, "theory (M5): nothing fitted", color=black, va="top", transform=right.transAxes)
    right.text(0.05, 0.86, "● measured", color=blue, va="top", transform=right.transAxes)
    right.set(ylabel="random pairs recalled at 99 %", title="A memory of d × d numbers holds\n"
              "as many pairs as theory says")
    for axis, ticks in ((left, data["gap_widths"]), (right, x)):
        axis.set(xscale="log", yscale="log", xlabel="width d")
        axis.minorticks_off()
        axis.set_xticks(ticks, [str(d) if axis is right else f"$2^{{{int(np.log2(d))}}}$" for d in ticks])
    return figure


if __name__ == "__main__":
    drawing.main("interference", compute, plot)
