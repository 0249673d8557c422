"""The two-layer attention transformer, forward and backward, one sequence at a time.

    x0_t = E[z_t]                                  (+ pos[t]        if encoding = "absolute")
    S1_ts = x0_t · WK1 x0_s                        (x0_s + pos[t−s] if encoding = "relative"), s ≤ t
    x1_t = x0_t + Phi Σ_s A1_ts x0_s,              A1 = softmax_s(S1)
    S2_ts = x1_t · WK2 x1_s, s ≤ t
    x2_t = x1_t + WO WV Σ_s A2_ts x1_s,            A2 = softmax_s(S2)
    logits_t = U (x2_t + WF x2_t)

Letters and sizes:

    z_t          the token at position t, one of V; its logits at t are for the next token, z_{t+1}
    t, s         positions: t asks (it is the query), s is asked (it is the key)
    v, u         tokens: v one that has been read, u one that may come next
    B, T, L      sequences in a batch, positions in a sequence, position vectors in `pos`; T ≤ L
    d            width: how many numbers an activation has
    x0, x1, x2   activations: after the embedding, layer 1 and layer 2
    S, A, h      scores, attention (rows sum to 1), and the mean of activations that it takes
    q, v2        queries x WK; values h2 WVᵀ
    dX           the derivative of the loss by X, with the shape of X

In the literature's terms WK1 and WK2 are QK matrices (queries use W_Q = I), Phi and WO WV are OV
matrices. There is no 1/√d (WK1 and WK2 absorb it) and no normalisation, and the feed-forward layer WF
is linear. Source: the simplified architecture of BCBJB23; Phi is its W_O¹W_V¹ and WO its W_O².

Weights are [out, in] and act on column vectors, so rows of activations go through as `x @ W.T`.
"""

from typing import NamedTuple

import numpy as np

from refimpl import check, ops

ENCODINGS = ("relative", "absolute")


class Params(NamedTuple):
    """The nine arrays of the model, all of one dtype: float64, float32 or complex128."""

    E: np.ndarray       # (V, d) token embeddings
    U: np.ndarray       # (V, d) unembeddings
    pos: np.ndarray     # (L, d) position vectors: pos[t], or pos[δ] for the key δ positions back
    Phi: np.ndarray     # (d, d) fixed mixing matrix of layer 1
    WV: np.ndarray      # (d, d) fixed value matrix of layer 2
    WK1: np.ndarray     # (d, d) keys of layer 1
    WK2: np.ndarray     # (d, d) keys of layer 2
    WO: np.ndarray      # (d, d) output matrix of layer 2
    WF: np.ndarray      # (d, d) feed-forward memory

    def __repr__(self):
        return check.summary(self)


class Trace(NamedTuple):
    """Every activation of one sequence. Scores and attention are zero above the diagonal."""

    x0: np.ndarray          # (T, d)
    scores1: np.ndarray     # (T, T) S1[t, s]
    attention1: np.ndarray  # (T, T) A1[t, s]
    h1: np.ndarray          # (T, d) Σ_s A1_ts x0_s
    x1: np.ndarray          # (T, d)
    scores2: np.ndarray     # (T, T) S2[t, s]
    attention2: np.ndarray  # (T, T) A2[t, s]
    h2: np.ndarray          # (T, d) Σ_s A2_ts x1_s
    x2: np.ndarray          # (T, d)
    y: np.ndarray           # (T, d) x2 + x2 WFᵀ
    logits: np.ndarray      # (T, V)

    def __repr__(self):
        return check.summary(self)


class Kept(NamedTuple):
    """What the backward needs beside the trace, each (T, d)."""

    q1: np.ndarray
    q2: np.ndarray
    v2: np.ndarray


