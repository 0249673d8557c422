"""Prompts anyone understands: "Paris Japan … Paris" against a pretrained bigram that says "Paris France".

Sixteen words: six cities, their countries, four fillers. The head is trained from zero on prompts of 24
words, in which each city is followed by one word of the prompt's own; then a bigram that prefers each
city's true country by Δ nats is written into WF. How often must a prompt say "Paris Japan" until the model
repeats it? Near: prompts of 24 words. Far: 48 words, Paris only among the last 24, beyond the training
length. The constructed model has hard attention to the previous word and weak b2: I5 counts. The trained
one is held against I3 with the strengths found in it. One minute on two cores.
"""

from functools import partial

import drawing
import numpy as np
import training
from refimpl import induction
from refimpl.induction import probes, theory

CITIES = ("Paris", "Rome", "Tokyo", "Cairo", "Lima", "Oslo")
COUNTRIES = ("France", "Italy", "Japan", "Egypt", "Peru", "Norway")
WORDS = CITIES + COUNTRIES + ("and", "the", "of", "to")
SEEDS, STEPS, PROMPTS, LENGTH = 5, 100, 8, 24
HARD = (60.0, 2.0, 7.0)         # b1, b2, bo of the constructed model
REPETITIONS, GAPS = range(1, 9), (3.0, 4.0, 5.0, 6.0, 7.0)
NEVER = len(REPETITIONS) + 1


def pretrained(gap):
    """Each city is followed by its country, `gap` nats before any other word; the rest is uniform."""
    counts = np.ones((len(WORDS), len(WORDS)))
    counts[range(len(CITIES)), range(len(CITIES), 2 * len(CITIES))] = np.exp(gap)
    pi_b = counts / counts.sum(axis=1, keepdims=True)
    return induction.Bigram(WORDS, np.full(len(WORDS), 1 / len(WORDS)), pi_b)


def flip(wins):
    """The first k from which on u wins on most prompts, or NEVER; wins (repetitions, prompts)."""
    lost = np.flatnonzero(np.mean(wins, axis=1) <= 0.5)
    return lost[-1] + 2 if len(lost) else 1


