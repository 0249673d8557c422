"""The first gradient step is a Markov moment (claim I7): what WO learns first, from sampled sequences.

One trigger q, all weights at zero, the loss at the last position: ⟨U[k], −∂L/∂WO WV E[j]⟩ follows from
powers of the chain's transition matrix. Left: gradient of 20,000 sequences of trigger-bigram text against
the moment. Right: the root-mean-square gap against the number of sequences, which is sampling noise alone:
it falls as n^(−1/2). Fifteen seconds.
"""

from functools import partial

import drawing
import numpy as np
import training
from refimpl import induction
from refimpl.induction import moments

SEEDS, SIZES = 5, (200, 2000, 20000)
V, T, Q = 8, 6, 0


def one_seed(seed, sizes=SIZES):
    """(V, V) by theory; (sizes, V, V) from as many sequences that end with q."""
    rng = np.random.default_rng(seed)
    bigram = induction.Bigram.random(V, rng)
    pi_o = rng.dirichlet(np.ones(V))
    predicted = moments.first_gradient(moments.pair_moments(bigram.pi_u, bigram.pi_b, pi_o, Q, T)).WO
    frame = induction.orthonormal_frame(V, T, rng)
    tokens = []
    while sum(map(len, tokens)) < max(sizes):
        z = induction.sample(bigram, max(sizes), T, rng, [Q], outputs=np.tile(pi_o, (V, 1))).tokens
        tokens.append(z[z[:, T - 1] == Q])
    tokens, last = np.concatenate(tokens), np.arange(T) == T - 1
    observed = []
    for n in sizes:
        gradient = induction.tables.loss_and_grads(frame, tokens[:n], np.tile(last, (n, 1)))[1].WO
        observed.append(-frame.U @ gradient @ frame.WV @ frame.E.T)
    return predicted, observed


def compute(seeds=SEEDS, sizes=SIZES):
    chains = drawing.each(partial(one_seed, sizes=sizes), [(seed,) for seed in range(seeds)])
    predicted, observed = zip(*chains)
    return {"sizes": np.array(sizes), "predicted": np.array(predicted), "observed": np.array(observed)}


def plot(data):
    figure, axes = drawing.plt.subplots(1, 2, figsize=(10, 4.2))
    predicted, observed, sizes = data["predicted"], data["observed"], data["sizes"]
    limits = [predicted.min() - 0.01, predicted.max() + 0.01]
    axes[0].plot(limits, limits, color=drawing.COLOURS["theory"], label="I7")
    axes[0].plot(predicted.ravel(), observed[:, -1].ravel(), "o", color=drawing.COLOURS["WO"], markersize=3,
                 label=f"gradient of {sizes[-1]:,} sequences,\n{len(predicted)} chains")
    axes[0].set(xlabel="Markov moment [nats per unit of WO]", ylabel="minus the first gradient of WO",
                title="what WO learns first, entry by entry")
    gap = np.sqrt(np.mean((observed - predicted[:, None]) ** 2, axis=(2, 3)))
    middle, low, high = training.spread(gap)
    axes[1].errorbar(sizes, middle, yerr=[middle - low, high - middle], fmt="o", capsize=3,
                     color=drawing.COLOURS["WO"], label="gap to the moment")
    axes[1].plot(sizes, middle[0] * (sizes / sizes[0]) ** -0.5, color=drawing.COLOURS["theory"],
                 label="sampling noise: slope −1/2")
    axes[1].set(xscale="log", yscale="log", xlabel="sequences n", ylabel="rms gap", title="the gap is noise")
    for axis in axes:
        axis.legend()
    return figure


if __name__ == "__main__":
    drawing.main("moments", compute, plot)
