"""Attention of both layers, constructed and trained from zero, on a prompt that one can read.

Layer 1 looks at the previous token; layer 2, at a trigger, looks at what followed its earlier copies, and at
the first token if that is the trigger, which has nothing but itself to look at (claim I4). Triggers are the
five most frequent characters: space, e, t, a, s. In other rows layer 2 has nothing to look for, and the
construction, which has the trained model's strengths, is uniform. Ten seconds.
"""

import drawing
import numpy as np
import training
from refimpl import induction
from refimpl.induction import probes

PROMPT, SEED, STEPS = "the moth hid; then t", 0, 150


def compute(steps=STEPS, d=training.WIDTH):
    bigram, rng = training.text_bigram(), np.random.default_rng(SEED)
    tokens = np.array([bigram.chars.index(c) for c in PROMPT])
    params = training.trained(bigram, induction.init(training.V, d, training.LENGTH, rng), rng, steps)
    strengths = probes.effective_strengths(params, training.TRIGGERS)
    frame = induction.orthonormal_frame(training.V, len(tokens), rng)
    constructed = induction.construct(frame, bigram, training.TRIGGERS, *np.maximum(strengths, 0))
    data = training.ORIGIN | {"strengths": np.array(strengths)}
    for name, model in (("constructed", constructed), ("trained", params)):
        trace = induction.forward(model, tokens)
        data |= {name + " layer 1": trace.attention1, name + " layer 2": trace.attention2}
    return data


def plot(data):
    figure, axes = drawing.plt.subplots(2, 2, figsize=(10, 9.6))
    characters = [c.replace(" ", "␣") for c in PROMPT]
    for row, name in zip(axes, ("constructed", "trained")):
        for axis, layer in zip(row, ("layer 1", "layer 2")):
            image = axis.imshow(data[f"{name} {layer}"], vmin=0, vmax=1)
            axis.set(title=f"{name}, {layer}", xticks=range(len(PROMPT)), yticks=range(len(PROMPT)),
                     xticklabels=characters, yticklabels=characters, xlabel="key", ylabel="query")
            axis.grid(False)
    figure.colorbar(image, ax=axes, label="attention", shrink=0.6)
    return figure


if __name__ == "__main__":
    drawing.main("attention", compute, plot)
