"""The notation on one page: symbol, shape, meaning, the literature's name, where it is used. One second."""

import drawing
import numpy as np

# symbol, shape, meaning, elsewhere, where
SHEET = {
    "Sizes and indices": [
        ("V, T, d, L", "", "vocabulary, tokens of a sequence, width, position vectors", "", "both"),
        ("t, s", "", "query position, key position (in recall s is a subject)", "", "both"),
        ("N, R, n", "", "subjects (and answers), relations, pairs in a prompt", "", "recall"),
        ("q, u, w", "", "trigger; token that the context, or pretraining, prefers", "", "induction"),
        ("k, T*, k*", "", "repetitions of q→u; longest, fewest with which the context wins", "",
         "induction")],
    "System I": [
        ("E, U, pos", "(V, d), (V, d), (L, d)", "token embeddings, unembeddings, positions",
         "W_E, W_U, W_pos",
         "model.py"),
        ("WK1, WK2", "(d, d)", "keys of layers 1 and 2; queries use the identity", "QK matrices", "model.py"),
        ("Phi; WO WV", "(d, d)", "what layers 1 and 2 write into the stream", "OV matrices", "model.py"),
        ("WF", "(d, d)", "feed-forward memory: the bigrams of pretraining", "MLP, linear", "model.py"),
        ("b1, b2, bo", "", "strengths of WK1, WK2, WO when written by hand", "β", "memory.py"),
        ("A1, A2; S1, S2", "(T, T)", "attention and scores of the layers", "attention pattern", "model.py"),
        ("pi_u, pi_b, pi_o", "(V,), (V, V), (V, V)",
         "laws of a token, of its successor, of outputs", "", "task.py"),
        ("Δ", "nats", "log pi_b[q, w] / pi_b[q, u]: how much the habit prefers w", "", "theory/"),
        ("c, h, g", "(T, V)", "what layer 1, layer 2, and layer 2 through layer 1 bring", "", "tables/")],
    "System R": [
        ("E, U, P", "(2N+R, d), (2N+R, d), (2n+2, dp)", "tokens, unembeddings, positions", "", "model.py"),
        ("WKQ", "(d+dp, d+dp)", "queries by keys, of token and position", "QK matrix", "model.py"),
        ("W1, b1, W2", "(m, d), (m,), (d, m)", "the memory: keys, biases, values", "MLP", "model.py"),
        ("g(s, r), ρ(s, a)", "", "answer of a subject and relation; relation, or none", "", "task.py"),
        ("w; u, v, α_r", "(2n+1,); weights", "position logits; attention on subjects, answers, relation", "",
         "theory/"),
        ("λ (lam), φ", "", "strength of the memory; its activation, x² or relu", "", "memory.py"),
        ("m, σ", "nats", "margin of the true relation; probability of all wrong ones", "", "theory/"),
        ("x*", "", "weight on the query at which the recall loss is least", "", "theory/"),
        ("M, k, c", "", "training prompts, their relations, how much more training sees", "", "theory/")],
    "Training": [
        ("lr, μ, wd", "", "step size, momentum, weight decay, as in PyTorch", "", "sgd.py"),
        ("dX", "as X", "gradient: the derivative of the loss by X; losses in nats", "∂L/∂X", "everywhere")]}
COLUMNS = (0.0, 0.13, 0.36, 0.76, 0.9)


def compute():
    """The rows as text."""
    return {name: np.array(rows) for name, rows in SHEET.items()}


def plot(data):
    figure, axis = drawing.plt.subplots(figsize=(13, 9.6))
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.axis("off")
    count = sum(len(rows) + 1.4 for rows in data.values()) + 1
    y = count
    for x, title in zip(COLUMNS, ("symbol", "shape, unit", "meaning", "elsewhere", "where")):
        axis.text(x, y / count, title, fontsize=11, color="#777777", va="top")
    for name, rows in data.items():
        y -= 1.4
        axis.text(0, y / count, name, fontsize=14, weight="bold", va="top")
        for row in rows:
            y -= 1
            for x, words in zip(COLUMNS, row):
                axis.text(x, y / count, words, fontsize=12, va="top",
                          weight="bold" if x == 0 else "normal")
    return figure


if __name__ == "__main__":
    drawing.main("notation", compute, plot)
