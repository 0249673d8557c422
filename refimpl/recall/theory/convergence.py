"""Where fine-tuning ends, from which starts and how fast (claims R13, R17, R18).

Notation and assumptions as in logits.py; imports nothing else of the project but `check`. For pair j let
f_j = u_j v_j, g_j = w_{s_j} − w_{a_j} its gap, C_j = cosh(g_j/2), and eta_j = 2 u_j v_j / (u_j + v_j) the
harmonic mean of its weights. As u_j + v_j = 2 √f_j C_j, eta_j = √f_j / C_j.
"""

from typing import NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.special import wrightomega

from refimpl.check import number, numbers, positive, takes, whole, wholes
from refimpl.recall.theory.logits import answer_classes, losing, softmax


def pairs(w):
    """f, g and eta of the pairs, each (count, n), from logits (count, 2n+1)."""
    alpha = np.apply_along_axis(softmax, 1, w)
    u, v = alpha[:, 0:-1:2], alpha[:, 1::2]
    return u * v, w[:, 0:-1:2] - w[:, 1::2], 2 * u * v / (u + v)


@takes(w=numbers("count", "2n+1", low=-100, high=100))
def leading_pair(w):
    """The pair i that leads, with f_i ≥ f_j and eta_i ≥ eta_j for all j; −1 if none does, or two tie.

    Two pairs tie if f and |g| of both are equal. w (count, 2n+1) in −100..100, logits of s_0 a_0 … s_n.
    Returns (count,) integers. Raises ValueError.
    """
    f, g, eta = pairs(w)
    i = np.lexsort((eta, f), axis=1)[:, -1:]
    first = [np.take_along_axis(values, i, axis=1) for values in (f, np.abs(g), eta)]
    tied = ((f == first[0]) & (np.abs(g) == first[1])).sum(axis=1) > 1
    return np.where((eta > first[2]).any(axis=1) | tied, -1, i[:, 0])


class LeaderBounds(NamedTuple):
    """What holds while pair i leads; 0 where j = i."""

    margin: np.ndarray      # (count,) m ≤ this
    lead: np.ndarray        # (count, n) d log(f_i/f_j)/dt ≥ this
    harmonic: np.ndarray    # (count, n) d log(eta_i/eta_j)/dt ≥ this
    query: np.ndarray       # (count,) d log(u_n/√f_i)/dt ≤ this


