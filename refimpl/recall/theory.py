"""Closed forms of system R (claims R2–R4). This file imports nothing of the project.

A formula that called the code it must check would be no oracle: everything here follows from the
attention weights. Notation: subjects s_0 … s_n (s_n is the query), answers a_0 … a_{n−1}, hidden
relation r; attention u (n+1,) on the subjects, v (n,) on the answers, alpha_r on the relation token;
N answers, R relations, strength lam. All statements hold for one-hot embeddings, the memory of
`construct` with the square, and any attention weights.
"""

import numpy as np
from scipy.special import logsumexp


def infer_logits(u, v, relation_of, R, lam):
    """Logits of the relations (claim R2; exact; derived).

    Statement. With rho(s, a) the relation between s and a, in a Latin table,

        logit[r'] = lam (Σ_i u_i² + Σ_j v_j² + 2 Σ_{i≤n, j<n} u_i v_j 1[rho(s_i, a_j) = r']).

    Derivation. The units with value e_r' have the keys e_s + e_{g(s,r')}, one for every s, hence
    logit[r'] = lam Σ_s (x_s + x_{g(s,r')})², x the attention on each token. The squares of x_s sum
    to Σ_i u_i². As g(·, r') is a bijection, every answer occurs once among the g(s, r'), so the
    squares of x_{g(s,r')} sum to Σ_j v_j², whatever r'. The cross terms 2 x_s x_{g(s,r')} are left
    where s = s_i and g(s_i, r') = a_j. Pairs i ≠ j vote for wrong relations only: rho(s_i, a_j) = r
    would mean g(s_i, r) = g(s_j, r).

    Parameters: u (n+1,), v (n,); relation_of (n+1, n) integers, rho(s_i, a_j) in 0..R−1, or −1 where
    there is none. Returns (R,) float64. Raises ValueError on shapes that do not fit.
    """
    u, v = pair_weights(u, v)
    relation_of = indices("relation_of", relation_of, (len(u), len(v)), -1, R)
    votes = np.zeros(R)
    related = relation_of >= 0
    np.add.at(votes, relation_of[related], np.outer(u, v)[related])
    return lam * (u @ u + v @ v + 2 * votes)


def recall_logits(u, alpha_r, answer_of, r, N, lam):
    """Logits of the answers (claim R3; exact; derived).

    Statement. In a Latin table

        logit[a'] = lam (alpha_r² + Σ_i u_i² 1[a' ∈ g(s_i, ·)] + 2 alpha_r Σ_i u_i 1[a' = g(s_i, r)]).

    Derivation. The units with value e_a' have the keys e_s + e_r' with g(s, r') = a', hence
    logit[a'] = lam Σ_{g(s,r')=a'} (x_s + alpha_r 1[r' = r])². As g(·, r) is a bijection, r' = r
    occurs for one s: alpha_r² once, whatever a'. As g(s_i, ·) is injective, s_i occurs at most once:
    u_i², if a' is in its row. The cross term is left where g(s_i, r) = a'. The attention on the
    answers of the prompt does not enter: no such unit has an answer in its key.

    Parameters: u (n+1,); answer_of (n+1, R) integers, g(s_i, r') in 0..N−1; r in 0..R−1.
    Returns (N,) float64. Raises ValueError on shapes that do not fit.
    """
    u = subject_weights(u)
    answer_of = indices("answer_of", answer_of, (len(u), None), 0, N)
    R = answer_of.shape[1]
    if not 0 <= r < R:
        raise ValueError(f"r: expected a relation in 0..{R - 1}, got {r}")
    logits = np.full(N, float(alpha_r) ** 2)
    np.add.at(logits, answer_of, u[:, None] ** 2)
    np.add.at(logits, answer_of[:, r], 2 * alpha_r * u)
    return lam * logits


def infer_loss(u, v, R, lam):
    """Loss over the relations on a collision-free prompt, in nats (claim R4; exact; derived).

    Statement. L_infer = log(1 + (R−1) e^{−m}),   m = 2 lam Σ_{i<n} u_i v_i.

    Derivation. In `infer_logits` the first two sums are the same for every r', and drop out. The
    rows g(s_i, ·) being disjoint, a_j is in the row of s_j alone, so rho(s_i, a_j) exists for i = j
    only and is r: the logit of r exceeds the R−1 others, which are equal, by m.

    Parameters: u (n+1,), v (n,). Returns a float. Raises ValueError on shapes that do not fit.
    """
    u, v = pair_weights(u, v)
    return np.log1p((R - 1) * np.exp(-2 * lam * (u[:-1] @ v)))


def recall_loss(u, alpha_r, N, R, lam):
    """Loss over the answers on a collision-free prompt, in nats (claim R4; exact; derived).

    Statement. L_recall = log Σ_c (number of c) e^{logit c} − logit of the true answer, over the classes

        true answer g(s_n, r)            lam (u_n² + 2 alpha_r u_n)      1
        context, g(s_i, r), i < n        lam (u_i² + 2 alpha_r u_i)      1 for each i
        row mates of s_n, g(s_n, r')     lam u_n²                        R−1
        row mates of s_i, g(s_i, r')     lam u_i²                        R−1 for each i
        the rest                         0                               N − (n+1) R

    Derivation. `recall_logits`, without lam alpha_r², which every answer has. The rows being
    disjoint, each answer is in one of them at most, and (n+1) R are in one.

    Parameters: u (n+1,); N ≥ (n+1) R, or no collision-free prompt exists. Returns a float. Raises
    ValueError on bad shapes or sizes.
    """
    u = subject_weights(u)
    rest = N - len(u) * R
    if rest < 0:
        raise ValueError(f"N: expected at least (n+1) R = {len(u) * R}, got {N}")
    in_relation, row_mates = lam * (u ** 2 + 2 * alpha_r * u), lam * u ** 2
    logits = np.concatenate([in_relation, row_mates, [0.0]])
    number = np.repeat([1, R - 1, rest], [len(u), len(u), 1])
    return logsumexp(logits, b=number) - in_relation[-1]


def subject_weights(u):
    """u as a float array (n+1,), n ≥ 1."""
    u = np.asarray(u, dtype=float)
    if u.ndim != 1 or len(u) < 2:
        raise ValueError(f"u: expected shape (n+1,) with n >= 1, got {u.shape}")
    return u


def pair_weights(u, v):
    """u (n+1,) and v (n,) as float arrays, n ≥ 1."""
    u, v = subject_weights(u), np.asarray(v, dtype=float)
    if v.shape != (len(u) - 1,):
        raise ValueError(f"v: expected shape ({len(u) - 1},), one less than u, got {v.shape}")
    return u, v


def indices(name, values, shape, low, high):
    """`values` as an array of integers in low..high−1 of this shape; None leaves a size free."""
    values = np.asarray(values)
    if (values.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, values.shape))
            or values.dtype.kind not in "iu" or values.size == 0
            or values.min() < low or values.max() >= high):
        raise ValueError(f"{name}: expected integers in {low}..{high - 1} of shape {shape}, "
                         f"got {values.dtype} of shape {values.shape}")
    return values
