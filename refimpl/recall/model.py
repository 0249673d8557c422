"""The one-layer attention transformer with an MLP memory, forward and backward, one prompt at a time.

    score_i = [E[z_last]; P[last]] · WKQ [E[z_i]; P[i]]     α = softmax(score) over the whole prompt
    x = Σ_i α_i E[z_i]
    h = φ(W1 x + b1)                                        φ(x) = x² or max(x, 0)
    logits = U W2 h

Only the last position asks, the values carry no positions, and there is no residual path. WKQ reads
token and position, one below the other, so it has four blocks: content or position of the last
token, by content or position of token i.

Letters and sizes:

    z_i, T       the token at position i of a prompt of T tokens; last = T − 1
    N, R, n      subjects (and answers), relations, pairs in a prompt
    V, L         V = 2N + R tokens in the vocabulary; L = 2n + 2 position vectors, T ≤ L
    d, dp, m     width of an embedding, of a position vector; hidden units
    rows, query  rows[i] = [E[z_i]; P[i]]; what the last token asks with, WKQᵀ rows[last]
    slot         the tokens start ≤ u < stop that compete in the softmax of the loss
    dX           the derivative of the loss by X, with the shape of X

In the literature's terms WKQ is a QK matrix; the values are the embeddings themselves, so the OV matrix
is the identity. Source: the one-layer model of HNLG26, formalised.

Weights are [out, in] and act on column vectors, so rows of activations go through as `x @ W.T`.
"""

from typing import NamedTuple

import numpy as np

from refimpl import check, ops

ACTIVATIONS = {"square": (ops.square_forward, ops.square_backward),
               "relu": (ops.relu_forward, ops.relu_backward)}


class Params(NamedTuple):
    """The seven arrays of the model, all of one dtype: float64, float32 or complex128."""

    E: np.ndarray       # (V, d) token embeddings
    U: np.ndarray       # (V, d) unembeddings
    P: np.ndarray       # (L, dp) position vectors
    WKQ: np.ndarray     # (d+dp, d+dp) queries by keys
    W1: np.ndarray      # (m, d) keys of the memory
    b1: np.ndarray      # (m,)
    W2: np.ndarray      # (d, m) values of the memory

    def __repr__(self):
        return check.summary(self)


class Trace(NamedTuple):
    """Every activation of one prompt of T tokens."""

    rows: np.ndarray            # (T, d+dp) [E[z_i]; P[i]]
    scores: np.ndarray          # (T,)
    attention: np.ndarray       # (T,) α
    x: np.ndarray               # (d,) Σ_i α_i E[z_i]
    preactivation: np.ndarray   # (m,) W1 x + b1
    hidden: np.ndarray          # (m,) h
    y: np.ndarray               # (d,) W2 h
    logits: np.ndarray          # (V,)

    def __repr__(self):
        return check.summary(self)


def forward_pass(params, z, activation):
    """The forward pass in numbered steps, on arguments that have been checked: z (T,) -> Trace, query."""
    E, U, P, WKQ, W1, b1, W2 = params
    phi = ACTIVATIONS[activation][0]
    content = ops.embed_forward(E, z)                               # 1
    rows = np.hstack([content, P[:len(z)]])                         # 2
    query = rows[-1] @ WKQ                                          # 3
    scores = rows @ query
    attention = ops.softmax_forward(scores)                         # 4
    x = attention @ content                                         # 5
    preactivation = W1 @ x + b1                                     # 6
    hidden = phi(preactivation)                                     # 7
    y = W2 @ hidden                                                 # 8
    logits = U @ y                                                  # 9
    return Trace(rows, scores, attention, x, preactivation, hidden, y, logits), query