@takes(w=numbers("count", "2n+1", low=-100, high=100), i=wholes("count"), R=whole(2), lam=positive())
def leader_bounds(w, i, R, lam):
    """Bounds on the flow of the infer step where pair i leads (claim R17; exact; derived).

    Statement. From every start at which pair i leads (`leading_pair`) it wins: u_i and v_i go to ½, all
    else to 0, and the loss to `infer_end_loss`. With r_j² = f_j/f_i and theta_j = eta_j/eta_i:

        m ≤ lam eta_i
        d log(f_i/f_j)/dt ≥ 4 sigma lam f_i min(1 − r_j², r_j² (1 − theta_j)/theta_j) ≥ 0
        d log(eta_i/eta_j)/dt ≥ 2 sigma lam f_i ((1 − r_j²) − (1 − theta_j)/C_i²)
        d log(u_n/√f_i)/dt ≤ −2 sigma m u_n

    Derivation. By `flow`, up to a term that all j share, ½ d log f_j/dt = 2 sigma (lam f_j − m √f_j C_j) and
    d log eta_j/dt = 2 sigma (lam f_j − m eta_j). First line: eta_i ≥ eta_j says C_j ≥ r_j C_i. The weights
    of the pairs sum to at most 1, so 1 ≥ 2 Σ √f_j C_j ≥ 2 √f_i C_i Σ r_j², and m = 2 lam f_i Σ r_j² ≤
    lam √f_i/C_i. Second line: the rate is 4 sigma lam f_i (1 − r_j² − (m/(lam √f_i)) (C_i − r_j C_j)). Where
    C_i ≥ r_j C_j use the first line, and elsewhere drop the last term, which is positive. Third line: put
    the first into the rate. Fourth line: lam √f_i ≥ m C_i.

    The lead is kept: where eta_i = eta_j the third line is ≥ 0, and where f_i = f_j the second is. It grows
    without bound: m never falls along a gradient flow, so f_i ≥ m(0)/(2 lam n) and sigma does not vanish. If
    r_j stayed above some r > 0, the second line would force theta_j to 1. Then the third line would make
    theta_j fall at a fixed rate: a contradiction. Gaps do not grow (R6), so u_j and v_j vanish with f_j. The
    gap g_i closes: d log tanh(|g_i|/4)/dt = −2 sigma m √f_i.

    w (count, 2n+1) in −100..100; i (count,), the pairs that lead; R ≥ 2; lam > 0. Raises ValueError.
    """
    f, _, eta = pairs(w)
    if i.max() >= f.shape[1]:
        raise ValueError(f"i: expected pairs in 0..{f.shape[1] - 1}, got {i.max()}")
    f_i, eta_i = (np.take_along_axis(values, i[:, None], axis=1) for values in (f, eta))
    m = 2 * lam * f.sum(axis=1, keepdims=True)
    sigma, square, theta = losing(m, R), f / f_i, eta / eta_i
    last = np.apply_along_axis(softmax, 1, w)[:, -1]
    return LeaderBounds(
        lam * eta_i[:, 0], 4 * sigma * lam * f_i * np.minimum(1 - square, square * (1 - theta) / theta),
        2 * sigma * lam * (f_i * (1 - square) - eta_i ** 2 * (1 - theta)), (-2 * sigma * m)[:, 0] * last)


@takes(R=whole(2), lam=positive())
def decided_loss(R, lam):
    """Infer loss below which the pair with the largest f wins (claim R17b; exact; derived).

    Statement. If m > lam/4, that is L < log(1 + (R−1) e^{−lam/4}), the largest f wins, whatever the gaps.

    Derivation. If two pairs have the largest f, then Σ f ≤ 1/8: 1 ≥ Σ (u_j + v_j) ≥ 2 Σ √f_j, and at fixed Σ
    √f the sum of squares is largest with two pairs alone, √f = ¼ each. So m ≤ lam/4 at a tie. As m never
    falls, the largest f stays that of one pair. Its gap closes, and every tanh(|g_j|/4) falls more slowly
    than its own, so this pair leads in the end as `leader_bounds` requires. Not proved: which pair wins from
    starts where none leads and m ≤ lam/4. Returns nats. Raises ValueError unless R ≥ 2 and lam > 0.
    """
    return np.log1p((R - 1) * np.exp(-lam / 4))


