"""What the two-layer model does, in one picture: where the context wins, and where the habit hijacks it.

Above, the four memories of the constructed model, drawn over a prompt. Below, the model's own forward pass on
two prompts that differ in one thing, how often they say "Paris Japan". The habit, a bigram learned in
pretraining, prefers France by Δ = 5 nats. Two seconds.
"""

import drawing
import numpy as np
from fig_analogies import CITIES, WORDS, pretrained
from refimpl import induction

STRENGTHS, GAP = dict(b1=6.0, b2=3.0, bo=9.0), 5.0
FILLERS = "the and of to"
PROMPTS = (f"{FILLERS} Rome Paris Japan {FILLERS} Paris Japan {FILLERS} Paris Japan Lima Paris",
           f"{FILLERS} Rome Paris Japan {FILLERS} Oslo Tokyo {FILLERS} Cairo Oslo Lima Paris")
SHOWN = ("Japan", "France")


def compute():
    """Attention of the last position in layer 2 and probabilities of the two answers, prompt by prompt."""
    rng = np.random.default_rng(0)
    frame = induction.orthonormal_frame(len(WORDS), 32, rng)
    params = induction.construct(frame, pretrained(GAP), range(len(CITIES)), **STRENGTHS)
    answers = [WORDS.index(word) for word in SHOWN]
    data = {}
    for name, prompt in zip(("context", "habit"), PROMPTS):
        trace = induction.forward(params, [WORDS.index(word) for word in prompt.split()])
        p = np.exp(trace.logits[-1] - trace.logits[-1].max())
        data[f"{name}_attention"] = trace.attention2[-1]
        data[f"{name}_probability"] = (p / p.sum())[answers]
    return data


def box(axis, x, y, text, colour=drawing.BLACK):
    axis.text(x, y, text, ha="center", va="center", fontsize=18, color=colour,
              bbox=dict(boxstyle="round,pad=0.35", facecolor="white", edgecolor=colour, linewidth=2))


def arrow(axis, start, end, colour, bend):
    axis.annotate("", end, start, arrowprops=dict(
        arrowstyle="-|>", color=colour, linewidth=3, shrinkA=0, shrinkB=0, mutation_scale=22,
        connectionstyle=f"arc3,rad={bend}"))


def diagram(axis):
    """The memories as arrows over a prompt."""
    axis.set(xlim=(0, 13), ylim=(-1.6, 3.3))
    axis.axis("off")
    for x, word in zip((1.0, 3.0, 4.6, 6.2), ("Paris", "Japan", "…", "Paris")):
        box(axis, x, 0, word)
    blue, orange, green, purple = (drawing.COLOURS[name] for name in ("WK1", "WK2", "WO", "WF"))
    axis.text(0, 2.6, "The prompt says Paris Japan,\npretraining says Paris France.", fontsize=18,
              weight="bold", va="center")
    arrow(axis, (2.9, -0.4), (1.1, -0.4), blue, -0.4)
    axis.text(2.0, -1.25, "WK1, strength $b_1$: layer 1\nnotes what came before", color=blue,
              ha="center", va="center")
    arrow(axis, (6.0, 0.4), (3.2, 0.4), orange, 0.4)
    axis.text(5.9, 0.95, "WK2, $b_2$: layer 2 finds\nwhat followed Paris", color="#a86f00", va="center")
    box(axis, 11.4, 2.6, "Japan", green)
    box(axis, 11.4, 0, "France", purple)
    arrow(axis, (2.9, 0.4), (10.7, 2.6), green, -0.28)
    axis.text(8.2, 2.3, "WO, $b_o$: and copies it", color=green, ha="center")
    arrow(axis, (6.9, 0), (10.6, 0), purple, 0)
    axis.text(8.7, -0.65, "WF: the habit, Paris France,\nis ahead by Δ", color=purple, ha="center",
              va="center")
    axis.text(11.4, 1.3, "which\nwins?", fontsize=18, ha="center", va="center", weight="bold")


def plot(data):
    figure, (top, *rows) = drawing.plt.subplots(3, 1, figsize=(13, 9.2), height_ratios=(3.2, 1.3, 1.3))
    diagram(top)
    titles = "Said three times, the context wins", "Said once, the habit hijacks it"
    for axis, name, prompt, title in zip(rows, ("context", "habit"), PROMPTS, titles):
        words, attention, p = prompt.split(), data[f"{name}_attention"], data[f"{name}_probability"]
        share = sum(weight for weight, word in zip(attention, words) if word == SHOWN[0])
        gain = share * STRENGTHS["bo"]
        axis.bar(range(len(words)), attention, color=drawing.COLOURS["WK2"], width=0.75)
        axis.set_xticks(range(len(words)), words, rotation=40, ha="right", rotation_mode="anchor")
        for label in axis.get_xticklabels():
            label.set_weight("bold" if label.get_text() in ("Paris", *SHOWN) else "normal")
        axis.set(ylim=(0, 0.55), yticks=(0, 0.5), ylabel="attention", xlim=(-0.6, len(words) + 6))
        axis.grid(False)
        axis.set_title(title, loc="left", weight="bold", fontsize=18)
        axis.set_title(f"$b_o$ × attention {share:.2f} on Japan = {gain:.1f} nats "
                       f"{'>' if gain > GAP else '<'} Δ = {GAP:g} nats", loc="right")
        for y, word, chance, colour in zip((0.38, 0.12), SHOWN, p, (drawing.COLOURS["WO"],
                                                                    drawing.COLOURS["WF"])):
            axis.text(len(words) + 0.2, y, f"→ {word} {100 * chance:.0f} %", color=colour, va="center",
                      fontsize=22 if chance > 0.5 else 16, weight="bold" if chance > 0.5 else "normal")
    return figure


if __name__ == "__main__":
    drawing.main("introduction", compute, plot)