def forward_pass(params, z, encoding):
    """The forward pass in numbered steps, on arguments that have been checked: z (T,) -> Trace, Kept."""
    E, U, pos, Phi, WV, WK1, WK2, WO, WF = params
    x0 = ops.embed_forward(E, z)                                        # 1
    if encoding == "absolute":
        x0 = x0 + pos[:len(z)]
    q1 = x0 @ WK1                                                       # 2
    if encoding == "relative":                                          # 3
        scores1 = ops.relative_scores_forward(q1 @ x0.T, q1 @ pos.T)
    else:
        scores1 = np.tril(q1 @ x0.T)
    attention1 = ops.causal_softmax_forward(scores1)                    # 4
    h1 = attention1 @ x0                                                # 5
    x1 = x0 + h1 @ Phi.T                                                # 6
    q2 = x1 @ WK2                                                       # 7
    scores2 = np.tril(q2 @ x1.T)                                        # 8
    attention2 = ops.causal_softmax_forward(scores2)                    # 9
    h2 = attention2 @ x1                                                # 10
    v2 = h2 @ WV.T                                                      # 11
    x2 = x1 + v2 @ WO.T
    y = x2 + x2 @ WF.T                                                  # 12
    logits = y @ U.T                                                    # 13
    return (Trace(x0, scores1, attention1, h1, x1, scores2, attention2, h2, x2, y, logits),
            Kept(q1, q2, v2))


def backward_pass(params, z, encoding, trace, kept, dlogits):
    """Undo the numbered steps in reverse: dlogits (T, V) -> Params of gradients.

    For y = x Wᵀ the derivatives are dx = dy W and dW = dyᵀ x; for S = q kᵀ they are dq = dS k and
    dk = dSᵀ q. An activation that is used more than once adds up what comes back from each use.
    """
    E, U, pos, Phi, WV, WK1, WK2, WO, WF = params
    dU = dlogits.T @ trace.y                                                    # 13
    dy = dlogits @ U
    dWF = dy.T @ trace.x2                                                       # 12
    dx2 = dy + dy @ WF
    dWO = dx2.T @ kept.v2                                                       # 11
    dv2 = dx2 @ WO
    dWV = dv2.T @ trace.h2
    dh2 = dv2 @ WV
    dattention2 = dh2 @ trace.x1.T                                              # 10
    dx1 = dx2 + trace.attention2.T @ dh2
    dscores2 = ops.causal_softmax_backward(trace.attention2, dattention2)       # 9
    dq2 = dscores2 @ trace.x1                                                   # 8
    dx1 += dscores2.T @ kept.q2
    dWK2 = trace.x1.T @ dq2                                                     # 7
    dx1 += dq2 @ WK2.T
    dPhi = dx1.T @ trace.h1                                                     # 6
    dh1 = dx1 @ Phi
    dattention1 = dh1 @ trace.x0.T                                              # 5
    dx0 = dx1 + trace.attention1.T @ dh1
    dscores1 = ops.causal_softmax_backward(trace.attention1, dattention1)       # 4
    dq1 = dscores1 @ trace.x0                                                   # 3
    dx0 += dscores1.T @ kept.q1
    if encoding == "relative":
        doffset = ops.relative_scores_backward(dscores1, len(pos))
        dq1 += doffset @ pos
        dpos = doffset.T @ kept.q1
    dWK1 = trace.x0.T @ dq1                                                     # 2
    dx0 += dq1 @ WK1.T
    if encoding == "absolute":                                                  # 1
        dpos = np.zeros_like(pos)
        dpos[:len(z)] = dx0
    dE = np.zeros_like(E)
    ops.embed_backward(z, dx0, dE)
    return Params(dE, dU, dpos, dPhi, dWV, dWK1, dWK2, dWO, dWF)


def init(V, d, L, rng):
    """Gaussian E, U, pos, Phi and WV with entries N(0, 1/d), trained weights zero; float64.

    V ≥ 2 tokens, width d ≥ 1, L ≥ 1 positions. Rows have length about 1. Raises ValueError on other
    sizes, or sizes that do not fit into memory. Source: BCBJB23.
    """
    V, d, L = check.integer("V", V, 2), check.integer("d", d, 1), check.integer("L", L, 1)
    check.instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
    check.memory("V, d, L", 8 * d * (2 * V + L + 6 * d))
    E, U, pos, Phi, WV = (rng.normal(0, d ** -0.5, (rows, d)) for rows in (V, V, L, d, d))
    return Params(E, U, pos, Phi, WV, *(np.zeros((d, d)) for _ in range(4)))


def forward(params, tokens, encoding="relative"):
    """Run one sequence through the model: tokens (T,), integers in 0..V−1, 1 ≤ T ≤ L -> Trace.

    encoding : "relative" or "absolute". Raises ValueError on bad shapes, dtypes, token ids, weights that are
    not finite or so large that an activation is not, or activations that do not fit into memory.
    """
    params = check_params(params)
    check.choice("encoding", encoding, ENCODINGS)
    z = check.integers("tokens", tokens, 0, len(params.E), ndim=1)
    check_length(len(z), params)
    check_memory(len(z), params)
    with np.errstate(**check.QUIET):
        return check.computed(forward_pass(params, z, encoding)[0], params)


