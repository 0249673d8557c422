"""The dense model, a batch of prompts at a time: the same loss and gradients as model.py, faster.

Wide memories, as the pretrained one (R12), spend their time in products with W1 and W2. Here these are
one matrix product for the whole batch. The steps and their numbers are those of model.py, its oracle;
gradients agree to rounding. Every array has a batch axis b in front; what a backward sums over the
batch, model.py adds up prompt by prompt.

Pretraining needs nothing else: under WKQ = 0 the prompt of two tokens (s, a) gives x = ½(E[s] + E[a]),
so training W1, b1 and W2 on the prompts of `facts_as_prompts` is pretraining on ½(e_s + e_a) -> r and
½(e_s + e_r) -> a.
"""

import numpy as np

from refimpl import check
from refimpl.recall.model import Params, check_batch
from refimpl.recall.task import Facts


def facts_as_prompts(facts):
    """Every fact twice, as two-token prompts: (s, a) -> r and (s, r) -> a.

    Returns (tokens (NR, 2), targets (NR,), slot) of the infer step, and of the recall step. Raises
    ValueError if `facts` are none.
    """
    check.instance("facts", facts, Facts, "recall.Facts")
    s, r = np.divmod(np.arange(facts.N * facts.R), facts.R)
    answer, relation = facts.N + facts.answer(s, r), 2 * facts.N + r
    return ((np.stack([s, answer], axis=1), relation, (2 * facts.N, 2 * facts.N + facts.R)),
            (np.stack([s, relation], axis=1), answer, (facts.N, 2 * facts.N)))


def forward_pass(params, z, slot, activation):
    """The forward pass on checked arguments: logits (B, slot) and all that the backward needs."""
    E, U, P, WKQ, W1, b1, W2 = params
    B, T = z.shape
    content = E[z]                                                          # 1
    rows = np.concatenate([content, np.broadcast_to(P[:T], (B, *P[:T].shape))], axis=2)     # 2
    scores = np.einsum("bid,bd->bi", rows, rows[:, -1] @ WKQ)               # 3
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))            # 4
    attention = weights / weights.sum(axis=1, keepdims=True)
    x = np.einsum("bi,bid->bd", attention, content)                         # 5
    preactivation = x @ W1.T + b1                                           # 6
    hidden = preactivation ** 2 if activation == "square" else np.maximum(preactivation, 0)     # 7
    y = hidden @ W2.T                                                       # 8
    return y @ U[slice(*slot)].T, (rows, attention, x, preactivation, hidden, y)            # 9


def loss_and_grads(params, tokens, targets, slot=None, activation="square"):
    """Loss of one step and the gradients of all seven fields; arguments, errors as `model.loss_and_grads`."""
    params, z, targets, slot = check_batch(params, tokens, targets, slot, activation)
    if params.E.dtype.kind != "f":
        raise ValueError(f"params: expected float64 or float32, got {params.E.dtype}")
    E, U, P, WKQ, W1, b1, W2 = params
    logits, (rows, attention, x, preactivation, hidden, y) = forward_pass(params, z, slot, activation)
    (B, T), d = z.shape, E.shape[1]
    true, top = (np.arange(B), targets - slot[0]), logits.max(axis=1, keepdims=True)
    p = np.exp(logits - top)
    total = p.sum(axis=1, keepdims=True)
    loss = (np.log(total[:, 0]) + (top[:, 0] - logits[true])).mean()
    p /= total * p.dtype.type(B)
    p[true] = 0
    p[true] = -p.sum(axis=1)        # p − 1, which loses its digits where p is nearly 1
    dlogits = p
    dU = np.zeros_like(U)                                                   # 9
    dU[slice(*slot)] = dlogits.T @ y
    dy = dlogits @ U[slice(*slot)]
    dW2 = dy.T @ hidden                                                     # 8
    dhidden = dy @ W2
    dpreactivation = dhidden * (2 * preactivation if activation == "square" else preactivation > 0)     # 7
    dW1 = dpreactivation.T @ x                                              # 6
    db1 = dpreactivation.sum(axis=0)
    dx = dpreactivation @ W1
    dattention = np.einsum("bid,bd->bi", rows[:, :, :d], dx)                # 5
    dcontent = attention[:, :, None] * dx[:, None, :]
    dscores = attention * (dattention - (attention * dattention).sum(axis=1, keepdims=True))     # 4
    last, key = rows[:, -1], np.einsum("bi,bid->bd", dscores, rows)         # 3
    dWKQ = last.T @ key
    drows = dscores[:, :, None] * (last @ WKQ)[:, None, :]
    drows[:, -1] += key @ WKQ.T
    dcontent += drows[:, :, :d]                                             # 2
    dP = np.zeros_like(P)
    dP[:T] = drows[:, :, d:].sum(axis=0)
    dE = np.zeros_like(E)                                                   # 1
    np.add.at(dE, z, dcontent)
    return loss, Params(dE, dU, dP, dWKQ, dW1, db1, dW2)