def backward_pass(params, z, activation, trace, query, dlogits):
    """Undo the numbered steps in reverse: dlogits (V,) -> Params of gradients.

    For y = W x the derivatives are dx = Wᵀ dy and dW = dy xᵀ. An activation that is used more than
    once adds up what comes back from each use: rows[i] as key, rows[-1] as query, content as value.
    """
    E, U, P, WKQ, W1, b1, W2 = params
    phi_backward = ACTIVATIONS[activation][1]
    rows, d = trace.rows, E.shape[1]
    dU = np.outer(dlogits, trace.y)                                 # 9
    dy = dlogits @ U
    dW2 = np.outer(dy, trace.hidden)                                # 8
    dhidden = dy @ W2
    dpreactivation = phi_backward(trace.preactivation, dhidden)     # 7
    dW1 = np.outer(dpreactivation, trace.x)                         # 6
    db1 = dpreactivation
    dx = dpreactivation @ W1
    dattention = rows[:, :d] @ dx                                   # 5
    dcontent = np.outer(trace.attention, dx)
    dscores = ops.softmax_backward(trace.attention, dattention)     # 4
    dquery = dscores @ rows                                         # 3
    dWKQ = np.outer(rows[-1], dquery)
    drows = np.outer(dscores, query)
    drows[-1] += WKQ @ dquery
    dcontent += drows[:, :d]                                        # 2
    dP = np.zeros_like(P)
    dP[:len(z)] = drows[:, d:]
    dE = np.zeros_like(E)                                           # 1
    ops.embed_backward(z, dcontent, dE)
    return Params(dE, dU, dP, dWKQ, dW1, db1, dW2)


def init(N, R, n, d, dp, m, rng):
    """Gaussian E, U, P, W1 and W2 with rows of length about 1, WKQ and b1 zero; float64.

    N subjects, R relations, n pairs (V = 2N + R tokens, L = 2n + 2 positions), widths d and dp, m hidden
    units, each ≥ 1. Entries are N(0, 1/d), of P N(0, 1/dp) and of W2 N(0, 1/m). Raises ValueError on
    other sizes, or sizes that do not fit into memory.
    """
    N, R, n, d, dp, m = (check.integer(*item, 1) for item in
                         (("N", N), ("R", R), ("n", n), ("d", d), ("dp", dp), ("m", m)))
    check.instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
    V, L = 2 * N + R, 2 * n + 2
    check.memory("N, R, n, d, dp, m", 8 * (2 * V * d + L * dp + (d + dp) ** 2 + 2 * m * d))
    E, U, P, W1, W2 = (rng.normal(0, shape[1] ** -0.5, shape)
                       for shape in ((V, d), (V, d), (L, dp), (m, d), (d, m)))
    return Params(E, U, P, np.zeros((d + dp, d + dp)), W1, np.zeros(m), W2)


def position_logits(params, T):
    """The row of WKQ by which position T−1 asks for the positions 0 … T−1: a copy, (T,).

    With one-hot positions, as `construct` has them, these are the scores of a prompt of T tokens as far
    as positions alone decide. Given the gradients, it returns the derivatives by these logits.
    Raises ValueError unless WKQ has room for T positions.
    """
    params, row, columns = position_row(params, T)
    return params.WKQ[row, columns].copy()


def with_position_logits(params, w):
    """The same Params, except that `position_logits(…, len(w))` are w (T,).

    Raises ValueError on other shapes or dtypes, or numbers that are not finite.
    """
    w = check.floats("w", w, (None,))
    params, row, columns = position_row(params, len(w), "w")
    WKQ = params.WKQ.copy()
    WKQ[row, columns] = check.floats("w", w, (None,), WKQ.dtype)
    return params._replace(WKQ=WKQ)


def position_row(params, T, name="T"):
    """Checked params, and the row and columns of T position logits in WKQ."""
    params = check_params(params)
    d, dp = params.E.shape[1], params.P.shape[1]
    T = check.integer(name, T, 1, dp + 1)
    return params, d + T - 1, slice(d, d + T)


def forward(params, tokens, activation="square"):
    """Run one prompt through the model: tokens (T,), integers in 0..V−1, 1 ≤ T ≤ L -> Trace.

    activation : "square" or "relu". Raises ValueError on bad shapes, dtypes, token ids, weights that are
    not finite or so large that an activation is not, or activations that do not fit into memory.
    """
    params = check_params(params)
    check.choice("activation", activation, tuple(ACTIVATIONS))
    z = check.integers("tokens", tokens, 0, len(params.E), ndim=1)
    check_length(len(z), params)
    with np.errstate(**check.QUIET):
        return check.computed(forward_pass(params, z, activation)[0], params)


