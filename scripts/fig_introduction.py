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
    axis.text(x, y, text, ha="center", va="center", fontsize=15, color=colour,
              bbox=dict(boxstyle="round,pad=0.35", facecolor="white", edgecolor=colour, linewidth=1.5))


def arrow(axis, start, end, colour, bend):
    axis.annotate("", end, start, arrowprops=dict(
        arrowstyle="-|>", color=colour, linewidth=2.5, shrinkA=16, shrinkB=18,
        connectionstyle=f"arc3,rad={bend}"))


def diagram(axis):
    """The memories as arrows over a prompt."""
    axis.set(xlim=(0, 13), ylim=(-1.6, 3.7))
    axis.axis("off")
    for x, word in zip((0.9, 2.9, 4.5, 6.1), ("Paris", "Japan", "…", "Paris")):
        box(axis, x, 0, word)
    blue, orange, green, purple = (drawing.COLOURS[name] for name in ("WK1", "WK2", "WO", "WF"))
    arrow(axis, (2.9, 0), (0.9, 0), blue, -0.5)
    axis.text(1.9, -1.15, "layer 1 notes who came before\n(memory WK1, strength $b_1$)", color=blue,
              fontsize=13, ha="center", va="center")
    arrow(axis, (6.1, 0), (2.9, 0), orange, 0.5)
    axis.text(5.6, 1.05, "layer 2 looks for what followed Paris\n(WK2, $b_2$)", color=orange, fontsize=13,
              va="center")
    box(axis, 10.6, 2.9, "Japan", green)
    box(axis, 10.6, 0, "France", purple)
    arrow(axis, (2.9, 0.2), (10.2, 2.9), green, -0.32)
    axis.text(7.3, 2.3, "and copies it: the context\n(WO, $b_o$)", color=green, fontsize=13, ha="center")
    arrow(axis, (6.1, 0), (10.3, 0), purple, 0)
    axis.text(8.4, -0.62, "the habit: after Paris\ncomes France (WF, Δ)", color=purple, fontsize=13,
              ha="center", va="center")
    axis.text(10.6, 1.45, "which\nwins?", fontsize=15, ha="center", va="center", weight="bold")


def plot(data):
    figure, (top, *rows) = drawing.plt.subplots(3, 1, figsize=(13, 8.4), height_ratios=(3.4, 1.5, 1.5))
    diagram(top)
    titles = ("said three times: the context wins", "said once: the habit hijacks it")
    for axis, name, prompt, title in zip(rows, ("context", "habit"), PROMPTS, titles):
        words, attention, p = prompt.split(), data[f"{name}_attention"], data[f"{name}_probability"]
        axis.bar(range(len(words)), attention, color=drawing.COLOURS["WK2"], width=0.75)
        axis.set_xticks(range(len(words)), words, rotation=40, ha="right", fontsize=12)
        axis.set(ylim=(0, 0.55), yticks=(0, 0.5), ylabel="attention")
        axis.yaxis.label.set_fontsize(13)
        axis.grid(False)
        axis.set_title(title, fontsize=15, loc="left", weight="bold")
        for x, word, share, colour in zip((len(words) + 1.4, len(words) + 4.4), SHOWN, p,
                                          (drawing.COLOURS["WO"], drawing.COLOURS["WF"])):
            axis.text(x, 0.27, f"{word}\n{share:.0%}", fontsize=18 if share > 0.5 else 14, color=colour,
                      ha="center", va="center", weight="bold" if share > 0.5 else "normal")
        axis.set_xlim(-0.6, len(words) + 6)
        axis.text(len(words) + 0.1, 0.02, "→", fontsize=18)
    return figure


if __name__ == "__main__":
    drawing.main("introduction", compute, plot)
