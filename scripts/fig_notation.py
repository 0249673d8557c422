"""The notation on one page: symbol, shape, meaning, the literature's name, where it is used. One second."""

import drawing
import numpy as np

# symbol, shape, meaning, elsewhere, where
SHEET = {
    "Sizes and indices": [
        ("V, T, d, L", "", "tokens known, tokens of a sequence, width, position vectors", "", "both"),
        ("t, s", "", "query position, key position (in recall s is a subject)", "", "both"),
        ("z_t, o", "", "token at position t; output of a trigger", "", "both; induction"),
        ("q, u, w; Q", "", "trigger; token that context, or pretraining, prefers; all triggers", "",
         "induction"),
        ("k, T*, k*", "", "repetitions of q→u; the context wins where T < T*, k > k*", "", "induction"),
        ("N, R, n", "", "subjects (and answers), relations, pairs in a prompt", "", "recall"),
        ("i, r, a", "", "pair, relation, answer", "", "recall"),
        ("dp, m", "", "width of a position vector, hidden units of the memory", "", "recall")],
    "System I": [
        ("E, U, pos", "(V, d), (V, d), (L, d)", "token embeddings, unembeddings, positions",
         "W_E, W_U, W_pos", "model.py"),
        ("WK1, WK2", "(d, d)", "keys of layers 1 and 2; queries use the identity", "QK matrices", "model.py"),
        ("Phi; WO WV", "(d, d)", "what layers 1 and 2 write into the stream", "OV matrices", "model.py"),
        ("WF", "(d, d)", "feed-forward memory: the bigrams of pretraining", "MLP, linear", "model.py"),
        ("b1, b2, bo", "", "strengths of WK1, WK2, WO when written by hand", "β", "memory.py"),
        ("A1, A2; S1, S2", "(T, T)", "attention and scores of the layers", "attention pattern", "model.py"),
        ("x0, x1, x2", "(T, d)", "activations: embedding, after layer 1, after layer 2", "residual stream",
         "model.py"),
        ("pi_u, pi_b, pi_o", "(V,), (V, V), (V, V)",
         "laws of a token, of its successor, of outputs", "", "task.py"),
        ("Δ", "nats", "log pi_b[q, w] / pi_b[q, u]: how much the habit prefers w", "", "theory/"),
        ("C, C_u; p_u", "", "tokens after q, u among them; attention that u has", "", "theory/"),
        ("c, h, g", "(T, V)", "tokens that layer 1, layer 2, layer 2 through layer 1 bring", "",
         "tables/"),
        ("EE, EP, PE, PP", "(T, T)", "blocks of S2: the token itself (E) or what layer 1 brought (P)", "",
         "tables/")],
    "System R": [
        ("E, U, P", "(V, d), (V, d), (2n+2, dp)", "tokens, unembeddings, positions; V = 2N+R", "",
         "model.py"),
        ("WKQ", "(d+dp, d+dp)", "queries by keys, of token and position", "QK matrix", "model.py"),
        ("W1, b1, W2", "(m, d), (m,), (d, m)", "the memory: keys, biases (−b), values", "MLP", "model.py"),
        ("g(s, r), ρ(s, a)", "", "answer of a subject and relation; relation, or none", "", "task.py"),
        ("α; x, h", "(T,); (d,), (m,)", "attention of the last token; what it brings, hidden units", "",
         "model.py"),
        ("w; u, v, α_r", "(2n+1,), (2n+2,)", "position logits; attention on subjects, answers, relation", "",
         "theory/"),
        ("λ (lam), φ", "", "strength of the memory; its activation, x² or relu", "", "memory.py"),
        ("m, σ", "nats; none", "margin of the true relation; probability of all wrong ones", "", "theory/"),
        ("x*", "", "weight on the query at which the recall loss is least", "", "theory/"),
        ("M, k, c", "", "training prompts, their relations; their scores ÷ those of new ones",
         "", "theory/"),
        ("p, p_e", "", "share of answers redrawn; of wrong ones, p (1 − 1/N)", "", "theory/")],
    "Training": [
        ("lr, μ, wd", "", "step size, momentum, weight decay, as in PyTorch", "", "sgd.py"),
        ("t", "steps × lr", "time of the gradient flow", "", "theory/"),
        ("dX", "as X", "gradient: the derivative of the loss by X; losses in nats", "∂L/∂X", "everywhere")]}
COLUMNS = (0.0, 0.13, 0.36, 0.76, 0.9)


def compute():
    """The rows as text."""
    return {name: np.array(rows) for name, rows in SHEET.items()}


def plot(data):
    figure, axis = drawing.plt.subplots(figsize=(13, 11.6))
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.axis("off")
    count = sum(len(rows) + 1.4 for rows in data.values()) + 1
    y = count
    for x, title in zip(COLUMNS, ("symbol", "shape, unit", "meaning", "elsewhere", "where")):
        axis.text(x, y / count, title, fontsize=12, color="#777777", va="top")
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
