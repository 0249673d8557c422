"""One solution of each exercise of the tours, with the reason. Try yourself first."""

from itertools import combinations

import numpy as np
from refimpl import induction, recall
from refimpl.claims import claim


def write_WK2(E, Phi, triggers, b2):
    """b2 Σ_q E[q] (Phi E[q])ᵀ: the query's side first."""
    return b2 * sum(np.outer(E[q], Phi @ E[q]) for q in triggers)


def softmax_backward(p, dp):
    """ds_j = Σ_i dp_i p_i (1[i = j] − p_j) = p_j (dp_j − Σ_i dp_i p_i)."""
    return p * (dp - dp @ p)


@claim("X1", "attention sums to one", source="a lesson", provenance="derived", control="a key is left out",
       T=(1, 12), b1=(0.0, 5.0))
def rows_sum_to_one(case, T, b1):
    """Each row of A2 is a softmax over the keys up to t."""
    frame = induction.orthonormal_frame(4, T, case.rng)
    params = induction.construct(frame, induction.Bigram.random(4, case.rng), [0], b1, 2.0, 1.0)
    attention = induction.forward(params, case.rng.integers(0, 4, T)).attention2
    return np.ones(T), attention[:, 1 if case.control else 0:].sum(axis=1)


def count_votes(u, v, relation_of, R, lam):
    """R2: squares for all, and a vote of each subject with each answer."""
    logits = np.full(R, u @ u + v @ v)
    for i in range(len(u)):
        for j in range(len(v)):
            if relation_of[i, j] >= 0:
                logits[relation_of[i, j]] += 2 * u[i] * v[j]
    return lam * logits


def flow(w, R, lam):
    """R5, by the chain rule through the softmax."""
    alpha = np.exp(w - w.max())
    alpha /= alpha.sum()
    u, v = alpha[0:-1:2], alpha[1::2]
    m = 2 * lam * (u @ v)
    sigma = (R - 1) * np.exp(-m) / (1 + (R - 1) * np.exp(-m))
    slope = np.zeros(len(w))
    slope[0:-1:2], slope[1::2] = 2 * lam * v, 2 * lam * u
    return sigma * alpha * (slope - alpha @ slope)


def free_triples():
    """Three rows of four answers fill the year: subjects four months apart."""
    table = recall.Facts.months().answer(np.arange(12)[:, None], np.arange(4))
    return [s for s in combinations(range(12), 3) if len(np.unique(table[list(s)])) == 12]


SOLUTIONS = {
    "induction": {
        1: [5, 7],                              # the second and the third t; at 1 nothing has been said yet
        2: 2 + 64 ** 2 // 16 - 2 * (64 + 2),    # 2 (1 + 2/d)/d + (N − 2)/d² ≤ 1/16
        3: write_WK2,
        4: np.log(99 * 39),                     # e^b1 / (e^b1 + 39) = 0.99
        5: lambda gap: 1.01 * gap * (1 + 39 * np.exp(-2)),
        6: "mtatatatototot",                    # layer 2 looks at three a's too
        7: softmax_backward,
        8: rows_sum_to_one},
    "recall": {
        1: (2, "February"),
        2: [2, 2.8, 3.6, 2.8],                  # both pairs vote for 3, two strangers for 4 and 2
        3: 0.5,                                 # lam (1/2 + 1/2)² − lam (1/4 + 1/4)
        4: count_votes,
        5: 4,                                   # query's token or position by key's token or position
        6: flow,
        7: 2 * np.log(3 / np.expm1(0.01)),
        8: free_triples()}}
