"""Closed forms of fine-tuning beyond the flow: few samples (R11), the ReLU memory's trap (R13).

Notation and conventions as in theory.py, whose helpers it uses; like it, this file imports no code that
it must check.
"""

import numpy as np
from scipy.special import logsumexp

from refimpl import check
from refimpl.recall.theory import strength, subject_weights, weight


def score_factors(n, M, k=None):
    """How much full attention multiplies what the positions learn (claim R11; exact; derived).

    Statement. Train full WKQ by SGD without weight decay on M collision-free prompts that share no
    subject and no answer, and in the recall step use k relations equally often, from a start w0 in
    the position–position block, the same at every prompt. Let w be that block's row later on. Then
    the scores of every training prompt are w0 + c (w − w0), with

        infer     c_i = 1 + 3/M
        recall    c_i = 1 + 1/k + 2/M for i < 2n+1,     c_{2n+1} = 1 + 3/k

    and w moves as position-only attention does at these scores: dw/dt = flow(w0 + c (w − w0)), or a
    step of SGD. A prompt of tokens that no training prompt held has the scores w alone.

    Consequence. The training loss sees scores c times as large as what transfers: in the infer step,
    1 + 3/M. M prompts suffice where the loss bears its scores to be divided by c; this does not
    depend on N but through the scores that N answers ask for.

    Derivation. Score i adds up four entries of WKQ: of the last token or position, by token or
    position i. As all prompts have equal scores, each gets the same −∂L/∂score_i = F_i(score)
    (`flow`, `recall_flow`), and an entry gets F_i times the share of the prompts that read it. In the
    infer step that is 1 for position–position, and 1/M for the three that hold a token. In the recall
    step the last token is r: (r, position i) is read by M/k prompts, (r, z_i) and (position, z_i) by
    one; for i = 2n+1 the token z_i is r itself, and all three by M/k. By symmetry the scores stay
    equal. Momentum is linear, and changes nothing.

    Parameters: n ≥ 1; M ≥ 1 prompts; k relations, a divisor of M, for the recall step, or None.
    Returns c (2n+1,), or (2n+2,) with k. Raises ValueError on other sizes.
    """
    n, M = check.integer("n", n, 1), check.integer("M", M, 1)
    if k is None:
        return np.full(2 * n + 1, 1 + 3 / M)
    if M % check.integer("k", k, 1):
        raise ValueError(f"k: expected a divisor of M = {M}, got {k}")
    return np.append(np.full(2 * n + 1, 1 + 1 / k + 2 / M), 1 + 3 / k)


def relu_recall_logits(u, alpha_r, answer_of, r, N, lam, bias):
    """Logits of the answers where φ(x) = max(x − bias, 0) (claim R13; exact; derived).

    Statement. In a Latin table, with φ(x) = max(x − bias, 0),

        logit[a'] = lam (φ(alpha_r) + Σ_i 1[a' ∈ g(s_i, ·), a' ≠ g(s_i, r)] φ(u_i)
                         + Σ_i 1[a' = g(s_i, r)] (φ(u_i + alpha_r) − φ(alpha_r))).

    Derivation. As `recall_logits`: logit[a'] = lam Σ_{g(s,r')=a'} φ(x_s + alpha_r 1[r' = r]). The
    unit with r' = r occurs for one s: φ(alpha_r), unless that s is some s_i: then φ(u_i + alpha_r).

    Parameters: as `recall_logits`; bias ≥ 0. Returns (N,) float64. Raises ValueError.
    """
    u, alpha_r, N, lam = subject_weights(u), weight(alpha_r), check.integer("N", N, 1), strength(lam)
    answer_of = check.integers("answer_of", answer_of, 0, N, shape=(len(u), None))
    r, bias = check.integer("r", r, 0, answer_of.shape[1]), check.real("bias", bias, 0)
    alone, both = np.maximum(u - bias, 0), np.maximum(u + alpha_r - bias, 0)
    relation = max(alpha_r - bias, 0)
    logits = np.full(N, float(relation))
    np.add.at(logits, np.delete(answer_of, r, axis=1), alone[:, None])
    np.add.at(logits, answer_of[:, r], both - relation)
    return lam * logits


def relu_recall_loss(x, N, R, lam, bias):
    """Recall loss with all attention on s_n and r, u_n = x, in nats (claim R13; exact; derived).

    Statement. With φ(x) = max(x − bias, 0), 0 ≤ bias ≤ ½ and u_n = x, alpha_r = 1 − x,

        L(x) = log(1 + (R−1) e^{−lam p(x)} + (N−R) e^{−lam q(x)}),
        p(x) = min(x, bias, 1 − x),     q(x) = min(x, 1 − bias).

    The margin p over the row mates of s_n is flat from x = bias to 1 − bias, so nothing holds x there:
    the margin q over the rest pushes it up, and L is least at the kink x* = 1 − bias, not near ½ as
    with the square (R9). Beyond it L rises to log R at x = 1, where the row mates tie.

    The trap. The difference z = w_{s_n} − w_r moves by dz/dt = −2 x (1−x) L'(x), beyond the kink by at
    most 2 lam (1−x) (R−1)/R. A step that carries x to 1 − δ is undone by the flow in the time
    R / (2 (R−1) lam δ), to leading order in δ. The argmax stays right all the while.

    Derivation. `relu_recall_logits` at u = (0, …, 0, x): the true answer has lam φ(1), its row mates
    lam (φ(x) + φ(1−x)), the others lam φ(1−x): subtract. With x = 1/(1 + e^{−z}) the two logits get
    −x (1−x) L' and the opposite. Beyond the kink L' ≤ lam (R−1) e^{−lam p}/(1 + (R−1) e^{−lam p}), which is
    lam (R−1)/R at x = 1; with 1−x = δ there, dδ/dt = 2 lam δ² (R−1)/R.

    Parameters: x, a float or array in [0, 1]; N ≥ R ≥ 1; bias in [0, ½]. Returns the shape of x.
    Raises ValueError.
    """
    x, R, lam = check.reals("x", x, low=0, high=1), check.integer("R", R, 1), strength(lam)
    N, bias = check.integer("N", N, R), check.real("bias", bias, 0, 0.5)
    p, q = np.minimum(np.minimum(x, bias), 1 - x), np.minimum(x, 1 - bias)
    exponents = np.stack([np.zeros_like(x), -lam * p, -lam * q])
    number = np.array([1, R - 1, N - R]).reshape(3, *[1] * x.ndim)
    return logsumexp(exponents, axis=0, b=number)