@takes(w0=numbers("2n+1", low=-100, high=100), times=numbers(None, low=0), R=whole(2), lam=positive(500))
def leader_loss_bound(w0, times, R, lam):
    """Upper bound of the infer loss at every time of the flow from w0, in nats (claim R17c; exact; derived).

    Statement. Let pair i have the largest f and the smallest |g| at w0; sigma_inf = sigma at m = lam/2, and
    F = m(0)/(2 lam n). With k = 2 sigma_inf lam F, k' = 2 sigma_inf m(0) √F and h(r) = 1/r + log((1−r)/r),

        h(r_j(t)) ≥ h(r_j(0)) + k t        losers vanish at least like 1/t
        √f_i/u_n ≥ √f_i(0)/u_n(0) + k' t
        tanh(|g_i(t)|/4) ≤ tanh(|g_i(0)|/4) e^{−k' t}
        √f_i ≥ 1/(2 C_i + 2 Σ_{j≠i} r_j C_j(0) + u_n/√f_i)

    and L ≤ log(1 + (R−1) e^{−2 lam f_i}), which goes to `infer_end_loss` like 1/t.

    Derivation. |g_i| stays the smallest gap and f_i the largest f (`leader_bounds`). Then C_i ≤ C_j and
    theta_j ≤ r_j, so the second line there gives dr_j/dt ≤ −2 sigma lam f_i r_j² (1 − r_j). As h' =
    −1/(r² (1−r)), and f_i ≥ m/(2 lam n) ≥ F, sigma ≥ sigma_inf, the first line follows. The next two are the
    last line there, and the rate of its gap. Weights sum to 1: divide by √f_i. With Y = 1/r − 1 the first
    line is Y + log Y = h − 1, so Y is Wright's omega function.

    w0 (2n+1,) in −100..100 with such a pair; times (k,) ≥ 0; R ≥ 2; lam > 0. Returns (k,). Raises ValueError.
    """
    (f,), (g,), _ = pairs(w0[None])
    n, i = len(f), int(np.lexsort((-np.abs(g), f))[-1])
    if (np.abs(g) < np.abs(g[i])).any():
        raise ValueError(f"w0: expected the pair with the largest f to have the smallest gap, got gaps {g}")
    m = 2 * lam * f.sum()
    sigma, least = losing(lam / 2, R), m / (2 * lam * n)
    rate, others = 2 * sigma * m * np.sqrt(least), np.arange(n) != i
    r, C = np.sqrt(f / f[i])[others], np.cosh(g[others] / 2)
    with np.errstate(divide="ignore"):      # pairs of equal f: h(1) = −∞, and their r stays 1
        h = 1 / r + np.log((1 - r) / r)
    r = 1 / (1 + wrightomega(h + 2 * sigma * lam * least * times[:, None] - 1))
    gap = 4 * np.arctanh(np.tanh(np.abs(g[i]) / 4) * np.exp(-rate * times))
    query = 1 / (np.sqrt(f[i]) / softmax(w0)[-1] + rate * times)
    root = 1 / (2 * np.cosh(gap / 2) + 2 * r @ C + query)
    return np.log1p((R - 1) * np.exp(-2 * lam * root ** 2))


