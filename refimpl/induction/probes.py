"""Whether trained weights hold the memories that `construct` writes.

A probe reads one weight matrix through the embeddings, row by row. A row holds the scores of all
candidates for one query, and one candidate is right: the one that `construct` stores. A constant added to
a row changes no softmax, so margins and strengths are differences within a row. These are this project's;
transformer-birth, the code of BCBJB23, has the argmax alone, and counts a tie by its first candidate.
"""

from typing import NamedTuple

import numpy as np

from refimpl import check
from refimpl.induction.memory import log_bigram
from refimpl.induction.model import ENCODINGS, check_params
from refimpl.induction.task import trigger_ids


class Reading(NamedTuple):
    """What a probe finds, each a mean over its rows. Scores and logits are in nats."""

    argmax: float       # share of rows in which only the right candidate has the largest score
    margin: float       # right score − largest other
    strength: float     # right score − mean of the others: b1, b2 or bo in a constructed model


class Strengths(NamedTuple):
    """The three strengths of `construct`, and of `theory.logits`."""

    b1: float
    b2: float
    bo: float


def WK1(params, encoding="relative", train_length=None):
    """The previous-token memory.

    Relative: for each token v, is δ = 1 the argmax of E[v]·WK1 pos[δ] over 0 ≤ δ < train_length?
    Absolute: for each 1 ≤ t < train_length, is s = t−1 that of pos[t]·WK1 pos[s] over 0 ≤ s ≤ t?

    train_length : int in 2..L, the length seen in training, L by default.
    Returns Reading. Raises ValueError on bad parameters, or if WK1 is zero: nothing has been stored.
    Source: BCBJB23, whose name for these is memory recall probes. Departs from source: theirs takes the
    argmax over all keys but the last, later ones too, where a causal model sees s ≤ t only.
    """
    params = check_memory(params, "WK1")
    check.choice("encoding", encoding, ENCODINGS)
    L0 = check.integer("train_length", len(params.pos) if train_length is None else train_length,
                       2, len(params.pos) + 1)
    pos = params.pos[:L0]
    if encoding == "relative":
        return read((row, 1) for row in params.E @ params.WK1 @ pos.T)
    scores = pos @ params.WK1 @ pos.T
    return read((scores[t, :t + 1], t - 1) for t in range(1, L0))


def WK2(params, triggers):
    """The matching memory: for each trigger q, is v = q the argmax of E[q]·WK2 Phi E[v] over all v?

    triggers : int K, for tokens 0 … K−1, or (K,) token ids.
    Returns Reading. Raises ValueError on bad parameters or triggers, or if WK2 is zero.
    Source: BCBJB23. Departs from source: with fixed triggers, theirs takes the argmax over triggers alone,
    where any token may stand in a prompt. With drawn triggers both take it over all tokens.
    """
    params = check_memory(params, "WK2")
    Q = trigger_ids(triggers, len(params.E))
    return read(zip(params.E[Q] @ params.WK2 @ (params.E @ params.Phi.T).T, Q))


def WO(params):
    """The copying memory: for each v, is u = v the argmax of U[u]·WO WV E[v] over all u?

    Returns Reading. Raises ValueError on bad parameters, or if WO is zero. Source: BCBJB23.
    """
    params = check_memory(params, "WO")
    return read(zip(params.E @ (params.U @ params.WO @ params.WV).T, range(len(params.E))))


def WF(params, bigram):
    """The bigram memory: for each v, is the argmax of U[u]·WF E[v] over u that of log pi_b[v, u]?

    bigram : Bigram with V tokens and without zeros.
    Returns Reading. Raises ValueError on bad parameters or bigram, or if WF is zero. Source: BCBJB23. Departs
    from source: theirs is the mean of KL(pi_b[v] | softmax_u(U[u]·WF E[v])) over tokens that are no triggers.
    """
    params = check_memory(params, "WF")
    answers = log_bigram(bigram, len(params.E)).argmax(axis=1)
    return read(zip(params.E @ (params.U @ params.WF).T, answers))


def effective_strengths(params, triggers, encoding="relative", train_length=None):
    """The strengths with which any model holds the constructed memories (provenance: derived).

    b1, b2 and bo are the `strength` of the probes of WK1, WK2 and WO. In an orthonormal frame they are
    exactly those given to `construct`. Arguments and errors as in the probes. Returns Strengths.
    """
    return Strengths(WK1(params, encoding, train_length).strength, WK2(params, triggers).strength,
                     WO(params).strength)


def read(rows):
    """Reading of rows (scores (n,), index of the right candidate), n ≥ 2."""
    found = []
    for scores, right in rows:
        others = np.delete(scores, right)
        margin = scores[right] - others.max()
        found.append((margin > 0, margin, scores[right] - others.mean()))
    return Reading(*(float(column) for column in np.mean(found, axis=0)))


def check_memory(params, name):
    """Return checked params; raise ValueError if they are complex or too large, or the matrix is zero."""
    params = check_params(params)
    dtype = check.real_dtype("params", params.E.dtype)
    check.memory("params", 3 * dtype.itemsize * max(len(params.E), len(params.pos)) ** 2)
    if not getattr(params, name).any():
        raise ValueError(f"{name}: expected a trained or constructed memory, got zeros only")
    return params
