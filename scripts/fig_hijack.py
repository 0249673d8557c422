"""Knowledge hijack: when does the context win over a pretrained bigram (claims I5 and I3)?

k copies of q→u among distractors, then q; the bigram, the habit, prefers w by Δ nats. Markers are prompts,
filled where the model says u, open where it says w; the two regions are theory's. Left: constructed model
with hard previous-token attention, where I5 is the boundary. Right: WK1, WK2, WO trained from zero in the
orthonormal frame without WF, the text's bigram then written into WF. A trained b1 is far from the limit that
I5 assumes; I3 with the effective strengths is the boundary, drawn as its mean over prompts. Drawn against
the length; the numbers against the repetitions are computed too. One minute on two cores.
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


def rate(wins, predicted):
    """Share of prompts that a prediction gets right: mean over the seeds, lowest and highest."""
    right = (wins == predicted).mean(axis=1)
    spread = f" ({right.min() * 100:.0f}–{right.max() * 100:.0f} %)" if right.min() < right.max() else ""
    return f"{right.mean() * 100:.0f} %{spread}"


def plot(data):
    figure, axes = drawing.plt.subplots(1, 2, figsize=(13, 8), sharex=True, sharey=True)
    for axis, name in zip(axes, ("constructed", "trained")):
        b, seeds = data[f"{name} strengths"], data[f"{name} length"]
        T, ratio, wins = seeds[:, :, 1], seeds[:, :, 2] / b[:, 2:], seeds[:, :, 3] == 1
        (b1, b2, _), levels = np.median(b, axis=0), np.unique(T)
        grid = np.geomspace(levels[0] / 1.2, levels[-1] * 1.2, 300)
        # By how much the context's share of u exceeds that of w: u wins where Δ / bo is less.
        hard = theory.hijack_margin(TWICE, TWICE, 0, TWICE, 0, grid, 0.0, b2, 1.0)
        means = [seeds[:, :, 5][T == level].mean() for level in levels]
        line = hard if name == "constructed" else np.interp(np.log(grid), np.log(levels), means)
        axis.fill_betweenx(grid, 0, line, color=drawing.SKY, alpha=0.25, linewidth=0)
        axis.fill_betweenx(grid, line, 2, color=drawing.RED, alpha=0.15, linewidth=0)
        axis.plot(line, grid, color=drawing.COLOURS["theory"], linewidth=3.5)
        # Moved up and down, so that markers of one T do not hide each other.
        shown = T * 1.12 ** np.linspace(-1, 1, T.size).reshape(T.shape)
        axis.plot(ratio[wins], shown[wins], "o", color=drawing.BLUE, label="the model says u")
        axis.plot(ratio[~wins], shown[~wins], "s", color=drawing.RED, markerfacecolor="none", markersize=6.5,
                  label="the model says w")
        between = np.sqrt(levels[:-1] * levels[1:])     # no markers there
        style = dict(fontsize=22, weight="bold", va="center")
        axis.text(0.04, between[0], "CONTEXT", color=drawing.BLUE, **style)
        axis.text(1.38, between[-1], "HABIT", color=drawing.RED, ha="right", **style)
        middle = between[len(between) // 2]
        at = np.interp(middle, grid, line)
        by_I5 = rate(wins, theory.hijack_margin(
            TWICE, TWICE, 0, TWICE, 0, T, seeds[:, :, 2], b[:, 1:2], b[:, 2:]) > 0)
        if name == "constructed":
            axis.text(at + 0.03, middle, f"theory I5 ($b_1$ = {b1:.0f})", va="center")
            axis.set_title(f"constructed model:\nI5 is right on {by_I5} of the prompts")
        else:
            axis.plot(hard, grid, ":", color=drawing.COLOURS["theory"])
            axis.text(at - 0.03, middle, f"theory I3 ($b_1$ = {b1:.1f})", va="center", ha="right")
            axis.text(1.03, middle, "I5 ($b_1$ → ∞)", va="center")
            axis.set_title(f"trained model: I3 is right on\n{rate(wins, seeds[:, :, 4])}, I5 on {by_I5}")
        axis.set(xlim=(0, 1.4), yscale="log", ylim=(grid[0], grid[-1]),
                 xlabel="habit's preference Δ / context's strength $b_o$")
        axis.minorticks_off()
        axis.set_yticks(levels, [f"{level:.0f}" for level in levels])
    axes[0].set_ylabel("length T [tokens]")
    figure.suptitle(f'"q u" {TWICE} times, then q; pretraining prefers w: in longer prompts the habit wins')
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    drawing.main("hijack", compute, plot)
