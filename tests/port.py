"""A port of both models for the tests, in plain NumPy, in which any equation may be replaced by a mistake.

It shares nothing with the package but the vectors. Gradients are complex steps by all parameters at once:
each array has a leading axis, the parameter that was moved.
"""

from types import SimpleNamespace

import numpy as np
from scipy.special import erf

STEP = 1e-30


def t(a):
    """Transposed."""
    return np.swapaxes(a, -1, -2)


def mat(a, W):
    """Rows of activations through a matrix."""
    return a @ t(W)


def detach(a):
    """Without its gradient."""
    return a.real + 0j


def softmax(S, seen=True, axis=-1):
    top = np.where(seen, S.real, -np.inf).max(axis, keepdims=True)
    weights = np.exp(np.where(seen, S - np.where(np.isfinite(top), top, 0), -np.inf))
    return weights / weights.sum(axis, keepdims=True)


def layer_norm(a, eps=1e-5):
    a = a - a.mean(-1, keepdims=True)
    return a / np.sqrt((a * a).mean(-1, keepdims=True) + eps)


def rms_norm(a, eps=1e-6):
    return a / np.sqrt((a * a).mean(-1, keepdims=True) + eps)


def relu(a):
    return a * (a.real > 0)


def gelu(a):
    x = a.real
    below = (1 + erf(x / 2 ** 0.5)) / 2
    return x * below + 1j * (below + x * np.exp(-x * x / 2) / (2 * np.pi) ** 0.5) * a.imag


def offsets(s, row):
    """q1 · pos[row(t, k)] for all t, k."""
    scores = mat(s.x0 @ s.WK1, s.pos)
    return scores[..., np.arange(s.T)[:, None], row(*np.indices((s.T, s.T))) % scores.shape[-1]]


def lower(S):
    return np.tril(S)


def content(s, W="WK1", x="x0", y=None):
    """x_t W y_k."""
    return vars(s)[x] @ vars(s)[W] @ t(vars(s)[y or x])


def induction(encoding):
    """The equations as they should be."""
    relative = encoding == "relative"
    return {
        "x0": lambda s: s.e if relative else s.e + s.pos[..., :s.T, :],
        "scores1": lambda s: lower(content(s) + (offsets(s, lambda t, k: t - k) if relative else 0)),
        "attention1": lambda s: softmax(s.scores1, s.seen), "h1": lambda s: s.attention1 @ s.x0,
        "x1": lambda s: s.x0 + mat(s.h1, s.Phi), "scores2": lambda s: lower(content(s, "WK2", "x1")),
        "attention2": lambda s: softmax(s.scores2, s.seen), "h2": lambda s: s.attention2 @ s.x1,
        "x2": lambda s: s.x1 + mat(mat(s.h2, s.WV), s.WO), "y": lambda s: s.x2 + mat(s.x2, s.WF),
        "logits": lambda s: mat(s.y, s.U)}


def recall(activation):
    """The same of recall, of rows (…, T, ·) and vectors (…, ·)."""
    return {
        "rows": lambda s: np.concatenate([s.e, s.P[..., :s.T, :]], -1),
        "scores": lambda s: (s.rows[..., -1:, :] @ s.WKQ @ t(s.rows))[..., 0, :],
        "attention": lambda s: softmax(s.scores),
        "x": lambda s: (s.attention[..., None, :] @ s.rows[..., :s.d])[..., 0, :],
        "preactivation": lambda s: vec(s.W1, s.x) + s.b1,
        "hidden": lambda s: s.preactivation ** 2 if activation == "square" else relu(s.preactivation),
        "y": lambda s: vec(s.W2, s.hidden), "logits": lambda s: vec(s.U, s.y)}


def vec(W, x):
    return (W @ x[..., None])[..., 0]


def cross_entropy(logits, target):
    top = logits.real.max(-1, keepdims=True)
    rows = np.log(np.exp(logits - top).sum(-1, keepdims=True)) + top - logits
    return rows[..., np.arange(len(target)), target] if np.ndim(target) else rows[..., target]


def losses(case, s, b):
    """The loss of sequence b, and its weight in the mean, as they should be."""
    if case.model == "induction":
        rows = cross_entropy(s.logits, case.tokens[b, 1:])
        return (rows * case.labels[b]).sum(-1) / case.labels.sum()
    start, stop = case.setting["slot"] or (0, s.logits.shape[-1])
    return cross_entropy(s.logits[..., start:stop], int(case.labels[b]) - start) / len(case.tokens)


def evaluate(case, params, wrong, loss=losses):
    """Loss with the leading axis of the parameters, and the state of the first sequence."""
    total, first = 0, None
    right = {"induction": induction, "recall": recall}[case.model]
    kind = right(case.setting["encoding" if case.model == "induction" else "activation"])
    for b, z in enumerate(case.tokens):
        z = z[:-1] if case.model == "induction" else z
        s = SimpleNamespace(**dict(zip(case.params._fields, params)), z=z, T=len(z), d=params[0].shape[-1])
        s.e, s.seen = s.E[..., z, :], np.tri(s.T, dtype=bool)
        for name, equation in {**kind, **wrong}.items():
            setattr(s, name, equation(s))
        first = first or s
        total = total + loss(case, s, b)
    return total, first, list(kind)


def port(case, wrong=(), loss=losses, grads=lambda g: g):
    """Trace, loss and gradients, as a port with these equations in place of its own writes them."""
    total, s, names = evaluate(case, [w[None] + 0j for w in case.params], dict(wrong), loss)
    arrays = {f"trace.{name}": vars(s)[name][0].real for name in names}
    arrays["loss"] = np.real(total)[0] if np.ndim(total) else np.asarray(np.real(total))
    found = grads(gradients(case, case.params, wrong, loss))
    return {**arrays, **{f"grad.{name}": g for name, g in found.items()}}


def gradients(case, params, wrong=(), loss=losses):
    """The derivative of the loss by every entry of every field, by name."""
    sizes = [w.size for w in params]
    moved, start = [], 0
    for w, size in zip(params, sizes):
        a = np.broadcast_to(w.reshape(-1) + 0j, (sum(sizes), size)).copy()
        a[start + np.arange(size), np.arange(size)] += 1j * STEP
        moved.append(a.reshape(sum(sizes), *w.shape))
        start += size
    total, _, _ = evaluate(case, moved, dict(wrong), loss)
    parts = np.split(total.imag / STEP, np.cumsum(sizes)[:-1])
    return {name: g.reshape(w.shape) for name, g, w in zip(case.params._fields, parts, params)}


def steps(case, rule=None, gather=None, wrong=(), loss=losses):
    """Steps 1 and 3: rule(number, name, w, g, buffer, lr, momentum, weight_decay) -> w, buffer."""
    rule = rule or (lambda n, name, w, g, b, lr, mu, wd: (
        w - lr * (mu * b + g + wd * w), mu * b + g + wd * w))
    params, buffers, history, arrays = dict(case.params._asdict()), {}, [], {}
    settings = [case.sgd[key] for key in ("lr", "momentum", "weight_decay")]
    for number in (1, 2, 3):
        history.append(gradients(case, case.params._make(params.values()), wrong, loss))
        for name, g in (gather(history) if gather else history[-1]).items():
            w, b = params[name], buffers.get(name, np.zeros_like(params[name]))
            moves = name in case.sgd["trained"]
            params[name], buffers[name] = rule(number, name, w, g, b, *settings) if moves else (w, b)
            if number != 2:
                arrays[f"sgd{number}.param.{name}"] = params[name]
                arrays[f"sgd{number}.momentum.{name}"] = buffers[name]
    return arrays
