"""Mistakes planted into the port of `tests.port`: the table of what the checker calls them.

Each entry: the case, what is planted, and what a right name contains (None: nothing here knows it, and the
checker must say so). Without traces a port gives logits, loss, gradients and steps.
"""

import numpy as np

from tests.port import (
    content, cross_entropy, detach, gelu, layer_norm, losses, lower, mat, offsets, relu, rms_norm, softmax,
    t, vec)

ABSOLUTE, RELATIVE = "induction/random-absolute", "induction/causal"


def blockwise(S, seen, size, rescale=()):
    """Attention in blocks of keys, one after the other, against a running maximum."""
    total, weights, top = 0, np.zeros_like(S), np.full((*S.shape[:-1], 1), -np.inf)
    for start in range(0, S.shape[-1], size):
        block = np.where(seen, S, -np.inf)[..., start:start + size]
        new = np.maximum(top, block.real.max(-1, keepdims=True))
        old = np.exp(top - new)
        total = total * (old if "total" in rescale else 1) + np.exp(block - new).sum(-1, keepdims=True)
        weights = weights * (old if "weights" in rescale else 1)
        weights[..., start:start + size] = np.exp(block - new)
        top = new
    return weights / total


def both(f):
    """The same mistake in both layers: f(scores, seen)."""
    return {"attention1": lambda s: f(s.scores1, s.seen), "attention2": lambda s: f(s.scores2, s.seen)}


def positions(row):
    """Relative positions by another row."""
    return {"scores1": lambda s: lower(content(s) + offsets(s, row))}


def scaled(case, s, b, factor=1.0):
    return losses(case, s, b) * factor


def mean_of_means(case, s, b):
    mask = case.labels[b]
    return (cross_entropy(s.logits, case.tokens[b, 1:]) * mask).sum(-1) / mask.sum() / len(case.tokens)


def of_mask(change):
    def loss(case, s, b):
        weights = change(case.labels * 1.0)
        return (cross_entropy(s.logits, case.tokens[b, 1:]) * weights[b]).sum(-1)
    return loss


def smoothing(case, s, b, epsilon=0.1):
    every = [cross_entropy(s.logits, np.full(s.T, u)) for u in range(s.logits.shape[-1])]
    rows = (1 - epsilon) * cross_entropy(s.logits, case.tokens[b, 1:]) + epsilon * sum(every) / len(every)
    return (rows * case.labels[b]).sum(-1) / case.labels.sum()


def shifted(case, s, b):
    return (cross_entropy(s.logits, case.tokens[b, :-1]) * case.labels[b]).sum(-1) / case.labels.sum()


def in_slot(logits_of, target_of=lambda case, b: int(case.labels[b])):
    def loss(case, s, b):
        u, (start, stop) = np.arange(s.logits.shape[-1]), case.setting["slot"]
        logits = logits_of(s.logits, (u >= start) & (u < stop))
        return cross_entropy(logits, target_of(case, b)) / len(case.tokens)
    return loss


