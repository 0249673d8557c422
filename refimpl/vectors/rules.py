"""Mistakes in a step of SGD: rules that take its number n, w, g, b(uffer), lr, momentum and weight decay.

They give the new w and b, as `equations.right_step`.
"""

import numpy as np

from refimpl.vectors.equations import Edit, right_step


def stepping(lr=lambda n, lr: lr, momentum=lambda mu: mu, weight_decay=lambda wd: wd):
    """The right step with other settings."""
    return lambda n, w, g, b, rate, mu, wd: right_step(
        n, w, g, b, lr(n, rate), momentum(mu), weight_decay(wd))


def clipped(largest):
    """Gradients shortened to this norm, all fields together."""
    def gather(history):
        norm = np.sqrt(sum((g ** 2).sum() for g in history[-1]))
        return [g * min(1, largest / norm) if norm else g for g in history[-1]]
    return gather


RULES = (
    ("weight decay decoupled", lambda n, w, g, b, lr, mu, wd: (w - lr * ((b := mu * b + g) + wd * w), b)),
    *(("momentum with dampening", lambda n, w, g, b, lr, mu, wd, spared=spared: (
        w - lr * (b := mu * b + (1 if n <= spared else 1 - mu) * (g + wd * w)), b)) for spared in (1, 0)),
    ("momentum with Nesterov", lambda n, w, g, b, lr, mu, wd: (
        w - lr * (g + wd * w + mu * (b := mu * b + g + wd * w)), b)),
    *(("learning rate applied twice", lambda n, w, g, b, lr, mu, wd, k=k: (
        w - lr ** (2 - k) * (b := mu * b + lr ** k * (g + wd * w)), b)) for k in (0, 1, 2)),
    ("learning rate inside the momentum buffer", lambda n, w, g, b, lr, mu, wd: (
        w - (b := mu * b + lr * (g + wd * w)), b)),
    ("weight decay ignored", stepping(weight_decay=lambda wd: 0)),
    ("weight decay always on", stepping(weight_decay=lambda wd: 0.01)),
    ("weight decay subtracted", stepping(weight_decay=lambda wd: -wd)),
    ("momentum ignored", stepping(momentum=lambda mu: 0)),
    ("momentum always on", stepping(momentum=lambda mu: 0.9)),
    ("gradient ascent", stepping(lambda n, lr: -lr)),
    *((f"warm-up of the learning rate over {steps} steps", stepping(
        lambda n, lr, steps=steps: lr * min(1, n / steps))) for steps in (2, 3, 5, 10, 100, 1000)),
    ("frozen", lambda n, w, g, b, lr, mu, wd: (w, 0 * b)),
)
STEPS = (
    *(Edit(words, rule=rule) for words, rule in RULES),
    Edit("all fields move", case=lambda case: case._replace(sgd={**case.sgd, "trained": None})),
    Edit("gradients added up over the steps (zero_grad forgotten)",
         gather=lambda history: [sum(gs) for gs in zip(*history)]),
    *(Edit(f"gradients clipped to norm {n}", gather=clipped(n)) for n in (0.1, 0.25, 0.5, 1.0, 5.0)),
)
