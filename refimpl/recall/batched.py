"""The dense model, a batch of prompts at a time: the same loss and gradients as model.py, faster.

A model with many hidden units, as the pretrained one (R12), spends its time in products with W1 and W2. Here
each of them is one matrix product for the whole batch. Steps, numbers and letters are those of model.py;
gradients agree with it to rounding. Every array has a batch axis b in front, over which a backward sums.

Pretraining needs nothing else. With WKQ = 0 the prompt of two tokens (s, a) gives x = ½(E[s] + E[a]). So
pretraining on ½(e_s + e_a) -> r and ½(e_s + e_r) -> a is training W1, b1 and W2 on `facts_as_prompts`.
"""

import numpy as np
from scipy.special import softmax

from refimpl import check, ops
from refimpl.recall.model import Params, Trace, check_batch
from refimpl.recall.task import Facts


def facts_as_prompts(facts):
    """Every fact twice, as two-token prompts: (s, a) -> r and (s, r) -> a.

    Returns (tokens (NR, 2), targets (NR,), slot) of the infer step, and of the recall step. Raises
    ValueError if `facts` is not a recall.Facts, or the prompts do not fit into memory.
    """
    check.instance("facts", facts, Facts, "recall.Facts")
    check.memory("facts", 8 * 12 * facts.N * facts.R)
    s, r = np.divmod(np.arange(facts.N * facts.R), facts.R)
    answer, relation = facts.N + facts.answer(s, r), 2 * facts.N + r
    return ((np.stack([s, answer], axis=1), relation, (2 * facts.N, 2 * facts.N + facts.R)),
            (np.stack([s, relation], axis=1), answer, (facts.N, 2 * facts.N)))


def forward_pass(params, z, slot, activation):
    """The forward pass on checked arguments: Trace, its logits those of the slot alone, and query."""
    E, U, P, WKQ, W1, b1, W2 = params
    B, T = z.shape
    content = E[z]                                                          # 1
    rows = np.concatenate([content, np.broadcast_to(P[:T], (B, *P[:T].shape))], axis=2)     # 2
    query = rows[:, -1] @ WKQ                                               # 3
    scores = np.einsum("bid,bd->bi", rows, query)
    attention = softmax(scores, axis=1)                                     # 4
    x = np.einsum("bi,bid->bd", attention, content)                         # 5
    preactivation = x @ W1.T + b1                                           # 6
    hidden = preactivation ** 2 if activation == "square" else np.maximum(preactivation, 0)     # 7
    y = hidden @ W2.T                                                       # 8
    logits = y @ U[slice(*slot)].T                                          # 9
    return Trace(rows, scores, attention, x, preactivation, hidden, y, logits), query


def backward_pass(params, z, slot, activation, trace, query, dlogits):
    """Undo the numbered steps in reverse: dlogits (B, slot) -> Params of gradients."""
    E, U, P, WKQ, W1, b1, W2 = params
    rows, attention, d, T = trace.rows, trace.attention, E.shape[1], z.shape[1]
    dU = np.zeros_like(U)                                                   # 9
    dU[slice(*slot)] = dlogits.T @ trace.y
    dy = dlogits @ U[slice(*slot)]
    dW2 = dy.T @ trace.hidden                                               # 8
    dhidden = dy @ W2
    slope = 2 * trace.preactivation if activation == "square" else trace.preactivation > 0      # 7
    dpreactivation = dhidden * slope
    dW1 = dpreactivation.T @ trace.x                                        # 6
    db1 = dpreactivation.sum(axis=0)
    dx = dpreactivation @ W1
    dattention = np.einsum("bid,bd->bi", rows[:, :, :d], dx)                # 5
    dcontent = attention[:, :, None] * dx[:, None, :]
    dscores = attention * (dattention - (attention * dattention).sum(axis=1, keepdims=True))     # 4
    dquery = np.einsum("bi,bid->bd", dscores, rows)                         # 3
    dWKQ = rows[:, -1].T @ dquery
    drows = dscores[:, :, None] * query[:, None, :]
    drows[:, -1] += dquery @ WKQ.T
    dcontent += drows[:, :, :d]                                             # 2
    dP = np.zeros_like(P)
    dP[:T] = drows[:, :, d:].sum(axis=0)
    dE = np.zeros_like(E)                                                   # 1
    np.add.at(dE, z, dcontent)
    return Params(dE, dU, dP, dWKQ, dW1, db1, dW2)


def loss_and_grads(params, tokens, targets, slot=None, activation="square"):
    """Loss of one step and the gradients of all seven fields; arguments, errors as `model.loss_and_grads`."""
    params, z, targets, slot = check_batch(params, tokens, targets, slot, activation)
    dtype, (B, T), k = check.real_dtype("params", params.E.dtype), z.shape, slot[1] - slot[0]
    check.memory("tokens", dtype.itemsize * B * (4 * T * len(params.WKQ) + 4 * len(params.W1) + 2 * k))
    with np.errstate(**check.QUIET):
        trace, query = forward_pass(params, z, slot, activation)
        loss = ops.cross_entropy_forward(trace.logits, targets - slot[0], 0, k).mean()
        dlogits = ops.cross_entropy_backward(trace.logits, targets - slot[0], 0, k, np.full(B, 1 / B, dtype))
        grads = backward_pass(params, z, slot, activation, trace, query, dlogits)
    check.computed((loss, *grads), params)
    return loss, grads
