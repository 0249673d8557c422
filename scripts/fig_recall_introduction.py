"""What the one-layer model with a memory of facts does, in one picture: infer the relation, then recall.

Two rows, the two steps over a prompt of months: where the last token looks, before and after fine-tuning on
24 other prompts; what the memory of facts is thereby asked, and what it answers. Ten seconds.
"""

from fig_introduction import arrow, box

import drawing
import numpy as np
from refimpl import recall, sgd
from refimpl.recall.task import MONTHS

QUESTION = ("January", "April", "May", "August", "October")
PROMPTS, STEPS, LAM = 24, 200, 10.0


def both_steps(params, *steps):
    """Loss and gradients of the two steps together."""
    losses, grads = zip(*(recall.loss_and_grads(params, *step) for step in steps))
    return sum(losses), params._make(map(sum, zip(*grads)))


def compute(steps=STEPS):
    """Attention of the last token in both steps, before and after fine-tuning, and what is answered."""
    facts, rng = recall.Facts.months(), np.random.default_rng(1)
    start = recall.construct(facts, n=2, lam=LAM)
    train = recall.sample(facts, 2, PROMPTS, rng)
    for last in sgd.train(start, [(train.infer(), train.recall())] * steps, both_steps, 0.5, 0.9,
                          trained=("WKQ",)):
        pass
    z = np.array([MONTHS.index(name) for name in QUESTION]) + [0, 12, 0, 12, 0]
    data = {}
    for name, params in (("before", start), ("after", last.params)):
        infer = recall.forward(params, z)
        relation = infer.logits[24:].argmax()
        answer = recall.forward(params, np.append(z, 24 + relation))
        data |= {f"{name}_infer": infer.attention, f"{name}_recall": answer.attention,
                 f"{name}_relation": relation, f"{name}_answer": answer.logits[12:24].argmax()}
    return data


def remember(axis, known, result, below):
    """To the right of the attention: the memory of facts, what it is given and what it says."""
    axis.set(xlim=(0, 6), ylim=(0, 4))
    axis.axis("off")
    arrow(axis, (-0.1, 2.2), (0.75, 2.2), drawing.BLUE, 0)
    axis.text(0.3, 2.6, "WKQ", color=drawing.BLUE, ha="center")
    box(axis, 1.9, 2.2, "memory\nof facts\nW1, W2", drawing.RED)
    axis.text(1.9, 0.7, known, color=drawing.RED, ha="center", va="center")
    arrow(axis, (3.05, 2.2), (3.75, 2.2), drawing.GREEN, 0)
    box(axis, 4.85, 2.2, result, drawing.GREEN)
    axis.text(4.85, 0.7, below, color=drawing.GREEN, ha="center", va="center")


def plot(data):
    figure = drawing.plt.figure(figsize=(13, 8.8))
    grid = figure.add_gridspec(2, 2, width_ratios=(7, 6))
    first = 2 * data["after_infer"][:4].reshape(2, 2).sum(axis=1).argmax()
    months = int(data["after_relation"]) + 1
    relation, answer = f"{months} months\nlater", MONTHS[int(data["after_answer"])]
    places = [f"{word}\n{role}" for word, role in zip(QUESTION, ("subject", "answer") * 2 + ("asked",))]
    for row, (step, title, *memory) in enumerate((
            ("infer", "1. Infer the relation: look at one pair shown",
             f"{QUESTION[first]} + {QUESTION[first + 1]}:\nwhich relation?", relation,
             "the relation,\nappended below"),
            ("recall", "2. Recall the answer: look at what is asked, and the relation",
             f"{QUESTION[-1]} + {months} months\nlater: which answer?", answer, "the answer"))):
        axis, count = figure.add_subplot(grid[row, 0]), len(data[f"after_{step}"])
        for shift, name, colour in ((-0.2, "before", "#bbbbbb"), (0.2, "after", drawing.BLUE)):
            axis.bar(np.arange(count) + shift, data[f"{name}_{step}"], 0.38, color=colour)
        axis.set_xticks(range(count), [*places, relation][:count])
        axis.set(ylim=(0, 0.65), yticks=(0, 0.5), ylabel="attention")
        axis.set_title(title, fontsize=18, loc="left", weight="bold")
        axis.grid(False)
        remember(figure.add_subplot(grid[row, 1]), *memory)
        if step == "infer":
            axis.text(2.2, 0.48, "attention after fine-tuning", color=drawing.BLUE)
            axis.text(2.2, 0.38, "before: on all alike", color="#777777")
        else:
            axis.get_xticklabels()[-1].set(color=drawing.GREEN)
    figure.suptitle("Shown January April, May August: what belongs to October?", fontsize=20,
                    weight="bold")
    figure.get_layout_engine().set(h_pad=0.12)
    return figure


if __name__ == "__main__":
    drawing.main("recall_introduction", compute, plot)
