"""Three attention layers without position vectors, forward only (claim I11).

    x0_t = E[z_t]
    S1_ts = x0_t · WK1 x0_s, s ≤ t;   A1 = softmax_s(S1);   x1_t = x0_t + Phi1 Σ_s A1_ts x0_s
    S2_ts = x1_t · WK2 x1_s, s ≤ t;   A2 = softmax_s(S2);   x2_t = x1_t + Phi2 Σ_s A2_ts x1_s
    S3_ts = x2_t · WK3 x2_s, s ≤ t;   A3 = softmax_s(S3);   x3_t = x2_t + WO WV Σ_s A3_ts x2_s
    logits_t = U (x3_t + WF x3_t)

Letters as in model.py; κ (`kappa`) is the marker, a token that stands first in each sequence and nowhere
else. Only the causal mask depends on order, but the weight of the marker in a uniform attention falls
with t, and so tells the position. Source: an extension of this project; WS24 v2 mentions three layers
without positions.
"""

from typing import NamedTuple

import numpy as np

from refimpl import check, ops
from refimpl.induction.memory import log_bigram
from refimpl.induction.task import trigger_ids


class Params(NamedTuple):
    """The ten arrays of the model, all of one dtype."""

    E: np.ndarray       # (V, d) token embeddings
    U: np.ndarray       # (V, d) unembeddings
    Phi1: np.ndarray    # (d, d) fixed mixing matrix of layer 1
    Phi2: np.ndarray    # (d, d) fixed mixing matrix of layer 2
    WV: np.ndarray      # (d, d) fixed value matrix of layer 3
    WK1: np.ndarray     # (d, d) keys of layer 1: look at the marker
    WK2: np.ndarray     # (d, d) keys of layer 2: look at the previous token
    WK3: np.ndarray     # (d, d) keys of layer 3: look after the last copy of the trigger
    WO: np.ndarray      # (d, d) output matrix of layer 3
    WF: np.ndarray      # (d, d) feed-forward memory


class Trace(NamedTuple):
    """What claim I11 compares. Attention is zero above the diagonal."""

    attention1: np.ndarray  # (T, T)
    attention2: np.ndarray  # (T, T)
    attention3: np.ndarray  # (T, T)
    logits: np.ndarray      # (T, V)


def orthonormal_frame(V, rng):
    """Params of width d = 5V without memories; float64, V ≥ 2.

    The rows of E, E Phi1ᵀ, E Phi2ᵀ, E Phi1ᵀ Phi2ᵀ and U are one orthonormal set, from one QR
    factorisation; Phi1 and Phi2 map everything else to zero. WV is a random orthogonal matrix. Raises
    ValueError if V is less than 2 or the arrays do not fit into memory.
    """
    V = check.integer("V", V, 2)
    check.instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
    d = 5 * V
    check.memory("V", 8 * 12 * d ** 2)
    rows, WV = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))
    return frame_of(rows, WV)


def frame_of(rows, WV):
    """The frame whose vectors are the rows of an orthogonal matrix, in order."""
    E, E_1, E_2, E_12, U = np.split(rows, 5)
    Phi1, Phi2 = E_1.T @ E, E_2.T @ E + E_12.T @ E_1
    return Params(E.copy(), U.copy(), Phi1, Phi2, WV, *(0 * WV for _ in range(5)))


def construct(frame, bigram, triggers, kappa, b1, beta, gamma, b3, bo):
    """Write the three heads and the bigram memory into a frame; with 1 = Σ_v E[v],

        WK1 = b1 · 1 E[κ]ᵀ
        WK2 = −γ Σ_v E[v] E[v]ᵀ − β · 1 (Phi1 E[κ])ᵀ
        WK3 = b3 Σ_{q∈Q} E[q] (Phi2 E[q])ᵀ
        WO  = bo Σ_v U[v] (WV E[v])ᵀ
        WF  = Σ_{v,u} log pi_b[v, u] · U[u] E[v]ᵀ

    Parameters
    ----------
    frame : Params, its E, U, Phi1, Phi2 and WV
    bigram : Bigram with V tokens and without zeros
    triggers : int K, for tokens 0 … K−1, or (K,) token ids
    kappa : the marker's token id
    b1, beta, gamma, b3, bo : float >= 0, strengths

    Returns Params. Raises ValueError on bad input, and on a pair of probability 0.
    """
    E, U, Phi1, Phi2, WV = check_params(frame)[:5]
    Q, kappa = trigger_ids(triggers, len(E)), check.integer("kappa", kappa, 0, len(E))
    b1, beta, gamma, b3, bo = (check.real(*item, low=0) for item in (
        ("b1", b1), ("beta", beta), ("gamma", gamma), ("b3", b3), ("bo", bo)))
    every = E.sum(axis=0)
    WK1 = b1 * np.outer(every, E[kappa])
    WK2 = -gamma * E.T @ E - beta * np.outer(every, Phi1 @ E[kappa])
    WK3 = b3 * E[Q].T @ (E[Q] @ Phi2.T)
    WO = bo * U.T @ (E @ WV.T)
    WF = U.T @ log_bigram(bigram, len(E)).T @ E
    return Params(E, U, Phi1, Phi2, WV, *(W.astype(E.dtype) for W in (WK1, WK2, WK3, WO, WF)))


def forward(params, tokens):
    """Run one sequence, (T,) integers in 0..V−1, T ≥ 1, through the model; returns Trace.

    The caller puts the marker first in `tokens`. Raises ValueError on bad shapes, dtypes or token ids,
    weights that are not finite or so large that an activation is not, or too many tokens for the memory.
    """
    E, U, Phi1, Phi2, WV, WK1, WK2, WK3, WO, WF = params = check_params(params)
    z = check.integers("tokens", tokens, 0, len(E), ndim=1)
    check.memory("tokens", E.itemsize * len(z) * (6 * len(z) + len(E)))
    with np.errstate(**check.QUIET):
        x0 = ops.embed_forward(E, z)
        attention1 = ops.causal_softmax_forward(np.tril(x0 @ WK1 @ x0.T))
        x1 = x0 + attention1 @ x0 @ Phi1.T
        attention2 = ops.causal_softmax_forward(np.tril(x1 @ WK2 @ x1.T))
        x2 = x1 + attention2 @ x1 @ Phi2.T
        attention3 = ops.causal_softmax_forward(np.tril(x2 @ WK3 @ x2.T))
        x3 = x2 + attention3 @ x2 @ WV.T @ WO.T
        logits = (x3 + x3 @ WF.T) @ U.T
    return check.computed(Trace(attention1, attention2, attention3, logits), params)


def check_params(params):
    """Return Params of contiguous arrays; raise ValueError unless shapes and dtypes fit together."""
    check.instance("params", params, Params, "nopos.Params")
    E = check.floats("E", params.E, (None, None))
    V, d = E.shape
    if V < 2 or d < 1:
        raise ValueError(f"E: expected shape (V, d) with V >= 2 and d >= 1, got {E.shape}")
    return Params(E, *(check.floats(name, field, (V if name == "U" else d, d), E.dtype)
                       for name, field in zip(Params._fields[1:], params[1:])))
