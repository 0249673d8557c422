"""Logits and losses of system R in closed form (claims R2–R4, R13). Imports only `check` of the project.

A formula that called the code it must check would be no oracle; checks of arguments hold no formula.
Notation: subjects s_0 … s_n (s_n is the query), answers a_0 … a_{n−1}, hidden relation r; attention u (n+1,)
on the subjects, v (n,) on the answers, alpha_r on the relation token, each in 0..1; N answers, R relations,
strength lam. All hold for one-hot embeddings, the memory of `construct` with the square, any attention.
"""

import numpy as np

from refimpl.check import number, positive, takes, weights, whole, wholes


@takes(R=whole(1), u=weights("n+1"), v=weights("n"), relation_of=wholes("n+1", "n", low=-1, high="R"),
       lam=positive())
def infer_logits(u, v, relation_of, R, lam):
    """Logits of the relations (claim R2; exact; derived).

    Statement. With rho(s, a) the relation between s and a, in a Latin table,

        logit[r'] = lam (Σ_i u_i² + Σ_j v_j² + 2 Σ_{i≤n, j<n} u_i v_j 1[rho(s_i, a_j) = r']).

    Derivation. The units with value e_r' have the keys e_s + e_{g(s,r')}, one for every s, hence logit[r'] =
    lam Σ_s (x_s + x_{g(s,r')})², x the attention on each token. The squares of x_s sum to Σ_i u_i². As g(·,
    r') is a bijection, every answer occurs once among the g(s, r'), so the squares of x_{g(s,r')} sum to Σ_j
    v_j², whatever r'. The cross terms 2 x_s x_{g(s,r')} are left where s = s_i and g(s_i, r') = a_j. Pairs i
    ≠ j vote for wrong relations only: rho(s_i, a_j) = r would mean g(s_i, r) = g(s_j, r).

    Parameters: u (n+1,), v (n,); relation_of (n+1, n), rho(s_i, a_j) in 0..R−1, or −1 where there is none;
    lam > 0. Returns (R,). Raises ValueError on others.
    """
    votes = np.zeros(R, u.dtype)
    related = relation_of >= 0
    np.add.at(votes, relation_of[related], np.outer(u, v)[related])
    return lam * (u @ u + v @ v + 2 * votes)


@takes(u=weights("n+1"), alpha_r=number(0, 1), N=whole(1), answer_of=wholes("n+1", "R", high="N"),
       r=whole(0, "R"), lam=positive())
def recall_logits(u, alpha_r, answer_of, r, N, lam):
    """Logits of the answers (claim R3; exact; derived).

    Statement. In a Latin table

        logit[a'] = lam (alpha_r² + Σ_i u_i² 1[a' ∈ g(s_i, ·)] + 2 alpha_r Σ_i u_i 1[a' = g(s_i, r)]).

    Derivation. The units with value e_a' have the keys e_s + e_r' with g(s, r') = a', hence
    logit[a'] = lam Σ_{g(s,r')=a'} (x_s + alpha_r 1[r' = r])². As g(·, r) is a bijection, r' = r
    occurs for one s: alpha_r² once, whatever a'. As g(s_i, ·) is injective, s_i occurs at most once:
    u_i², if a' is in its row. The cross term is left where g(s_i, r) = a'. The attention on the
    answers of the prompt does not enter: no such unit has an answer in its key.

    Parameters: u (n+1,); answer_of (n+1, R), g(s_i, r'); r < R; lam > 0. Returns (N,). Raises ValueError.
    """
    logits = np.full(N, alpha_r ** 2)
    np.add.at(logits, answer_of, u[:, None] ** 2)
    np.add.at(logits, answer_of[:, r], 2 * alpha_r * u)
    return lam * logits


@takes(u=weights("n+1"), v=weights("n"), R=whole(1), lam=positive())
def infer_loss(u, v, R, lam):
    """Loss over the relations on a collision-free prompt, in nats (claim R4; exact; derived).

    Statement. L_infer = log(1 + (R−1) e^{−m}),   m = 2 lam Σ_{i<n} u_i v_i.

    Derivation. In `infer_logits` the first two sums are the same for every r', and drop out. The
    rows g(s_i, ·) being disjoint, a_j is in the row of s_j alone, so rho(s_i, a_j) exists for i = j
    only and is r: the logit of r exceeds the R−1 others, which are equal, by m.

    Parameters: u (n+1,), v (n,), R ≥ 1, lam > 0. Returns a float. Raises ValueError on others.
    """
    return np.log1p((R - 1) * np.exp(-2 * lam * (u[:-1] @ v)))


