"""Weights written by hand: the associative memories that make an induction head.

Each memory is a sum of outer products. WK1 makes every position attend to the one before it, and Phi adds
an image Phi E[v] of the token v that is there. WK2 makes a trigger q attend to where the image Phi E[q]
is: one position after an earlier q. WO copies the token that stands there into the logits. Sources: BCBJB23
for the memories, WS24 for their strengths; the frame is this project's.
"""

import numpy as np

from refimpl import check
from refimpl.induction.model import ENCODINGS, Params, check_params
from refimpl.induction.task import Bigram, trigger_ids


def orthonormal_frame(V, L, rng, encoding="relative"):
    """Embeddings in which the memories do not interfere, with the trained weights zero; float64.

    The rows of E, E Phiᵀ, U and pos (and of pos Phiᵀ when absolute) are one orthonormal set, from
    one QR factorisation; d = 3V + L (relative) or 3V + 2L (absolute) is the smallest width that
    holds it. Phi maps E[v], and pos[t] when absolute, to their images and everything else to zero.
    WV is a random orthogonal matrix. V ≥ 2, L ≥ 1. Raises ValueError on a bad encoding, and on sizes that
    are too small or do not fit into memory.
    """
    V, L = check.integer("V", V, 2), check.integer("L", L, 1)
    check.choice("encoding", encoding, ENCODINGS)
    check.instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
    d = 3 * V + (L if encoding == "relative" else 2 * L)
    check.memory("V, L", 8 * 9 * d ** 2)
    rows, WV = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))
    return frame_of(rows, WV, V, L, encoding)


def frame_of(rows, WV, V, L, encoding):
    """The frame whose vectors are the rows of an orthogonal matrix, in order."""
    E, E_image, U, pos, pos_image = np.split(rows, [V, 2 * V, 3 * V, 3 * V + L])
    Phi = E_image.T @ E
    if encoding == "absolute":
        Phi = Phi + pos_image.T @ pos
    return Params(E.copy(), U.copy(), pos.copy(), Phi, WV, *(0 * WV for _ in range(4)))


def construct(frame, bigram, triggers, b1, b2, bo, encoding="relative", train_length=None):
    """Write the induction head and the bigram memory into a frame.

        WK1 = b1 Σ_v E[v] pos[1]ᵀ                        relative
        WK1 = b1 Σ_{1≤t<L0} pos[t] pos[t−1]ᵀ             absolute, L0 = train_length
        WK2 = b2 Σ_{q∈Q} E[q] (Phi E[q])ᵀ
        WO  = bo Σ_v U[v] (WV E[v])ᵀ
        WF  = Σ_{v,u} log pi_b[v, u] · U[u] E[v]ᵀ

    Parameters
    ----------
    frame : Params, its E, U, pos, Phi and WV: any embeddings, orthonormal or not
    bigram : Bigram with V tokens and without zeros
    triggers : int K, for tokens 0 … K−1, or (K,) token ids
    b1, b2, bo : float >= 0, strengths
    encoding : "relative" or "absolute"
    train_length : int in 1..L, absolute only: the length seen in training, L by default

    Returns
    -------
    Params. Raises ValueError on bad input, and on a pair of probability 0: its logarithm is −∞, and
    a memory must be finite. A bigram with a prior > 0 has no such pair.

    Source: the memories of BCBJB23; provenance: formalised.
    """
    E, U, pos, Phi, WV = check_params(frame)[:5]
    check.choice("encoding", encoding, ENCODINGS)
    b1, b2, bo = (check.real(*item, low=0) for item in (("b1", b1), ("b2", b2), ("bo", bo)))
    Q = trigger_ids(triggers, len(E))
    log_pi_b = log_bigram(bigram, len(E))
    if train_length is not None and encoding == "relative":
        raise ValueError("train_length: expected None with relative positions, which know no length")
    L0 = len(pos) if train_length is None else check.integer("train_length", train_length, 1, len(pos) + 1)
    if encoding == "relative":
        # With L = 1 no key ever stands one back, and the memory is empty.
        WK1 = b1 * np.outer(E.sum(axis=0), pos[1:2].sum(axis=0))
    else:
        WK1 = b1 * pos[1:L0].T @ pos[:L0 - 1]
    WK2 = b2 * E[Q].T @ (E[Q] @ Phi.T)
    WO = bo * U.T @ (E @ WV.T)
    WF = U.T @ log_pi_b.T @ E
    return Params(E, U, pos, Phi, WV, *(W.astype(E.dtype) for W in (WK1, WK2, WO, WF)))


def log_bigram(bigram, V):
    """log pi_b (V, V), refusing zeros by name."""
    pi_b = check.law("pi_b", check.instance("bigram", bigram, Bigram, "induction.Bigram").pi_b, 2, V)
    if pi_b.min() == 0:
        v, u = np.argwhere(pi_b == 0)[0]
        raise ValueError(f"pi_b: expected no zeros, whose logarithm is not finite, got pi_b[{v}, {u}] "
                         "= 0; a prior > 0 in from_text or from_counts avoids them")
    return np.log(pi_b)
