"""Attention of both layers, constructed and trained from zero, on a prompt that one can read.

Layer 1 looks at the previous character; layer 2, at a trigger, looks at what followed its earlier copies
(claims I1, I4; their pairs are framed). Triggers are the five most frequent characters: space, e, t, a, s.
The prompt begins with none, which would have nothing but itself to look at. In other rows layer 2 has nothing
to look for, and the construction, which has the trained model's strengths, is uniform. Ten seconds.
"""

import drawing
import numpy as np
import training
from refimpl import induction
from refimpl.induction import probes

PROMPT, SEED, STEPS = "moth, month, mat", 0, 150


def compute(steps=STEPS, d=training.WIDTH):
    bigram, rng = training.text_bigram(), np.random.default_rng(SEED)
    tokens = np.array([bigram.chars.index(c) for c in PROMPT])
    params = training.trained(bigram, induction.init(training.V, d, training.LENGTH, rng), rng, steps)
    strengths = probes.effective_strengths(params, training.TRIGGERS)
    frame = induction.orthonormal_frame(training.V, len(tokens), rng)
    constructed = induction.construct(frame, bigram, training.TRIGGERS, *np.maximum(strengths, 0))
    data = training.ORIGIN | {"strengths": np.array(strengths),
                              "triggers": "".join(bigram.chars[:training.TRIGGERS])}
    for name, model in (("constructed", constructed), ("trained", params)):
        trace = induction.forward(model, tokens)
        data |= {name + " layer 1": trace.attention1, name + " layer 2": trace.attention2}
    return data


def expected(layer, triggers):
    """Pairs t, s where theory looks: the previous token, or what followed earlier copies of a trigger."""
    if layer == "layer 1":
        return [(t, t - 1) for t in range(1, len(PROMPT))]
    return [(t, s) for t, query in enumerate(PROMPT) if query in triggers
            for s in range(1, t + 1) if PROMPT[s - 1] == query]


def plot(data):
    figure, axes = drawing.plt.subplots(2, 2, figsize=(13, 9.5), sharex=True, sharey=True)
    characters = [c.replace(" ", "␣") for c in PROMPT]
    titles = {"layer 1": "layer 1: the previous character", "layer 2": "layer 2: what followed the trigger"}
    for row, name in zip(axes, ("constructed", "trained")):
        for axis, layer in zip(row, titles):
            image = axis.imshow(data[f"{name} {layer}"], vmin=0, vmax=1, aspect="auto")
            for t, s in expected(layer, str(data["triggers"])):
                axis.add_patch(drawing.plt.Rectangle((s - 0.5, t - 0.5), 1, 1, fill=False, linewidth=2.5,
                                                     edgecolor=drawing.RED))
            axis.set(xticks=range(len(PROMPT)), yticks=range(len(PROMPT)), xticklabels=characters,
                     yticklabels=characters)
            axis.grid(False)
        row[0].set_ylabel(f"{name}: who asks (query)")
    for above, below, title in zip(*axes, titles.values()):
        above.set_title(title)
        below.set_xlabel("who is looked at (key)")
    figure.colorbar(image, ax=axes, label="attention; framed: where theory looks (I1, I4)", shrink=0.8)
    return figure


if __name__ == "__main__":
    drawing.main("attention", compute, plot)