def loss(params, tokens, mask, encoding="relative"):
    """Mean over the mask of −log softmax(logits_t)[z_{t+1}], in nats.

    Parameters and errors as `loss_and_grads`; also takes complex128 parameters (complex step).
    """
    params, z, mask = check_batch(params, tokens, mask, encoding)
    check_memory(mask.shape[1], params)
    total = check.one(params.E) - check.one(params.E)
    with np.errstate(**check.QUIET):
        for b in range(len(z)):
            logits = forward_pass(params, z[b, :-1], encoding)[0].logits
            losses = ops.cross_entropy_forward(logits, z[b, 1:], 0, len(params.E))
            total += losses[mask[b]].sum()
        total /= mask.sum(dtype=params.E.real.dtype)
    return check.computed((total,), params)[0]


def loss_and_grads(params, tokens, mask, encoding="relative"):
    """Loss and the gradients of all nine fields.

    Parameters
    ----------
    params : Params, real
    tokens : (B, T+1) integers in 0..V−1, 1 ≤ T ≤ L: position t predicts token t+1
    mask : (B, T) bool, at least one True: the positions in the loss
    encoding : "relative" or "absolute"

    Returns
    -------
    loss : scalar, as `loss` gives it
    grads : Params, the derivative of the loss by every entry

    Raises ValueError on bad shapes, dtypes, token ids, an empty mask, weights that are not finite or so
    large that the loss or a gradient is not, or activations that do not fit into memory.
    """
    params, z, mask = check_batch(params, tokens, mask, encoding)
    check_memory(mask.shape[1], params)
    dtype = check.real_dtype("params", params.E.dtype)
    one = check.one(params.E)
    total = one - one
    grads = Params(*(np.zeros_like(field) for field in params))
    dlosses = mask * one / mask.sum(dtype=dtype)
    with np.errstate(**check.QUIET):
        for b in range(len(z)):
            trace, kept = forward_pass(params, z[b, :-1], encoding)
            losses = ops.cross_entropy_forward(trace.logits, z[b, 1:], 0, len(params.E))
            total += losses[mask[b]].sum()
            dlogits = ops.cross_entropy_backward(trace.logits, z[b, 1:], 0, len(params.E), dlosses[b])
            for sum_b, grad in zip(grads, backward_pass(params, z[b, :-1], encoding, trace, kept, dlogits)):
                sum_b += grad
        total /= mask.sum(dtype=dtype)
    check.computed((total, *grads), params)
    return total, grads


def check_params(params):
    """Return Params of contiguous arrays; raise ValueError unless shapes and dtypes fit together."""
    check.instance("params", params, Params, "induction.Params")
    E = check.floats("E", params.E, (None, None))
    (V, d), dtype = E.shape, E.dtype
    if V < 2 or d < 1:
        raise ValueError(f"E: expected shape (V, d) with V >= 2 and d >= 1, got {E.shape}")
    rest = [check.floats(name, field, (rows, d), dtype) for name, field, rows in
            zip(Params._fields[1:], params[1:], (V, None, d, d, d, d, d, d))]
    return Params(E, *rest)


def check_batch(params, tokens, mask, encoding):
    """Check the arguments of `loss_and_grads`; return params, tokens and mask as arrays."""
    params = check_params(params)
    check.choice("encoding", encoding, ENCODINGS)
    z = check.integers("tokens", tokens, 0, len(params.E), ndim=2)
    check_length(z.shape[1] - 1, params)
    return params, z, check.mask("mask", mask, (z.shape[0], z.shape[1] - 1))


def check_length(T, params):
    """Raise ValueError unless 1 ≤ T ≤ L."""
    if not 1 <= T <= len(params.pos):
        raise ValueError(f"tokens: expected 1..{len(params.pos)} positions (rows of pos), got {T}")


def check_memory(T, params):
    """Raise ValueError if the activations of one sequence do not fit into memory."""
    check.memory("tokens", params.E.itemsize * T * (6 * T + len(params.pos) + len(params.E)))