@takes(u=weights("n+1"), alpha_r=number(0, 1), R=whole(1), N=whole("(n+1)*R"), lam=positive())
def recall_loss(u, alpha_r, N, R, lam):
    """Loss over the answers on a collision-free prompt, in nats (claim R4; exact; derived).

    Statement. L_recall = log Σ_c (number of c) e^{logit c} − logit of the true answer, over the classes

        true answer g(s_n, r)            lam (u_n² + 2 alpha_r u_n)      1
        context, g(s_i, r), i < n        lam (u_i² + 2 alpha_r u_i)      1 for each i
        row mates of s_n, g(s_n, r')     lam u_n²                        R−1
        row mates of s_i, g(s_i, r')     lam u_i²                        R−1 for each i
        the rest                         0                               N − (n+1) R

    Derivation. `recall_logits`, without lam alpha_r², which every answer has. The rows being disjoint, each
    answer is in one of them at most, and (n+1) R are in one.

    Parameters: u (n+1,); N ≥ (n+1) R; lam > 0. Returns a float. Raises ValueError on others.
    """
    logits, count = answer_classes(u, alpha_r, N, R, lam)
    top = peak(logits)
    return np.log((count * np.exp(logits - top)).sum()) + top - logits[len(u) - 1]


def answer_classes(u, alpha_r, N, R, lam):
    """Logits and sizes of the classes of `recall_loss`: g(s_i, r); row mates of s_i; the rest."""
    logits = np.concatenate([lam * (u ** 2 + 2 * alpha_r * u), lam * u ** 2, 0 * u[:1]])
    return logits, np.repeat([1, R - 1, N - len(u) * R], [len(u), len(u), 1])


def softmax(logits, count=1):
    """Probability of each entry, which stands for `count` tokens of equal logits; numbers of any type."""
    weights = count * np.exp(logits - peak(logits))
    return weights / weights.sum()


def peak(logits):
    """What keeps exponentials from overflowing: the largest. Numbers that are no floats need it not."""
    return 0 if logits.dtype == object else logits.max()


def infer_margin(u, v, R, lam):
    """m of `infer_loss`, and sigma = −∂L_infer/∂m, the probability of all wrong relations together."""
    m = 2 * lam * (u[:-1] @ v)
    return m, losing(m, R)


def losing(m, R):
    """Probability of all wrong relations together at the margin m."""
    wrong = (R - 1) * np.exp(-m)
    return wrong / (1 + wrong)


@takes(u=weights("n+1"), alpha_r=number(0, 1), N=whole(1), answer_of=wholes("n+1", "R", high="N"),
       r=whole(0, "R"), lam=positive(), bias=number(0))
def relu_recall_logits(u, alpha_r, answer_of, r, N, lam, bias):
    """Logits of the answers where φ(x) = max(x − bias, 0) (claim R13; exact; derived).

    Statement. In a Latin table

        logit[a'] = lam (φ(alpha_r) + Σ_i 1[a' ∈ g(s_i, ·), a' ≠ g(s_i, r)] φ(u_i)
                         + Σ_i 1[a' = g(s_i, r)] (φ(u_i + alpha_r) − φ(alpha_r))).

    Derivation. As `recall_logits`: logit[a'] = lam Σ_{g(s,r')=a'} φ(x_s + alpha_r 1[r' = r]). The
    unit with r' = r occurs for one s: φ(alpha_r), unless that s is some s_i: then φ(u_i + alpha_r).

    Parameters, errors as `recall_logits`; bias ≥ 0. Returns (N,).
    """
    alone, both = np.maximum(u - bias, 0), np.maximum(u + alpha_r - bias, 0)
    relation = np.maximum(alpha_r - bias, 0)
    logits = np.full(N, relation, u.dtype)
    np.add.at(logits, np.delete(answer_of, r, axis=1), alone[:, None])
    np.add.at(logits, answer_of[:, r], both - relation)
    return lam * logits


@takes(x=weights(), R=whole(1), N=whole("R"), lam=positive(), bias=number(0, 0.5))
def relu_recall_loss(x, N, R, lam, bias):
    """Recall loss with all attention on s_n and r, u_n = x, in nats (claim R13; exact; derived).

    Statement. With φ(x) = max(x − bias, 0), 0 ≤ bias ≤ ½ and u_n = x, alpha_r = 1 − x,

        L(x) = log(1 + (R−1) e^{−lam p(x)} + (N−R) e^{−lam q(x)}),
        p(x) = min(x, bias, 1 − x),     q(x) = min(x, 1 − bias).

    The margin p over the row mates of s_n is flat from x = bias to 1 − bias, so nothing holds x there:
    the margin q over the rest pushes it up, and L is least at the kink x* = 1 − bias, not near ½ as
    with the square (R9). Beyond it L rises to L(1) = log(R + (N−R) e^{−lam (1−bias)}) at x = 1, where the
    row mates tie. From there the flow comes back slowly: `way_back`.

    Derivation. `relu_recall_logits` at u = (0, …, 0, x): the true answer has lam φ(1), its row mates
    lam (φ(x) + φ(1−x)), the others lam φ(1−x): subtract.

    x, a float or array in [0, 1]; N ≥ R ≥ 1; bias in [0, ½]. Returns the shape of x. Raises ValueError.
    """
    p, q = np.minimum(np.minimum(x, bias), 1 - x), np.minimum(x, 1 - bias)
    return np.log1p((R - 1) * np.exp(-lam * p) + (N - R) * np.exp(-lam * q))
