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


def plot(data):
    figure, axes = drawing.plt.subplots(2, 2, figsize=(11, 7.6), sharex=True, sharey=True)
    for row, by_seed, bo, encoding in zip(axes, data["flips"], data["bo"], ("relative", "absolute")):
        for axis, where, flips in zip(row, ("near: 24 words", "far: the last 24 of 48 words"),
                                      by_seed.swapaxes(0, 1)):
            for column, name, style in ((3, "I5, for the constructed model", "--"),
                                        (2, "I3, for the trained one", "-")):
                axis.plot(data["gaps"], np.median(flips[:, :, column], axis=0), style,
                          color=drawing.COLOURS["theory"], label=name)
            for column, name, marker, shift in ((1, "constructed, weak $b_2$", "s", -0.05),
                                                (0, "trained", "o", 0.05)):
                middle, low, high = training.spread(flips[:, :, column])
                axis.errorbar(data["gaps"] + shift, middle, yerr=[middle - low, high - middle], fmt=marker,
                              capsize=3, color=drawing.COLOURS[name.split(",")[0]], label=name)
            axis.axvline(np.median(bo), color=drawing.BLACK, linewidth=0.8, linestyle=":")
            axis.set(title=f"{encoding} positions, {where}", ylim=(0, NEVER + 0.6))
            axis.set_yticks([*REPETITIONS, NEVER], [*map(str, REPETITIONS), "never"])
        row[0].set_ylabel('repetitions of "Paris Japan" needed')
    for axis in axes[1]:
        axis.set_xlabel("preference Δ of the bigram for France [nats] (dotted: trained $b_o$)")
    axes[1, 1].legend(loc="lower left", bbox_to_anchor=(0.02, 0.06))
    return figure


if __name__ == "__main__":
    drawing.main("analogies", compute, plot)