def one_run(encoding, seed, steps=STEPS, gaps=GAPS, count=PROMPTS):
    """Repetitions to flip (near and far, gaps, (trained, constructed, I3, I5)); bo of the trained model."""
    bigram, rng = pretrained(0.0), np.random.default_rng(seed)
    frame = induction.orthonormal_frame(len(WORDS), 2 * LENGTH, rng, encoding)
    L0, cities = None if encoding == "relative" else LENGTH, range(len(CITIES))
    trained = training.trained(bigram, frame, rng, steps, encoding=encoding, length=LENGTH, triggers=cities)
    b = probes.effective_strengths(trained, cities, encoding, LENGTH)
    found = []
    for far in (False, True):
        prompts = []
        for _ in range(count * len(REPETITIONS)):
            q, other = rng.choice(len(CITIES), 2, replace=False)
            rest = np.setdiff1d(np.arange(len(WORDS)), [q, q + len(CITIES), other + len(CITIES)])
            before = rng.choice(rest, LENGTH * far)
            k = REPETITIONS[len(prompts) // count]
            z = training.designed_prompt(bigram, rng, q, other + len(CITIES), q + len(CITIES), k, LENGTH)
            prompts.append((np.append(before, z), other + len(CITIES), q + len(CITIES)))
        # I3 is linear in log pi_b: what the context adds decides against any gap.
        flat = np.zeros((len(WORDS), len(WORDS)))
        ahead = [np.subtract(*theory.logits(z, flat, cities, *b, encoding, L0)[-1, [u, w]])
                 for z, u, w in prompts]
        for gap in gaps:
            constructed = induction.construct(frame, pretrained(gap), cities, *HARD, encoding, L0)
            wins = [[np.subtract(*induction.forward(params, z, encoding).logits[-1, [u, w]]) > 0
                     for z, u, w in prompts]
                    for params in (trained._replace(WF=constructed.WF), constructed)]
            wins.append(np.array(ahead) > gap)
            hard = theory.hijack(1, LENGTH * (1 + far), gap, *HARD[1:]).critical_repetitions
            found.append([*(flip(np.reshape(model, (-1, count))) for model in wins),
                          min(np.floor(hard) + 1, NEVER)])
    return np.reshape(found, (2, len(gaps), 4)), b.bo


def compute(seeds=SEEDS, gaps=GAPS, **small):
    cases = [(encoding, seed) for encoding in ("relative", "absolute") for seed in range(seeds)]
    flips, bo = zip(*drawing.each(partial(one_run, gaps=gaps, **small), cases))
    return {"gaps": np.array(gaps), "bo": np.reshape(bo, (2, seeds)),
            "flips": np.reshape(flips, (2, seeds, *flips[0].shape))}


def shown(axis, gaps, k, row, fmt, **options):
    """Repetitions k (gaps,) as they are; those of NEVER in a row of their own, which no line enters."""
    axis.plot(gaps, np.where(k < NEVER, k, np.nan), fmt, **options)
    axis.plot(gaps, np.where(k < NEVER, np.nan, row), fmt.replace("--", "_").replace("-", "_"), **options)


def plot(data):
    figure, axes = drawing.plt.subplots(1, 2, figsize=(13, 9), sharex=True, sharey=True)
    # Each (near and far, seeds, gaps, models and theories).
    gaps, (relative, absolute) = data["gaps"], data["flips"].swapaxes(1, 2)
    blue, orange, black = (drawing.COLOURS[name] for name in ("constructed", "trained", "theory"))
    titles = ("24 words, as in training:\nboth do what theory says",
              '48 words, "Paris" only in the last 24:\nthe trained one needs more than I3 says')
    for axis, flips, title in zip(axes, relative, titles):
        axis.axhspan(NEVER - 0.5, NEVER + 1.5, color="0.92", linewidth=0)
        for shift, seed in zip(np.linspace(-0.2, 0.2, len(flips)), flips):
            shown(axis, gaps, seed[:, 1], NEVER + 1, "s", color=blue, markersize=14)
            shown(axis, gaps + shift, seed[:, 0], NEVER, "o", color=orange, markersize=9)
        middle = np.median(flips, axis=0)
        shown(axis, gaps, middle[:, 3], NEVER + 1, "--", color=black, markersize=30)
        shown(axis, gaps, middle[:, 2], NEVER, "-", color=black, markersize=30)
        axis.axvline(np.median(data["bo"][0]), color=black, linewidth=1, linestyle=":")
        axis.text(np.median(data["bo"][0]) - 0.05, 2.5, "trained $b_o$", rotation=90, ha="right")
        axis.set(title=title, ylim=(0, NEVER + 1.5), xlabel="preference Δ for France [nats]")
        axis.set_yticks([*REPETITIONS, NEVER + 0.5], [*map(str, REPETITIONS), "never\nwithin 8"])
    axes[0].set_ylabel('repetitions of "Paris Japan" needed')
    axes[0].text(gaps[0], 0.45, "trained, five seeds", color=orange)
    axes[0].text(gaps[0], 1.2, "theory I3")
    axes[0].text(gaps[0] - 0.1, 5.2, "constructed,\nweak $b_2$", color=blue)
    axes[0].text(gaps[0] + 0.6, 3.3, "theory I5")
    differ, never = (relative[0] != absolute[0])[:, :, :2], absolute[1][:, :, :2] == NEVER
    figure.supxlabel(f"Absolute positions: at 24 words {differ.sum()} of {differ.size} runs differ; "
                     f"at 48 words {never.sum()} of {never.size} never repeat it.", fontsize=16)
    return figure


if __name__ == "__main__":
    drawing.main("analogies", compute, plot)