# name: (case, equations in place of the right ones, part of a right name)
STRUCTURE = {
    "x2 read by the feed-forward layer is x1": (
        RELATIVE, {"y": lambda s: s.x2 + mat(s.x1, s.WF)}, "y = x2 + WF x1,"),
    "residual of the feed-forward layer missing": (RELATIVE, {"y": lambda s: mat(s.x2, s.WF)}, "y = WF x2,"),
    "WF transposed": (ABSOLUTE, {"y": lambda s: s.x2 + s.x2 @ s.WF}, "WFᵀ"),
    "ReLU feed-forward": (RELATIVE, {"y": lambda s: s.x2 + relu(mat(s.x2, s.WF))}, "relu(WF x2)"),
    "GELU feed-forward": (RELATIVE, {"y": lambda s: s.x2 + gelu(mat(s.x2, s.WF))}, "gelu(WF x2)"),
    "feed-forward layer of a normalised input": (
        ABSOLUTE, {"y": lambda s: s.x2 + mat(layer_norm(s.x2), s.WF)}, "WF LayerNorm(x2)"),
    "feed-forward layer left out": (RELATIVE, {"y": lambda s: s.x2}, "y = x2,"),
    "logits of x1": (RELATIVE, {"logits": lambda s: mat(s.x1, s.U)}, "logits = U x1"),
    "logits of x2": (ABSOLUTE, {"logits": lambda s: mat(s.x2, s.U)}, "logits = U x2"),
    "final normalisation": (RELATIVE, {"logits": lambda s: mat(layer_norm(s.y), s.U)}, "U LayerNorm(y)"),
    "final RMS normalisation": (
        RELATIVE, {"logits": lambda s: mat(rms_norm(s.y), s.U)}, "U RMSNorm[eps=1e-6](y)"),
    "tied embeddings": (ABSOLUTE, {"logits": lambda s: mat(s.y, s.E)}, "logits = E y"),
    "logits divided by √d": (RELATIVE, {"logits": lambda s: mat(s.y, s.U) / 7 ** 0.5}, "1/√d"),
    "values of layer 2 from x0": (RELATIVE, {"h2": lambda s: s.attention2 @ s.x0}, "h2 = A2 x0"),
    "values of layer 2 by A1": (RELATIVE, {"h2": lambda s: s.attention1 @ s.x1}, "h2 = A1 x1"),
    "attention of layer 2 transposed": (ABSOLUTE, {"h2": lambda s: t(s.attention2) @ s.x1}, "A2ᵀ"),
    "attention of layer 1 transposed": (RELATIVE, {"h1": lambda s: t(s.attention1) @ s.x0}, "A1ᵀ"),
    "values of layer 1 normalised": (
        RELATIVE, {"h1": lambda s: s.attention1 @ layer_norm(s.x0)}, "A1 LayerNorm(x0)"),
    "values of layer 1 without positions": (ABSOLUTE, {"h1": lambda s: s.attention1 @ s.e}, "h1 = A1 E[z]"),
    "positions on the values": (RELATIVE, {"h1": lambda s: s.attention1 @ s.x0 + np.einsum(
        "...tk,...tkd->...td", s.attention1,
        s.pos[..., np.subtract.outer(np.arange(s.T), np.arange(s.T)), :])},
        "positions on the values"),
    "residual of layer 1 missing": (RELATIVE, {"x1": lambda s: mat(s.h1, s.Phi)}, "x1 = Phi h1"),
    "Phi transposed": (RELATIVE, {"x1": lambda s: s.x0 + s.h1 @ s.Phi}, "Phiᵀ"),
    "Phi left out": (ABSOLUTE, {"x1": lambda s: s.x0 + s.h1}, "x1 = x0 + h1"),
    "WV in place of Phi": (RELATIVE, {"x1": lambda s: s.x0 + mat(s.h1, s.WV)}, "x1 = x0 + WV h1"),
    "post-normalisation of layer 1": (
        RELATIVE, {"x1": lambda s: layer_norm(s.x0 + mat(s.h1, s.Phi))}, "x1 = LayerNorm(x0 + Phi h1)"),
    "layer 1 halved": (ABSOLUTE, {"x1": lambda s: s.x0 + mat(s.h1, s.Phi) / 2}, "1/2 Phi h1"),
    "WO and WV exchanged": (RELATIVE, {"x2": lambda s: s.x1 + mat(mat(s.h2, s.WO), s.WV)}, "x1 + WV WO h2"),
    "WO transposed": (ABSOLUTE, {"x2": lambda s: s.x1 + mat(s.h2, s.WV) @ s.WO}, "WOᵀ"),
    "WV left out": (RELATIVE, {"x2": lambda s: s.x1 + mat(s.h2, s.WO)}, "x2 = x1 + WO h2"),
    "residual of layer 2 missing": (RELATIVE, {"x2": lambda s: mat(mat(s.h2, s.WV), s.WO)}, "x2 = WO WV h2"),
    "residual of layer 2 from x0": (
        RELATIVE, {"x2": lambda s: s.x0 + mat(mat(s.h2, s.WV), s.WO)}, "x2 = x0 +"),
    "1/√d in both layers": (RELATIVE, {
        "scores1": lambda s: lower(content(s) + offsets(s, lambda t, k: t - k)) / 7 ** 0.5,
        "scores2": lambda s: lower(content(s, "WK2", "x1")) / 7 ** 0.5}, "scores scaled by 1/√d"),
    "1/√d in the softmax of both layers": (
        ABSOLUTE, both(lambda S, seen: softmax(S / 7 ** 0.5, seen)), "scores scaled by 1/√d"),
    "WK1 transposed": (
        ABSOLUTE, {"scores1": lambda s: lower(s.x0 @ t(s.WK1) @ t(s.x0))}, "WK1 used transposed"),
    "WK2 transposed": (
        RELATIVE, {"scores2": lambda s: lower(s.x1 @ t(s.WK2) @ t(s.x1))}, "WK2 used transposed"),
    "WK1 in place of WK2": (
        RELATIVE, {"scores2": lambda s: lower(content(s, "WK1", "x1"))}, "WK1 in place of WK2"),
    "scores of layer 2 from x0": (RELATIVE, {"scores2": lambda s: lower(content(s, "WK2", "x0"))},
                                  "queries x0 and keys x0"),
    "keys of layer 2 from x0": (ABSOLUTE, {"scores2": lambda s: lower(content(s, "WK2", "x1", "x0"))},
                                "queries x1 and keys x0"),
    "scores of normalised activations": (
        ABSOLUTE, {"scores1": lambda s: lower(layer_norm(s.x0) @ s.WK1 @ t(layer_norm(s.x0)))},
        "LayerNorm(x0)"),
    "relative offset reversed": (RELATIVE, positions(lambda t, k: k - t), "relative offset reversed"),
    "relative positions from 1": (RELATIVE, positions(lambda t, k: t - k + 1), "counted from 1"),
    "pos[s] for pos[t-s]": (RELATIVE, positions(lambda t, k: k), "pos[s] in place"),
    "no relative positions": (RELATIVE, {"scores1": lambda s: lower(content(s))}, "no positions"),
    "absolute positions from 1": (ABSOLUTE, {"x0": lambda s: s.e + s.pos[..., 1:s.T + 1, :]}, "pos[t+1]"),
    "no absolute positions": (ABSOLUTE, {"x0": lambda s: s.e}, "x0 = E[z],"),
    "U as embedding": (ABSOLUTE, {"x0": lambda s: s.U[..., s.z, :] + s.pos[..., :s.T, :]}, "U[z]"),
    "embeddings times √d": (RELATIVE, {"x0": lambda s: s.e * 7 ** 0.5}, "√d E[z]"),
    "softmax over queries": (
        RELATIVE, both(lambda S, seen: softmax(S, seen, -2)), "softmax over the wrong axis"),
    "softmax over queries in layer 2": (
        RELATIVE, {"attention2": lambda s: softmax(s.scores2, s.seen, -2)},
        "softmax over the wrong axis in layer 2"),
    "no causal mask": (ABSOLUTE, {"scores1": content, "attention1": lambda s: softmax(s.scores1),
                                  "scores2": lambda s: content(s, "WK2", "x1"),
                                  "attention2": lambda s: softmax(s.scores2)}, "mask includes the future"),
    "zero for masked scores": (RELATIVE, both(lambda S, seen: softmax(S)), "masked scores count as 0"),
    "strict causal mask": ("induction/one-position", both(
        lambda S, seen: 0 * S), "query excluded"),
    "first token masked": (RELATIVE, both(lambda S, seen: softmax(
        S, seen & ((np.arange(len(seen)) > 0) | (np.arange(len(seen))[:, None] == 0)))),
        "missing first token"),
    "sigmoid attention": (
        ABSOLUTE, both(lambda S, seen: seen / (1 + np.exp(-S))), "sigmoid in place of the attention"),
    "linear attention": (RELATIVE, both(lambda S, seen: S * seen), "attention without a softmax"),
    "softmax plus one": (RELATIVE, both(lambda S, seen: np.exp(S) * seen / (
        1 + (np.exp(S) * seen).sum(-1, keepdims=True))), "a 1 too many"),
    "mask of −10": (RELATIVE, both(lambda S, seen: softmax(S - 10 * ~seen)), "lowered by 10"),
    "detached attention": (
        RELATIVE, both(lambda S, seen: detach(softmax(S, seen))), "no gradient through the attention"),
    "blocks that do not rescale": ("induction/random-relative", both(
        lambda S, seen: blockwise(S, seen, 4)), "blocks of 4 keys"),
    "blocks that do not rescale their values": ("induction/random-relative", both(
        lambda S, seen: blockwise(S, seen, 2, "total")), "blocks of 2 keys"),
    "an attention window of three": (RELATIVE, both(lambda S, seen: softmax(
        S, seen & (np.subtract.outer(np.arange(len(seen)), np.arange(len(seen))) < 3))), None),
    "a bias in the scores by distance": (RELATIVE, both(lambda S, seen: softmax(
        S - 0.3 * np.subtract.outer(np.arange(len(seen)), np.arange(len(seen))), seen)), None),
    "rows above the content": ("recall/first-token", {"rows": lambda s: np.concatenate(
        [s.P[..., :s.T, :], s.e], -1)}, "positions above"),
    "recall positions from 1": ("recall/infer-slot", {"rows": lambda s: np.concatenate(
        [s.e, s.P[..., 1:s.T + 1, :]], -1)}, "counted from 1"),
    "WKQ transposed": ("recall/infer-slot", {"scores": lambda s: (
        s.rows[..., -1:, :] @ t(s.WKQ) @ t(s.rows))[..., 0, :]}, "WKQ used transposed"),
    "the first token asks": ("recall/infer-slot", {"scores": lambda s: (
        s.rows[..., :1, :] @ s.WKQ @ t(s.rows))[..., 0, :]}, "first token asks"),
    "recall scores by 1/√(d+dp)": ("recall/relu", {"scores": lambda s: (
        s.rows[..., -1:, :] @ s.WKQ @ t(s.rows))[..., 0, :] / 8 ** 0.5}, "1/√(d+dp)"),
    "the query is no key": ("recall/infer-slot", {"attention": lambda s: softmax(
        s.scores, np.arange(s.T) < s.T - 1)}, "query excluded"),
    "a residual around recall's attention": ("recall/relu", {"x": lambda s: (
        s.attention[..., None, :] @ s.e)[..., 0, :] + s.e[..., -1, :]}, "residual"),
    "no bias": ("recall/relu", {"preactivation": lambda s: vec(s.W1, s.x)}, "W1 x,"),
    "ReLU for the square": (
        "recall/infer-slot", {"hidden": lambda s: relu(s.preactivation)}, "ReLU in place"),
    "square for ReLU": ("recall/relu", {"hidden": lambda s: s.preactivation ** 2}, "square in place"),
    "a residual around recall's memory": (
        "recall/relu", {"y": lambda s: s.x + vec(s.W2, s.hidden)}, "x + W2 hidden"),
    "recall without attention": (
        "recall/infer-slot", {"x": lambda s: s.e[..., -1, :]}, "E of the last token"),
    "four at once": (RELATIVE, {
        "scores2": lambda s: lower(content(s, "WK2", "x1")) / 7 ** 0.5, "h2": lambda s: s.attention2 @ s.x0,
        "x2": lambda s: s.x1 + mat(mat(s.h2, s.WO), s.WV), "y": lambda s: s.x2 + mat(s.x1, s.WF)},
        ("scores scaled by 1/√d in layer 2", "h2 = A2 x0", "x1 + WV WO h2", "y = x2 + WF x1")),
    "WO and WV exchanged, logits of x2": (RELATIVE, {
        "x2": lambda s: s.x1 + mat(mat(s.h2, s.WO), s.WV), "logits": lambda s: mat(s.x2, s.U)},
        ("x1 + WV WO h2", "U x2")),
    "1/√d in layer 1, residual of layer 2 missing": (ABSOLUTE, {
        "scores1": lambda s: lower(content(s)) / 7 ** 0.5, "x2": lambda s: mat(mat(s.h2, s.WV), s.WO)},
        ("scores scaled by 1/√d in layer 1", "x2 = WO WV h2")),
}
# name: (case, loss, part of a right name)
LOSS = {
    "loss in bits": (RELATIVE, lambda *a: scaled(*a, 1 / np.log(2)), "bits"),
    "label smoothing": (RELATIVE, smoothing, "label smoothing 0.1"),
    "label smoothing of 0.13": (RELATIVE, lambda *a: smoothing(*a, 0.13), None),
    "targets not shifted": (RELATIVE, shifted, "targets shifted"),
    "a sum for the mean": (RELATIVE, lambda *a: scaled(*a, 24), "a sum in place of the mean"),
    "mean of means": ("induction/uneven-masks", mean_of_means, "mean of the sequences' means"),
    "mask ignored": (
        "induction/masked-positions",
        of_mask(lambda m: np.ones(m.shape) / m.size), "mask of the loss ignored"),
    "mean over all": (
        "induction/one-masked-position", of_mask(lambda m: m / m.size), "mean over all positions"),
    "slot ignored": ("recall/infer-slot", in_slot(lambda logits, inside: logits), "slot ignored"),
    "slot masked by 0": ("recall/infer-slot", in_slot(lambda logits, inside: logits * inside), "count as 0"),
    "slot masked by −10": (
        "recall/infer-slot", in_slot(lambda logits, inside: logits - 10 * ~inside), "lowered by 10"),
}


