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
    figure, (entries, noise) = drawing.plt.subplots(1, 2, figsize=(13, 7))
    predicted, observed, sizes = data["predicted"], data["observed"], data["sizes"]
    limits = [predicted.min() - 0.03, predicted.max() + 0.03]
    entries.plot(limits, limits, color=drawing.COLOURS["theory"])
    entries.plot(predicted.ravel(), observed[:, -1].ravel(), "o", color=drawing.COLOURS["WO"])
    entries.text(0.62, 0.52, "theory I7:\nequal", transform=entries.transAxes)
    entries.text(0.05, 0.82, f"every entry, {len(predicted)} chains,\n{sizes[-1]:,} sequences each",
                 color=drawing.COLOURS["WO"], transform=entries.transAxes)
    entries.set(xlabel="Markov moment [nats]", ylabel="minus the first gradient of WO [nats]",
                title="WO's first gradient is a Markov moment")
    gap = np.sqrt(np.mean((observed - predicted[:, None]) ** 2, axis=(2, 3)))
    middle, low, high = training.spread(gap)
    noise.errorbar(sizes, middle, yerr=[middle - low, high - middle], fmt="o", capsize=5, markersize=10,
                   color=drawing.COLOURS["WO"])
    noise.plot(sizes, middle[0] * (sizes / sizes[0]) ** -0.5, "--", color=drawing.COLOURS["theory"])
    noise.text(0.4, 0.75, "$n^{-1/2}$, through the\nfirst median", transform=noise.transAxes)
    noise.set(xscale="log", yscale="log", xlabel="sequences n", ylabel="root-mean-square gap [nats]",
              title="the gap is sampling noise")
    noise.minorticks_off()
    noise.set_xticks(sizes, [f"{n:,}" for n in sizes])
    noise.set_yticks((3e-4, 1e-3, 3e-3), ("0.0003", "0.001", "0.003"))
    return figure


if __name__ == "__main__":
    drawing.main("moments", compute, plot)
