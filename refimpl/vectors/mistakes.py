"""Mistakes that ports make, each planted into the reference itself for the length of one run.

`run(name, case)` yields the arrays that a port with that mistake would write. Writing the vectors uses
it to assert that a case catches its mistake; the checker, to see whether a mistake explains a departure.
A plant replaces kernels of `ops` (the models are plain Python over them), the SGD update, or the inputs.
"""

from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np

from refimpl import check, ops, sgd
from refimpl.recall import model as recall_model
from refimpl.vectors import cases


def run(name, case, last=None):
    """Yield the arrays of every variant of a mistake that the case has room for, up to `last`."""
    for variant in MISTAKES[name]:
        try:
            changed, plants = variant(case)
            with ExitStack() as stack, np.errstate(all="ignore"):
                stack.enter_context(patch.object(check, "computed", lambda results, params: results))
                for (module, attribute), wrong in plants.items():
                    stack.enter_context(patch.object(module, attribute, wrong))
                wrong_arrays = cases.arrays(changed, last)
        except (KeyError, AttributeError, ValueError):
            continue    # a setting or field that the other model has, or numbers not finite any more
        yield wrong_arrays      # out here, where nothing is planted any more


def plant(replaced):
    """A variant that replaces kernels: {(module, attribute): wrong}."""
    return lambda case: (case, replaced)


def change(f):
    """A variant that changes the case, and so its inputs or settings."""
    return lambda case: (f(case), {})


# Attention. `allowed(t, s)` says which keys s a query t sees.

def attend(S, allowed, axis=-1):
    """Softmax over the allowed entries along an axis; zero where nothing is allowed."""
    weights = np.where(allowed, np.exp(S - S.max()), 0)
    total = weights.sum(axis, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(S), where=total > 0)


def attend_backward(A, dA, axis=-1):
    """dS for `attend`, whatever is allowed: where A is zero so is dS."""
    return A * (dA - (A * dA).sum(axis, keepdims=True))


def attention(allowed, axis=-1):
    """The attention of both systems; that of recall is the last row, asked by the last token."""
    def last_row(scores):
        n = len(scores)
        return attend(scores, allowed(n - 1, np.arange(n)))

    return {(ops, "causal_softmax_forward"): lambda S: attend(S, allowed(*np.indices(S.shape)), axis),
            (ops, "causal_softmax_backward"): partial(attend_backward, axis=axis),
            # Of this model alone: as plain Python, the loss too would call it.
            (recall_model, "ops"): SimpleNamespace(**{**vars(ops), "softmax_forward": last_row})}


def offsets(row, mask=np.tril):
    """Relative scores that read pos at `row(t, s, T, L)` (modulo L) in place of t − s."""
    def index(T, L):
        t, s = np.indices((T, T))
        return t, row(t, s, T, L) % L

    def forward(content, position):
        return mask(content + position[index(*position.shape)])

    def backward(dS, L):
        dposition = np.zeros((len(dS), L), dS.dtype)
        np.add.at(dposition, index(len(dS), L), dS)
        return dposition

    return {(ops, "relative_scores_forward"): forward, (ops, "relative_scores_backward"): backward}


def future(row):
    """No causal mask at all; relative offsets of future keys by `row`."""
    return plant({**attention(lambda t, s: s >= 0), **offsets(row, np.asarray),
                  (np, "tril"): np.asarray})


# The loss. `row_loss(logits, k)` takes the logits of the slot and the place k of the target among them.

def row_losses(row_loss):
    """Cross-entropy row by row; its gradient stays right."""
    def forward(logits, target, start, stop):
        return np.array([row_loss(row[start:stop], k - start) for row, k in zip(logits, target)])

    return plant({(ops, "cross_entropy_forward"): forward})


def untied(row, k):
    """log(1 + Σ exp(logit − largest)) over the logits *below* the largest: its ties are lost."""
    below = row[row < row.max() - 1e-9 * abs(row.max())]
    return np.log1p(np.exp(below - row.max()).sum()) + row.max() - row[k]


