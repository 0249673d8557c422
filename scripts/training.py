"""Training runs and prompts that the figures of system I share.

Text: the help topics of Python's own documentation (`pydoc_data.topics`), its 65 most frequent characters,
all others dropped. Recipe: Gaussian embeddings of width 128, trained weights from zero, 64 sequences of 64
characters a step, the 5 most frequent characters as triggers, uniform outputs, momentum 0.9, weight decay
1e-4. The step sizes are those of fig_step_size.
"""

import hashlib
import platform
from functools import partial

import numpy as np
from pydoc_data.topics import topics

from refimpl import induction, sgd

V, WIDTH, LENGTH, BATCH, TRIGGERS = 65, 128, 64, 64, 5
HEAD = ("WK1", "WK2", "WO")
ALL = HEAD + ("WF",)
# Options of `steps`, the step size among them.
SETTINGS = {
    "head": {"lr": 10.0},
    "absolute": {"lr": 10.0, "encoding": "absolute"},
    "drawn": {"lr": 5.0, "drawn": True},
    "head, WF": {"lr": 2.0, "trained": ALL},
    "all": {"lr": 6.0, "positions": "all", "trained": ALL},
}
TEXT = "\n".join(topics.values())
# What the numbers depend on beside the code; saved with them.
ORIGIN = {"python": platform.python_version(), "text_sha256": hashlib.sha256(TEXT.encode()).hexdigest()}


def text_bigram():
    """Bigram of the text; Laplace's rule leaves no zeros, so that every pair has a logarithm."""
    return induction.Bigram.from_text(TEXT, V, prior=1.0)


def steps(bigram, start, rng, count, lr=SETTINGS["head"]["lr"], positions="head", encoding="relative",
          trained=HEAD, length=LENGTH, triggers=TRIGGERS, outputs="uniform", drawn=False):
    """Train from the Params `start` and yield `count` sgd.Steps; the loss is on "head" positions or "all"."""
    def batches():
        for _ in range(count):
            batch = induction.sample(bigram, BATCH, length, rng, triggers, outputs, drawn)
            yield batch.tokens, head(batch) if positions == "head" else np.ones(batch.occurrence.shape, bool)
    gradient = induction.tables.loss_and_grads if encoding == "relative" else \
        partial(induction.loss_and_grads, encoding=encoding)
    return sgd.train(start, batches(), gradient, lr, momentum=0.9, weight_decay=1e-4, trained=trained)


def trained(*arguments, **options):
    """The Params after the last of these `steps`."""
    for last in steps(*arguments, **options):
        pass
    return last.params


def head(batch):
    """Where the output can be known from the context: the trigger has been seen before."""
    return batch.occurrence >= 2


def measure(params, bigram, batch, encoding="relative"):
    """Head accuracy, and the mean divergence KL(pi_b[z_t] ‖ model), in nats, where z_t is no trigger."""
    right, divergence = [], []
    for z, occurrence in zip(batch.tokens, batch.occurrence):
        logits = induction.forward(params, z[:-1], encoding).logits
        right.append((logits.argmax(axis=1) == z[1:])[occurrence >= 2])
        plain = occurrence == 0
        log_p = logits[plain] - np.logaddexp.reduce(logits[plain], axis=1, keepdims=True)
        pi_b = bigram.pi_b[z[:-1][plain]]
        divergence.append((pi_b * (np.log(pi_b) - log_p)).sum(axis=1))
    return np.concatenate(right).mean(), np.concatenate(divergence).mean()


def rivals(bigram, rng, triggers=TRIGGERS):
    """A trigger q, any other token u, and w, the most probable successor of q: all different."""
    q = rng.integers(triggers)
    w = np.where(np.arange(len(bigram.pi_u)) == q, 0, bigram.pi_b[q]).argmax()
    return q, rng.choice(np.setdiff1d(np.arange(len(bigram.pi_u)), [q, w])), w


def designed_prompt(bigram, rng, q, u, w, repetitions, length):
    """T = length tokens: copies of q→u among distractors drawn from pi_u, which are none of q, u, w; then q.

    The first token is a distractor: at least 2 · repetitions + 2 tokens.
    """
    others = np.setdiff1d(np.arange(len(bigram.pi_u)), [q, u, w])
    p = bigram.pi_u[others] / bigram.pi_u[others].sum()
    distractors = rng.choice(others, length - 2 * repetitions - 1, p=p)
    pieces = [[q, u]] * repetitions + [[v] for v in distractors[1:]]
    shuffled = [pieces[i] for i in rng.permutation(len(pieces))]
    return np.concatenate([distractors[:1], *shuffled, [q]]).astype(int)


def spread(values, axis=0):
    """Median, lowest and highest over the seeds."""
    return np.median(values, axis), np.min(values, axis), np.max(values, axis)
