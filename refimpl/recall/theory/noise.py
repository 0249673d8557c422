"""Prompts that break the assumptions: wrong answers, and rows that collide (claims R19, R20).

Notation as in logits.py; imports nothing else of the project but `check`.
"""

import numpy as np

from refimpl.check import number, positive, takes, weights, whole
from refimpl.recall.theory.logits import infer_margin


@takes(p=number(0, 1), n=whole(1), N=whole(1), R=whole(1))
def noisy_accuracy(p, n, N, R):
    """Share of prompts whose relation is inferred, and how far it may be off (claim R19; exact; derived).

    Statement. Each of the n answers shown is redrawn uniformly with probability p, so it is wrong with
    probability p_e = p (1 − 1/N). For any attention positive on every pair the accuracy (the right relation
    alone has the largest logit) is 1 − p_e^n, with an error of at most n (n+1) R/N.

    Derivation. A right pair votes 2 lam u_i v_i for r. Any other pair (s_i, a_j), at most n (n+1) of them,
    votes at all with probability at most R/N: its answer is one of R among N. Where no other pair votes, r
    is ahead if and only if some pair is right. All n are wrong with probability p_e^n.

    So attention on one pair nearly alone costs nothing: the others decide when that pair is wrong.

    p in 0..1; n, N, R ≥ 1. Returns (accuracy, error). Raises ValueError.
    """
    return 1 - (p * (1 - 1 / N)) ** n, n * (n + 1) * R / N


@takes(u=weights("n+1"), v=weights("n"), p=number(0, 1), R=whole(1), lam=positive())
def noisy_loss(u, v, p, R, lam):
    """Mean infer loss where every pair is wrong with probability p, as N → ∞ (claim R19b; exact; derived).

    Statement. L_p = E_B log(1 + (R−1) e^{−2 lam Σ_{j∈B} u_j v_j}), B the set of right pairs, in nats.

    It need not favour one pair. With l(m) = log(1 + (R−1) e^{−m}), two equal pairs have less loss than one
    if (1−p) l(lam/4) + 2 p l(lam/8) < l(lam/2) + p log R, so at every p > 0 where lam is large enough.

    Derivation. `infer_loss`, where a wrong pair has an answer of no row, and does not vote.

    u (n+1,), v (n,), n ≤ 12; p in 0..1; R ≥ 1; lam > 0. Returns a float. Raises ValueError.
    """
    n = len(v)
    if n > 12:
        raise ValueError(f"v: expected at most 12 pairs, whose 2^n sets are listed, got {n}")
    right = np.arange(2 ** n)[:, None] >> np.arange(n) & 1
    chance = np.prod(np.where(right, 1 - p, p), axis=1)
    return chance @ np.log1p((R - 1) * np.exp(-2 * lam * right @ (u[:-1] * v)))


@takes(R=whole(1), N=whole("R"), n=whole(1, "N"))
def collision_free_probability(n, N, R):
    """Probability that a random prompt is collision-free, shifts consecutive (claim R20; exact; derived).

    Statement. P = Π_{j=1}^{n} (N − (n+1)(R−1) − j)/(N − j) if N ≥ (n+1) R, else 0. As N grows it is
    1 − n (n+1)(R−1)/N + O(N^−2). The months with R = 4 and n = 2 have 1/55.

    Derivation. With consecutive shifts a row is R neighbours on a cycle of N places. So K = n+1 subjects
    have disjoint rows if and only if their places are at least R apart. Of the C(N, K) sets of places,
    (N/K) C(N − K(R−1) − 1, K−1) are: take out R−1 places after each, and count what is left.

    Parameters: n in 1..N−1; R in 1..N. Returns a float. Raises ValueError.
    """
    j = np.arange(1, n + 1)
    return np.prod((N - (n + 1) * (R - 1) - j) / (N - j)) if N >= (n + 1) * R else 0.0


@takes(R=whole(1), N=whole("R"), n=whole(1, "N"), lam=positive())
def population_bounds(n, N, R, lam):
    """How far random prompts can move the flows of R5, in the sum of |rates| (claim R20c; exact; derived).

    Statement. Let F be minus the mean gradient over all prompts, collisions included. Then ‖F − flow‖_1 ≤
    4 lam (1 − P) in the infer step and ‖F − recall_flow‖_1 ≤ 8 lam (1 − P) in the recall step, with P of
    `collision_free_probability`. The bounds are loose: `collision_loss` has the first order.

    Derivation. Collision-free prompts have the flow's gradient; the others differ by at most two norms. The
    gradient by w_k is α_k (G_k − Σ_j α_j G_j), so its norm is at most 2 Σ_k α_k |G_k|. To infer, the sum is
    at most 4 lam Σ_i u_i Σ_j v_j ≤ lam. To recall, it is at most 2 lam.

    Parameters as `collision_free_probability`; lam > 0. Returns two floats. Raises ValueError.
    """
    collide = 1 - collision_free_probability(n, N, R)
    return 4 * lam * collide, 8 * lam * collide


@takes(u=weights("n+1"), v=weights("n"), R=whole(1), N=whole("max(2*R, 4)"), lam=positive(500))
def collision_loss(u, v, N, R, lam):
    """Mean infer loss over all prompts to first order in 1/N, and its error (claim R20b; exact; derived).

    Statement. Shifts are consecutive. With L and m of `infer_loss`, v_n = 0, K = n (n+1)/2 pairs of rows,

        L_pop ≈ L + (1/(N−1)) Σ_{i<j≤n} (1/R) Σ_{c<R} Σ_{0<|D|<R} (L_{ijcD} − L)

    with an error of at most (lam/2) K (K−1) (2 (R−1))² / ((N−1)(N−3)), none if n = 1. L_{ijcD} is the loss
    with two more votes, 2 lam u_i v_j for relation c + D and 2 lam u_j v_i for c − D, within 0..R−1.

    Derivation. Let s_j stand D places after s_i on the cycle, and c be the shift of the true relation. Then
    rho(s_i, a_j) has the shift c + D, and rho(s_j, a_i) c − D. Each D ≠ 0 has the probability 1/(N−1). This
    is exact for prompts in which at most one pair of rows collides. Votes for wrong relations add at most
    2 lam Σ u Σ v ≤ lam/2 to the loss, so a prompt with X ≥ 2 colliding pairs errs by at most X lam/2 ≤
    X (X−1) lam/2. Two given pairs collide together with probability at most (2 (R−1))²/((N−1)(N−3)).

    u (n+1,), v (n,); N ≥ 2R and 4; R ≥ 1; 0 < lam ≤ 500. Returns (loss, error). Raises ValueError.
    """
    m, _ = infer_margin(u, v, R, lam)
    n, votes = len(v), 2 * lam * np.outer(u, np.append(v, 0))
    c, D = np.arange(R)[:, None], np.arange(1, R)
    loss = np.log1p((R - 1) * np.exp(-m))
    total = 0.0
    for i, j in [(i, j) for i in range(n + 1) for j in range(n + 1) if i != j]:     # (j, i) has −D for D
        more = (c + D < R) * np.expm1(votes[i, j]) + (c >= D) * np.expm1(votes[j, i])
        total += (np.log1p((R - 1 + more) * np.exp(-m)) - loss).sum() / R
    return loss + total / (N - 1), second_order(n, N, R, lam)


def second_order(n, N, R, lam):
    """Bound of the error of `collision_loss`."""
    pairs = n * (n + 1) / 2
    return lam / 2 * pairs * (pairs - 1) * (2 * (R - 1)) ** 2 / ((N - 1) * (N - 3))