def losses(weight=lambda mask, b: 1.0, first=1):
    """Loss of sequence b times a weight, targets from token `first` on (induction)."""
    def variant(case):
        def wrong(right, logits, target, start, stop, *dloss):
            b = next(b for b, row in enumerate(case.tokens) if np.array_equal(row[1:], target))
            target = case.tokens[b, first:first + len(target)].copy()
            factor = weight(case.labels, b)
            if dloss:
                return right(logits, target, start, stop, factor * dloss[0])
            return factor * right(logits, target, start, stop)

        case.setting["encoding"]
        return case, {(ops, name): partial(wrong, getattr(ops, name))
                      for name in ("cross_entropy_forward", "cross_entropy_backward")}

    return variant


# SGD. Arguments as `sgd.update`: whole arrays, w and buffer changed in place.

def decoupled(w, g, buffer, lr, momentum, weight_decay):
    """AdamW's weight decay: beside the buffer, not through it."""
    buffer[:] = momentum * buffer + g
    w -= lr * (buffer + weight_decay * w)


def dampened(w, g, buffer, lr, momentum, weight_decay, from_start=False):
    """The new gradient times 1 − momentum; PyTorch's dampening spares the first."""
    new = 1 - momentum if from_start or buffer.any() else 1
    buffer[:] = momentum * buffer + new * (g + weight_decay * w)
    w -= lr * buffer


def nesterov(w, g, buffer, lr, momentum, weight_decay):
    """A step along the buffer that the next gradient would meet."""
    g = g + weight_decay * w
    buffer[:] = momentum * buffer + g
    w -= lr * (g + momentum * buffer)


def rate_twice(w, g, buffer, lr, momentum, weight_decay, in_buffer=1):
    """lr² in all; `in_buffer` of the two factors are in the buffer already."""
    buffer[:] = momentum * buffer + lr ** in_buffer * (g + weight_decay * w)
    w -= lr ** (2 - in_buffer) * buffer


def rate_in_buffer(w, g, buffer, lr, momentum, weight_decay):
    """The same steps as long as lr is constant, but the buffer is lr times PyTorch's."""
    buffer[:] = momentum * buffer + lr * (g + weight_decay * w)
    w -= buffer


def update(*wrong):
    """One variant for each wrong update."""
    return [plant({(sgd, "update"): f}) for f in wrong]


def settings(**values):
    """SGD with other settings."""
    return [change(lambda case: case._replace(sgd={**case.sgd, **values}))]


# Inputs, weights and settings.

def weights(case, **fields):
    """The case with other weights."""
    return case._replace(params=case.params._replace(**fields))


def transposed(name):
    """One square matrix used the other way round."""
    return [change(lambda case: weights(case, **{name: getattr(case.params, name).T}))]


def scores_scaled(case):
    """The key matrices divided by √d."""
    keys = ("WKQ",) if case.model == "recall" else ("WK1", "WK2")
    return weights(case, **{k: getattr(case.params, k) / len(getattr(case.params, k)) ** 0.5 for k in keys})