@takes(w=numbers("2n+2"), R=whole(2), N=whole("(n+1)*R"), lam=positive())
def context_bounds(w, N, R, lam):
    """Upper bounds of the rates of all context logits in the recall step (claim R18; exact; derived).

    Statement. Let u_n ≥ u_i for all i < n. With p the probabilities of the answers, the logit w_k of every
    token of the context (s_i and a_i, i < n) falls: dw_k/dt ≤ −2 (logit_true − E_p logit) α_k ≤ 0. If also
    L_recall(0) < log R, or if L_recall(0) < log 2 alone, attention ends at (x*, 1 − x*) on (s_n, r), x* of
    `recall_end_point`.

    Derivation. Logits are of degree 2 in α, so Σ_j α_j ∂L/∂α_j = 2 (E_p logit − logit_true) (Euler). It is
    < 0, as the true answer has the largest logit where u_n ≥ u_i. For k in the context ∂L/∂α_k ≥ 0:
    `recall_flow`. The softmax gives dw_k/dt = −α_k (∂L/∂α_k − Σ_j α_j ∂L/∂α_j).

    The set u_n ≥ u_i is kept: where u_n = u_i, ∂L/∂u_n − ∂L/∂u_i = −2 lam (u_n + alpha_r) < 0. L < log 2
    means that the truth has more than half, so u_n > u_i. From L ≥ log(1 + (R−1) e^{−2 lam u_n alpha_r}) and
    L < log R, u_n alpha_r stays above log((R−1)/(e^{L(0)} − 1))/(2 lam) > 0. Rates sum to 0, so w_{s_n} + w_r
    rises, α_k/√(u_n alpha_r) falls at least at the bound, and α_k goes to 0. On the pair alone z = w_{s_n} −
    w_r has dz/dt = −2 x (1−x) L'(x), L convex: x goes to x*, in the end at the rate 2 x*² (1−x*)² L''(x*).

    w (2n+2,), logits of s_0 a_0 … s_n r; N ≥ (n+1) R; R ≥ 2; lam > 0. Returns (2n,). Raises ValueError.
    `trap_law` says what happens from other starts.
    """
    alpha = softmax(w)
    logits, count = answer_classes(alpha[0:-1:2], alpha[-1], N, R, lam)
    excess = softmax(logits, count) @ (logits[len(w) // 2 - 1] - logits)
    return -2 * excess * alpha[:-2]


class Trap(NamedTuple):
    """The trap at u_n → 1 of the square."""

    context: float      # α_k t of every context token
    fall: float         # log-log slope of alpha_r against t, while trapped
    escape: float       # log-log slope of the time of escape against alpha_r(0)


@takes(n=whole(1), R=whole(2), N=whole("R+1"), lam=positive(500))
def trap_law(n, N, R, lam):
    """How slowly the recall step leaves u_n = 1 (claim R18b; asymptotic; derived).

    Statement. Near u_n = 1, where alpha_r is small against the context, α_k ≈ 1/(A (2n+1) t), alpha_r falls
    like t^{−2n/(2n+1)}, and it escapes only after a time of order alpha_r(0)^{−(2n+1)}.

    Derivation. At u_n = 1 each answer of the row of s_n has the probability p = 1/(R + (N−R) e^{−lam}).
    `recall_flow` there, with A = 2 lam (1 − Rp), B = 4 lam (R−1) p and ε the weight of the context together:
    dα_k/dt = −A α_k (α_k + ε), so equal α_k have d(1/α_k)/dt = A (2n+1). For the relation d log alpha_r/dt =
    B alpha_r − A ε. With Aε = 2n/((2n+1) t) it falls by that power, until B alpha_r(t) has grown to 1/t.

    Returns Trap. Raises ValueError unless N > R ≥ 2, n ≥ 1 and 0 < lam ≤ 500.
    """
    rest = (N - R) * np.exp(-lam)
    return Trap((R + rest) / (2 * lam * rest * (2 * n + 1)), -2 * n / (2 * n + 1), -(2 * n + 1))


@takes(start=positive(0.5), end=positive(0.5), R=whole(2), N=whole("R"), lam=positive(500),
       bias=number(0, 0.5))
def way_back(start, end, N, R, lam, bias):
    """Time of the relu's recall flow from 1 − u_n = start back to end (claim R13b; exact; derived).

    Statement. With all attention on (s_n, r) and 1 − u_n = δ ≤ bias, S = 1 + (N−R) e^{−lam (1−bias)}:

        t = 1/(2 lam) ∫_start^end (1 + S e^{lam δ}/(R−1)) / (δ² (1−δ)²) dδ.

    To leading order as lam start → 0 it is e^{L(1)}/(2 (R−1) lam start), e^{L(1)} = R + S − 1; the relative
    remainder is of order (1 + lam) start log(1/start). Where e^{lam bias} lam start is not small, the last
    stretch before the kink dominates. With the square the leading order is half of this at bias = 0.

    Derivation. u_n = x = 1/(1 + e^{−z}) with z = w_{s_n} − w_r, and dz/dt = −2 x (1−x) L'(x), so dδ/dt =
    2 δ² (1−δ)² L'(1−δ). By `relu_recall_loss` beyond the kink L = log(S + (R−1) e^{−lam δ}), so L' =
    lam (R−1) e^{−lam δ}/(S + (R−1) e^{−lam δ}). With the square the margin over the row mates is
    2 lam x (1−x), so L' is twice as large at x = 1.

    0 < start ≤ end ≤ bias ≤ ½; N ≥ R ≥ 2; 0 < lam ≤ 500. Returns a float, to about 1e-12. Raises ValueError.
    """
    if not start <= end <= bias:
        raise ValueError(f"end: expected start <= end <= bias, got {start}, {end}, {bias}")
    S = 1 + (N - R) * np.exp(-lam * (1 - bias))

    def integrand(s):
        delta = np.exp(s)
        return (1 + S * np.exp(lam * delta) / (R - 1)) / (delta * (1 - delta) ** 2)
    return quad(integrand, np.log(start), np.log(end), epsabs=0, epsrel=1e-12, limit=200)[0] / (2 * lam)
