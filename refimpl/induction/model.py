"""The two-layer attention transformer, forward and backward, one sequence at a time.

    x0_t = E[z_t]                                  (+ pos[t]        if encoding = "absolute")
    S1_ts = x0_t · WK1 x0_s                        (x0_s + pos[t−s] if encoding = "relative"), s ≤ t
    x1_t = x0_t + Phi Σ_s A1_ts x0_s,              A1 = softmax_s(S1)
    S2_ts = x1_t · WK2 x1_s, s ≤ t
    x2_t = x1_t + WO WV Σ_s A2_ts x1_s,            A2 = softmax_s(S2)
    logits_t = U (x2_t + WF x2_t)

Queries use W_Q = I, there is no 1/√d (it is absorbed in WK1 and WK2), no normalisation, and the
feed-forward layer WF is linear. Source: the simplified architecture of BCBJB23; Phi plays its
W_O¹W_V¹ and WO its W_O².

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
    y: np.ndarray           # (T, d)
    logits: np.ndarray      # (T, V)


def init(V, d, L, rng):
    """Gaussian E, U, pos, Phi and WV with entries N(0, 1/d), trained weights zero; float64.

    V ≥ 2 tokens, width d ≥ 1, L ≥ 1 positions. Rows have length about 1. Source: BCBJB23.
    """
    V, d, L = check.integer("V", V, 2), check.integer("d", d, 1), check.integer("L", L, 1)
    check.instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
    E, U, pos, Phi, WV = (rng.normal(0, d ** -0.5, (rows, d)) for rows in (V, V, L, d, d))
    return Params(E, U, pos, Phi, WV, *(np.zeros((d, d)) for _ in range(4)))


def forward(params, tokens, encoding="relative"):
    """Run one sequence through the model.

    Parameters
    ----------
    params : Params
    tokens : (T,) integers in 0..V−1, 1 ≤ T ≤ L
    encoding : "relative" or "absolute"

    Returns
    -------
    Trace. Raises ValueError on bad shapes, dtypes, token ids, or weights that are not finite.
    """
    params = check_params(params)
    check.choice("encoding", encoding, ENCODINGS)
    z = check.integers("tokens", tokens, 0, len(params.E), ndim=1)
    check_length(len(z), params)
    return forward_pass(params, z, encoding)


def forward_pass(params, z, encoding):
    """The forward pass itself, in numbered steps, on arguments that have been checked."""
    E, U, pos, Phi, WV, WK1, WK2, WO, WF = params
    T = len(z)
    x0 = ops.embed_forward(E, z)                                        # 1
    if encoding == "absolute":
        x0 = x0 + pos[:T]
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
    x2 = x1 + (h2 @ WV.T) @ WO.T                                        # 11
    y = x2 + x2 @ WF.T                                                  # 12
    logits = y @ U.T                                                    # 13
    return Trace(x0, scores1, attention1, h1, x1, scores2, attention2, h2, x2, y, logits)


def backward_pass(params, z, encoding, trace, dlogits):
    """Undo the numbered steps in reverse: dlogits (T, V) -> Params of gradients.

    For y = x Wᵀ the cotangents are dx = dy W and dW = dyᵀ x; for S = q kᵀ, dq = dS k and
    dk = dSᵀ q. An activation that is used more than once adds up what comes back from each use.
    """
    E, U, pos, Phi, WV, WK1, WK2, WO, WF = params
    x0, _, attention1, h1, x1, _, attention2, h2, x2, y, _ = trace
    q1, q2, v2 = x0 @ WK1, x1 @ WK2, h2 @ WV.T
    dU = dlogits.T @ y                                                  # 13
    dy = dlogits @ U
    dWF = dy.T @ x2                                                     # 12
    dx2 = dy + dy @ WF
    dWO = dx2.T @ v2                                                    # 11
    dv2 = dx2 @ WO
    dWV = dv2.T @ h2
    dh2 = dv2 @ WV
    dattention2 = dh2 @ x1.T                                            # 10
    dx1 = dx2 + attention2.T @ dh2
    dscores2 = ops.causal_softmax_backward(attention2, dattention2)     # 9
    dq2 = dscores2 @ x1                                                 # 8
    dx1 += dscores2.T @ q2
    dWK2 = x1.T @ dq2                                                   # 7
    dx1 += dq2 @ WK2.T
    dPhi = dx1.T @ h1                                                   # 6
    dh1 = dx1 @ Phi
    dattention1 = dh1 @ x0.T                                            # 5
    dx0 = dx1 + attention1.T @ dh1
    dscores1 = ops.causal_softmax_backward(attention1, dattention1)     # 4
    dq1 = dscores1 @ x0                                                 # 3
    dx0 += dscores1.T @ q1
    if encoding == "relative":
        dposition = ops.relative_scores_backward(dscores1, len(pos))
        dq1 += dposition @ pos
        dpos = dposition.T @ q1
    dWK1 = x0.T @ dq1                                                   # 2
    dx0 += dq1 @ WK1.T
    dE = np.zeros_like(E)                                               # 1
    ops.embed_backward(z, dx0, dE)
    if encoding == "absolute":
        dpos = np.zeros_like(pos)
        dpos[:len(z)] = dx0
    return Params(dE, dU, dpos, dPhi, dWV, dWK1, dWK2, dWO, dWF)


def loss(params, tokens, mask, encoding="relative"):
    """Mean over the mask of −log softmax(logits_t)[z_{t+1}], in nats.

    Parameters and errors as `loss_and_grads`; also takes complex128 parameters (complex step).
    """
    params, z, mask = check_batch(params, tokens, mask, encoding)
    total = params.E.dtype.type(0)
    for b in range(len(z)):
        logits = forward_pass(params, z[b, :-1], encoding).logits
        losses = ops.cross_entropy_forward(logits, z[b, 1:], 0, len(params.E))
        total += losses[mask[b]].sum()
    return total / mask.sum(dtype=params.E.real.dtype)


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
    loss : scalar, mean over the mask of −log softmax(logits_t)[z_{t+1}], in nats
    grads : Params, the derivative of the loss by every entry

    Raises ValueError on bad shapes, dtypes, token ids, an empty mask, or weights not finite.
    """
    params, z, mask = check_batch(params, tokens, mask, encoding)
    dtype = params.E.dtype
    if dtype.kind != "f":
        raise ValueError(f"params: expected float64 or float32, got {dtype}")
    total = dtype.type(0)
    grads = Params(*(np.zeros_like(field) for field in params))
    dlosses = mask.astype(dtype) / mask.sum(dtype=dtype)
    for b in range(len(z)):
        trace = forward_pass(params, z[b, :-1], encoding)
        losses = ops.cross_entropy_forward(trace.logits, z[b, 1:], 0, len(params.E))
        total += losses[mask[b]].sum()
        dlogits = ops.cross_entropy_backward(trace.logits, z[b, 1:], 0, len(params.E), dlosses[b])
        for sum_b, grad in zip(grads, backward_pass(params, z[b, :-1], encoding, trace, dlogits)):
            sum_b += grad
    return total / mask.sum(dtype=dtype), grads


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