def positions_wrapped(case):
    """Positions that start again at 0 in the middle of the prompt."""
    half = case.params.pos[:case.tokens.shape[1] // 2]
    return weights(case, pos=np.resize(half, case.params.pos.shape))


def encodings_swapped(case):
    """Relative for absolute, and the other way round."""
    other = {"relative": "absolute", "absolute": "relative"}[case.setting["encoding"]]
    return case._replace(setting={"encoding": other})


def slot(f):
    """Another slot: f(start, stop, V, first target)."""
    def changed(case):
        V = len(case.params.E)
        wrong = f(*(case.setting["slot"] or (0, V)), V, int(case.labels.min()))
        return case._replace(setting={**case.setting, "slot": wrong})

    return [change(changed)]


def activation(name, forward, backward):
    """Another activation under the same name."""
    return [plant({(recall_model, "ACTIVATIONS"):
                   {**recall_model.ACTIVATIONS, name: (forward, backward)}})]


def overwrite(z, dx, dW):
    """Embedding gradient by assignment: of a token that occurs twice, one occurrence is kept."""
    dW[z] = dx


STEPS = {           # these change nothing before the first step
    "weight decay decoupled": update(decoupled),
    "momentum with dampening": update(dampened, partial(dampened, from_start=True)),
    "momentum with Nesterov": update(nesterov),
    "learning rate applied twice": update(*(partial(rate_twice, in_buffer=k) for k in (0, 1, 2))),
    "learning rate inside the momentum buffer": update(rate_in_buffer),
    "weight decay ignored": settings(weight_decay=0.0),
    "momentum ignored": settings(momentum=0.0),
    "momentum always on": settings(momentum=0.9),
    "all fields move": settings(trained=None),
}
MISTAKES = {
    **STEPS,
    "softmax over the wrong axis": [plant(attention(lambda t, s: s <= t, axis=0))],
    "mask includes the future": [future(lambda t, s, T, L: t - s), future(lambda t, s, T, L: abs(t - s)),
                                 future(lambda t, s, T, L: np.maximum(t - s, 0))],
    "masked scores count as 0": [plant(attention(lambda t, s: s >= 0))],
    "relative offset reversed": [plant(offsets(row)) for row in
                                 (lambda t, s, T, L: s - t, lambda t, s, T, L: L - 1 - t + s,
                                  lambda t, s, T, L: T - 1 - t + s)],
    "missing first token": [
        plant(attention(lambda t, s: (s <= t) & ((s > 0) | (t == 0)))),
        change(lambda case: case._replace(
            tokens=case.tokens[:, 1:],
            labels=case.labels[:, 1:] if case.model == "induction" else case.labels))],
    "query excluded from its keys": [plant(attention(lambda t, s: s < t))],
    "scores scaled by 1/√d": [change(scores_scaled)],
    "offsets clipped": [plant(offsets(lambda t, s, T, L: np.minimum(t - s, T // 2)))],
    "encodings swapped": [change(encodings_swapped)],
    "positions wrap around": [change(positions_wrapped)],
    "targets shifted by one position": [losses(first=0)],
    "mask of the loss ignored": [change(lambda case: case._replace(labels=case.labels | True))],
    "mask of the loss shifted by one position": [
        change(lambda case: case._replace(labels=np.roll(case.labels, by, axis=1))) for by in (1, -1)],
    "mean over all positions, not the mask": [losses(lambda mask, b: mask.mean())],
    "mean of the sequences' means": [losses(lambda mask, b: mask.mean() / mask[b].mean())],
    "slot ignored": slot(lambda start, stop, V, target: (0, V)),
    "slot always on": slot(lambda start, stop, V, target: (min(target, V - 2), V)),
    "slot one too long": slot(lambda start, stop, V, target: (start, min(stop + 1, V))),
    "embeddings tied": [change(lambda case: weights(case, U=case.params.E))],
    "bias left out": [change(lambda case: weights(case, b1=0 * case.params.b1))],
    "derivative of ReLU at 0 is not 0": activation(
        "relu", ops.relu_forward, lambda x, dh: dh * ((x > 0) + 0.5 * (x == 0)))
    + activation("relu", ops.relu_forward, lambda x, dh: dh * (x >= 0)),
    "derivative of the square lacks its 2": activation("square", ops.square_forward,
                                                       lambda x, dh: x * dh),
    "repeated tokens overwrite the gradient": [plant({(ops, "embed_backward"): overwrite})],
    "softmax overflows": [row_losses(lambda row, k: np.log(np.exp(row).sum()) - row[k])],
    "ties left out of the sum": [row_losses(untied)],
    "sigmoid in place of softmax": [row_losses(lambda row, k: np.log1p(np.exp(-row[k])))],
    **{f"{name} used transposed": transposed(name)
       for name in ("WK1", "WK2", "WKQ", "Phi", "WV", "WO", "WF")},
}