def loss(params, tokens, targets, slot=None, activation="square"):
    """Mean over the prompts of −log softmax(logits over the slot)[target], in nats.

    Parameters and errors as `loss_and_grads`; also takes complex128 parameters (complex step).
    """
    params, z, targets, (start, stop) = check_batch(params, tokens, targets, slot, activation)
    total = check.one(params.E) - check.one(params.E)
    with np.errstate(**check.QUIET):
        for b in range(len(z)):
            logits = forward_pass(params, z[b], activation)[0].logits[None]
            total += ops.cross_entropy_forward(logits, targets[b:b + 1], start, stop)[0]
        total /= params.E.real.dtype.type(len(z))
    return check.computed((total,), params)[0]


def loss_and_grads(params, tokens, targets, slot=None, activation="square"):
    """Loss of one step and the gradients of all seven fields.

    Parameters
    ----------
    params : Params, real
    tokens : (count, T) integers in 0..V−1, 1 ≤ T ≤ L
    targets : (count,) token ids within the slot
    slot : (start, stop), the tokens start ≤ u < stop that compete; None is the whole vocabulary
    activation : "square" or "relu"

    Returns
    -------
    loss : scalar, as `loss` gives it
    grads : Params, the derivative of the loss by every entry

    Raises ValueError on bad shapes, dtypes, token ids, slot, weights that are not finite or so large
    that the loss or a gradient is not, or activations that do not fit into memory.
    """
    params, z, targets, (start, stop) = check_batch(params, tokens, targets, slot, activation)
    dtype = check.real_dtype("params", params.E.dtype)
    one = check.one(params.E)
    total = one - one
    grads = Params(*(np.zeros_like(array) for array in params))
    dloss = np.array([one / dtype.type(len(z))])
    with np.errstate(**check.QUIET):
        for b in range(len(z)):
            trace, query = forward_pass(params, z[b], activation)
            logits, target = trace.logits[None], targets[b:b + 1]
            total += ops.cross_entropy_forward(logits, target, start, stop)[0]
            dlogits = ops.cross_entropy_backward(logits, target, start, stop, dloss)[0]
            for sum_b, grad in zip(grads, backward_pass(params, z[b], activation, trace, query, dlogits)):
                sum_b += grad
        total /= dtype.type(len(z))
    check.computed((total, *grads), params)
    return total, grads


def check_params(params):
    """Return Params of contiguous arrays; raise ValueError unless shapes and dtypes fit together."""
    check.instance("params", params, Params, "recall.Params")
    E = check.floats("E", params.E, (None, None))
    (V, d), dtype = E.shape, E.dtype
    P = check.floats("P", params.P, (None, None), dtype)
    W1 = check.floats("W1", params.W1, (None, d), dtype)
    width, m = d + P.shape[1], len(W1)
    shapes = (V, d), (V, d), P.shape, (width, width), (m, d), (m,), (d, m)
    return Params(*(check.floats(*item, dtype) for item in zip(Params._fields, params, shapes)))


def check_batch(params, tokens, targets, slot, activation):
    """Check the arguments of `loss_and_grads`; return params, tokens, targets and slot."""
    params = check_params(params)
    check.choice("activation", activation, tuple(ACTIVATIONS))
    V = len(params.E)
    z = check.integers("tokens", tokens, 0, V, ndim=2)
    check_length(z.shape[1], params)
    if slot is None:
        slot = (0, V)
    if np.shape(slot) != (2,):
        raise ValueError(f"slot: expected None or (start, stop), got {slot!r}")
    start = check.integer("slot start", slot[0], 0, V)
    stop = check.integer("slot stop", slot[1], start + 1, V + 1)
    targets = check.integers("targets", targets, start, stop, ndim=1)
    if len(targets) != len(z):
        raise ValueError(f"targets: expected one for each of {len(z)} prompts, got {len(targets)}")
    return params, z, targets, (start, stop)


def check_length(T, params):
    """Raise ValueError unless 1 ≤ T ≤ L, and the activations of one prompt fit into memory."""
    if not 1 <= T <= len(params.P):
        raise ValueError(f"tokens: expected 1..{len(params.P)} positions (rows of P), got {T}")
    check.memory("tokens", 3 * params.E.itemsize * T * len(params.WKQ))