def with_momentum(f):
    return lambda n, name, w, g, b, lr, mu, wd: f(w, g, b, lr, mu, wd)


# name: (case, arguments of `steps`, part of a right name)
STEPS = {
    "zero_grad forgotten": (RELATIVE, {"gather": lambda history: {
        k: sum(g[k] for g in history) for k in history[0]}}, "zero_grad"),
    "clipping": (RELATIVE, {"gather": lambda history: {k: g * min(1, 0.5 / sum(
        (a ** 2).sum() for a in history[-1].values()) ** 0.5) for k, g in history[-1].items()}},
        "clipped to norm 0.5"),
    "warm-up": (RELATIVE, {"rule": lambda n, name, w, g, b, lr, mu, wd: (
        w - lr * min(1, n / 10) * (mu * b + g + wd * w), mu * b + g + wd * w)}, "warm-up"),
    "no decay of b1 and embeddings": ("recall/relu", {"rule": lambda n, name, w, g, b, lr, mu, wd: (
        w - lr * (mu * b + g + wd * w * (name not in ("b1", "E"))),
        mu * b + g + wd * w * (name not in ("b1", "E")))},
        "weight decay ignored (E, b1 alone)"),
    "U frozen": (RELATIVE, {"rule": lambda n, name, w, g, b, lr, mu, wd: (w, b) if name == "U" else (
        w - lr * (mu * b + g + wd * w), mu * b + g + wd * w)}, "frozen (U alone)"),
    "decoupled decay": (RELATIVE, {"rule": with_momentum(lambda w, g, b, lr, mu, wd: (
        w * (1 - lr * wd) - lr * (mu * b + g), mu * b + g))}, "decoupled"),
    "Nesterov": ("recall/relu", {"rule": with_momentum(lambda w, g, b, lr, mu, wd: (
        w - lr * (g + wd * w + mu * (mu * b + g + wd * w)), mu * b + g + wd * w))}, "Nesterov"),
    "sign of the gradient": (RELATIVE, {"rule": with_momentum(lambda w, g, b, lr, mu, wd: (
        w - lr * np.sign(g), b + 0))}, None),
}


def last_occurrence(case, grads):
    """padding_idx = 0."""
    return {**grads, "E": grads["E"] * (np.arange(len(grads["E"])) != 0)[:, None]}


# name: (case, what is done to the gradients, part of a right name)
GRADS = {
    "padding_idx": (
        RELATIVE, lambda g: {**g, "E": g["E"] * (np.arange(len(g["E"])) != 0)[:, None]}, "padding_idx"),
    "gradient of WO transposed": (RELATIVE, lambda g: {**g, "WO": g["WO"].T}, "transposed (in grad.WO)"),
    "positions without gradient": (ABSOLUTE, lambda g: {**g, "pos": 0 * g["pos"]}, "detach(pos[t])"),
    "gradient of WF halved": (RELATIVE, lambda g: {**g, "WF": g["WF"] / 2}, "a 2 missing"),
    "noise in a gradient": (
        RELATIVE, lambda g: {**g, "WF": g["WF"] + np.arange(49).reshape(7, 7) ** 2 % 5}, None),
}
