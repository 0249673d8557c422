"""What the one-layer model with a memory of facts does, in one picture: infer the relation, then recall.

Above, the parts of the model over a prompt of months. Below, where the last token looks, in both steps,
before and after fine-tuning on 24 other prompts. Ten seconds.
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


def diagram(axis, data):
    """The parts of the model over the prompt; the arrows go to the pair that won."""
    first = 2 * data["after_infer"][:4].reshape(2, 2).sum(axis=1).argmax()
    relation, answer = data["after_relation"] + 1, MONTHS[data["after_answer"]]
    places = (0.8, 2.4, 3.9, 5.5, 7.1)
    axis.set(xlim=(0, 13), ylim=(-1.5, 3.2))
    axis.axis("off")
    blue, orange, green = drawing.BLUE, drawing.ORANGE, drawing.GREEN
    for x, word in zip(places, QUESTION):
        box(axis, x, 0, word)
    for x in places[first:first + 2]:
        arrow(axis, (7.1, 0), (x, 0), blue, 0.25)
    axis.text(3.9, -0.95, "the last token looks at one pair (WKQ)", color=blue, fontsize=13, ha="center")
    box(axis, 9.6, 0, "memory of facts", orange)
    axis.text(9.6, -0.95, f"{QUESTION[first]} + {QUESTION[first + 1]}\nis a fact it knows (W1, W2)",
              color=orange, fontsize=13, ha="center", va="center")
    arrow(axis, (7.6, 0), (8.5, 0), orange, 0)
    box(axis, 9.6, 1.5, f"{relation} months later", green)
    arrow(axis, (9.6, 0), (9.6, 1.5), green, 0)
    box(axis, 9.6, 2.8, f"October + {relation} months later: {answer}", green)
    arrow(axis, (9.6, 1.5), (9.6, 2.8), green, 0)
    axis.text(9.0, 0.75, "1. infer", color=green, fontsize=13, ha="right", va="center")
    axis.text(9.0, 2.15, "2. recall", color=green, fontsize=13, ha="right", va="center")


def plot(data):
    figure = drawing.plt.figure(figsize=(13, 8.6))
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 2.4))
    diagram(figure.add_subplot(grid[0, :]), data)
    words = [*QUESTION, f"{data['after_relation'] + 1} months\nlater"]
    for column, (step, title) in enumerate((("infer", "1. infer: which relation?"),
                                            ("recall", "2. recall: whose answer?"))):
        axis = figure.add_subplot(grid[1, column])
        count = len(data[f"after_{step}"])
        for shift, name, colour in ((-0.2, "before", "#bbbbbb"), (0.2, "after", drawing.BLUE)):
            axis.bar(np.arange(count) + shift, data[f"{name}_{step}"], 0.38, color=colour,
                     label=f"{name} fine-tuning")
        axis.set_xticks(range(count), words[:count], fontsize=11)
        axis.set(ylim=(0, 0.6), ylabel="attention")
        axis.set_title(title, fontsize=15, loc="left", weight="bold")
        axis.grid(False)
    axis.legend(fontsize=12, loc="upper left")
    return figure


if __name__ == "__main__":
    drawing.main("recall_introduction", compute, plot)
