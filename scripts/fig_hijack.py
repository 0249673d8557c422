"""Knowledge hijack: when does the context win over a pretrained bigram (claim I5), and at which strength?

k copies of q→u among distractors, then q; the bigram prefers w by Δ nats. Filled markers: the model says u
(context), open ones: it says w. Top: constructed model with hard previous-token attention, where I5 is the
boundary. Bottom: WK1, WK2, WO trained from zero in the orthonormal frame without WF, the text's bigram then
written into WF; I3 with the effective strengths is the boundary, since a trained b1 is far from the limit
that I5 assumes. The line of I3 is its mean over prompts. One minute on two cores.
"""

import drawing      # first: it sets the number of threads

from functools import partial

import numpy as np
import training
from refimpl import induction
from refimpl.induction import probes, theory

SEEDS, STEPS, PROMPTS = 5, 150, 16
HARD = (60.0, 3.0, 7.0)         # b1, b2, bo of the constructed model
REPETITIONS, LENGTH = (1, 2, 3, 4, 6, 8, 12), 64
LENGTHS, TWICE = (8, 16, 32, 64, 128, 256), 2


def verdicts(params, bigram, rng, strengths, k, length, count):
    """Rows of k, T, Δ, whether u beats w, whether it should by I3, and p_u − p_w by I3."""
    rows, b, log_pi_b = [], strengths, np.log(bigram.pi_b)
    for _ in range(count):
        q, u, w = training.rivals(bigram, rng)
        gap = log_pi_b[q, w] - log_pi_b[q, u]
        z = training.designed_prompt(bigram, rng, q, u, w, k, length)
        logits = induction.forward(params, z).logits[-1]
        predicted = theory.logits(z, log_pi_b, range(training.TRIGGERS), *b)[-1]
        rows.append((k, length, gap, logits[u] > logits[w], predicted[u] > predicted[w],
                     (predicted[u] - predicted[w] + gap) / b[2]))
    return rows


def one_seed(seed, steps=STEPS, count=PROMPTS, repetitions=REPETITIONS, lengths=LENGTHS):
    """For both models: strengths (3,), verdicts in repetitions and in length."""
    bigram, rng = training.text_bigram(), np.random.default_rng(seed)
    frame = induction.orthonormal_frame(training.V, max(*lengths, LENGTH), rng)
    constructed = induction.construct(frame, bigram, training.TRIGGERS, *HARD)
    trained = training.trained(bigram, frame, rng, steps)._replace(WF=constructed.WF)
    found = probes.effective_strengths(trained, training.TRIGGERS, train_length=training.LENGTH)
    return [[strengths,
             sum((verdicts(params, bigram, rng, strengths, k, LENGTH, count) for k in repetitions), []),
             sum((verdicts(params, bigram, rng, strengths, TWICE, T, count) for T in lengths), [])]
            for params, strengths in ((constructed, HARD), (trained, found))]


def compute(seeds=SEEDS, **small):
    models = zip(*drawing.each(partial(one_seed, **small), [(seed,) for seed in range(seeds)]))
    data = dict(training.ORIGIN)
    for name, model in zip(("constructed", "trained"), models):
        for which, values in zip(("strengths", "repetitions", "length"), zip(*model)):
            data[f"{name} {which}"] = np.array(values, float)
    return data


def plot(data):
    figure, axes = drawing.plt.subplots(2, 2, figsize=(11, 8), sharex=True)
    for row, name in zip(axes, ("constructed", "trained")):
        b1, b2, bo = np.median(data[name + " strengths"], axis=0)
        for axis, which, column in zip(row, ("repetitions", "length"), (0, 1)):
            seeds = data[f"{name} {which}"]
            rows = seeds.reshape(-1, 6)
            ratio, wins, y = rows[:, 2] / bo, rows[:, 3] == 1, rows[:, column]
            # Shifted up and down, so that markers of one k or T do not hide each other.
            shift = np.linspace(-0.12, 0.12, len(rows)) if column == 0 else np.zeros(len(rows))
            y = y + shift if column == 0 else y * 1.12 ** np.linspace(-1, 1, len(rows))
            colour = drawing.COLOURS[name]
            axis.plot(ratio[wins], y[wins], "o", color=colour, markersize=4, label="u wins (context)")
            axis.plot(ratio[~wins], y[~wins], "o", color=colour, markersize=4, markerfacecolor="none",
                      label="w wins (bigram)")
            gaps = np.linspace(0.02, 0.9999, 400)
            boundary = theory.hijack(TWICE, LENGTH, gaps, b2, 1.0)
            axis.plot(gaps, boundary.critical_repetitions if column == 0 else boundary.critical_length,
                      color=drawing.COLOURS["theory"], label=f"I5, $b_2$ = {b2:.1f}")
            if name == "trained":
                levels = np.unique(rows[:, column])
                means = [rows[rows[:, column] == level, 5].mean() for level in levels]
                axis.plot(means, levels, "--", color=drawing.COLOURS["theory"],
                          label=f"I3, $b_1$ = {b1:.1f}, $b_2$ = {b2:.1f}")
            right = (seeds[:, :, 3] == seeds[:, :, 4]).mean(axis=1)
            axis.set(xlim=(0, 1.5), title=f"{name}: I3 right on {right.mean():.1%} of prompts "
                     f"({right.min():.1%}–{right.max():.1%})")
            axis.legend(fontsize=8, loc="upper center", ncols=2, frameon=True, framealpha=1, edgecolor="none")
        row[0].set(ylim=(0, 16), ylabel=f"repetitions k (T = {LENGTH} tokens)")
        row[1].set(yscale="log", ylim=(6, 700), ylabel=f"length T [tokens] (k = {TWICE})")
        row[1].minorticks_off()
        row[1].set_yticks(LENGTHS, [str(T) for T in LENGTHS])
    for axis in axes[1]:
        axis.set_xlabel("gap Δ / $b_o$ of the pretrained bigram")
    return figure


if __name__ == "__main__":
    drawing.main("hijack", compute, plot)
