"""January April, May August, October …? Fine-tune attention, answer, and show where it looks.

The memory holds the table; fine-tuning moves WKQ alone, all of it, on prompts that never show the
question's subjects or its relation. Then the same for intervals between notes. Run time: some seconds.
"""

from itertools import repeat

import numpy as np
from scipy.special import softmax

from refimpl import recall, sgd
from refimpl.recall.task import INTERVALS, MONTHS, PITCHES

LAM, PROMPTS, STEPS, LR, START = 10.0, 48, 300, 0.3, 0.1
MONTHS_LATER = [f"{k} month{'s' if k > 1 else ''} later" for k in range(1, 12)]


def other_prompts(facts, subjects, relation, rng):
    """Random prompts of other subjects and other relations."""
    prompts = recall.sample(facts, len(subjects) - 1, 100 * PROMPTS, rng)
    other = ~np.isin(prompts.subjects, subjects).any(axis=1) & (prompts.relation != relation)
    chosen = np.flatnonzero(other)[:PROMPTS]
    return prompts._replace(subjects=prompts.subjects[chosen], relation=prompts.relation[chosen],
                            answers=prompts.answers[chosen])


def both(params, *steps):
    """Loss and gradients of both steps together."""
    (a, da), (b, db) = (recall.batched.loss_and_grads(params, *step) for step in steps)
    return a + b, params._make(x + y for x, y in zip(da, db))


def ask(facts, names, relations, question, relation, rng):
    """Fine-tune on everything else; print the answers of both steps and the attention; return the answer."""
    subjects = np.array([names.index(name) for name in question])
    prompts = other_prompts(facts, subjects, relation, rng)
    params, n = recall.construct(facts, len(subjects) - 1, LAM), len(subjects) - 1
    d = params.E.shape[1]
    params.WKQ[d:, d:] = rng.normal(0, START, (2 * n + 2, 2 * n + 2))   # equal pairs would stay equal
    for last in sgd.train(params, repeat((prompts.infer(), prompts.recall()), STEPS), both, LR,
                          trained=("WKQ",)):
        pass
    print(f"fine-tuned on {len(prompts.relation)} prompts without {', '.join(question)} and without "
          f"“{relations[relation]}”: loss {last.loss:.3f} nats")
    shown = recall.Prompts(facts.N, facts.R, subjects[None], np.array([relation]),
                           facts.answer(subjects, relation)[None])
    labels = [*names, *names, *relations[:facts.R]]
    tokens, _, slot = shown.infer()
    inferred = show(last.params, tokens[0], slot, labels)
    # The second step is given what the first one said, right or wrong.
    tokens, _, slot = shown.recall()
    tokens[0, -1] = inferred
    return labels[show(last.params, tokens[0], slot, labels)]


def show(params, tokens, slot, labels):
    """Print the prompt with its attention, and the answer with its probability; return its token."""
    trace = recall.forward(params, tokens)
    p = softmax(trace.logits[slice(*slot)])
    for token, weight in zip(tokens, trace.attention):
        print(f"    {labels[token]:16} {weight:5.2f}  {'#' * round(40 * weight)}")
    print(f"  -> {labels[slot[0] + p.argmax()]} (probability {p.max():.3f})\n")
    return slot[0] + p.argmax()


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    ask(recall.Facts.months(), MONTHS, MONTHS_LATER, ("January", "May", "October"), 2, rng)
    ask(recall.Facts.pitches(7), PITCHES, INTERVALS, ("C", "D", "E"), 6, rng)
