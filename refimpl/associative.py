"""The linear associative memory that both systems stand on: outer products of pairs.

N pairs (v_i, u_i) of vectors in R^d are stored in W = Σ_i u_i v_iᵀ. The score s_jk = u_jᵀ W v_k says how
strongly the key v_k recalls the value u_j. With orthonormal u and v, s_jk = 1[j = k] (claim M3).
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import gammaincinv, ndtr

from refimpl import check


class Moments(NamedTuple):
    """Mean and variance of s_jj (match) and of s_jk, j ≠ k (cross)."""

    mean_match: float
    var_match: float
    mean_cross: float       # nan for N = 1, which has no cross pair
    var_cross: float        # nan for N = 1


def write(u, v):
    """Store pairs: W_ab = Σ_i u_ia v_ib.

    u, v (..., N, d), both float64, float32 or complex128 -> W (..., d, d). Leading axes are
    separate memories and broadcast as in matmul. Raises ValueError on other shapes or dtypes, numbers
    that are not finite, or a result that does not fit into memory. Source: NLB24, BCBJB23.
    """
    u, v, leading = check_pairs(u, v)
    check.memory("u, v", u.itemsize * math.prod(leading) * u.shape[-1] ** 2)
    return u.swapaxes(-1, -2) @ v


def read(memory, u, v):
    """Read every pair: s_jk = u_jᵀ W v_k.

    memory (..., d, d), u, v (..., N, d), one dtype -> s (..., N, N). Leading axes broadcast as in
    matmul. Raises ValueError as `write` does.
    """
    u, v, _ = check_pairs(u, v)
    N, d = u.shape[-2:]
    memory = check.asarray("memory", memory)
    memory = check.floats("memory", memory, leading_axes(memory) + (d, d), u.dtype)
    leading = check.broadcast(memory=memory.shape[:-2], u=u.shape[:-2], v=v.shape[:-2])
    check.memory("u, v", u.itemsize * math.prod(leading) * N * (N + d))
    return u @ memory @ v.swapaxes(-1, -2)


def moments(N, d):
    """Exact mean and variance of the scores of random pairs (claims M1 and M2; exact; derived).

    Statement. Let all u_i, v_i, i < N, be independent N(0, I/d). Then for j ≠ k

        E s_jj = 1,   Var s_jj = (1 + 2/d)² − 1 + (N − 1)/d²,
        E s_jk = 0,   Var s_jk = 2 (1 + 2/d)/d + (N − 2)/d².

    Derivation. s_jk = Σ_i (u_j·u_i)(v_i·v_k), a sum of products of a factor in u and one in v, which
    are independent. Three facts about independent x, y ~ N(0, I/d) suffice:

    (a) E |x|² = d · 1/d = 1.
    (b) E |x|⁴ = Σ_a E x_a⁴ + Σ_{a≠b} E x_a² E x_b² = d · 3/d² + d (d − 1) · 1/d² = 1 + 2/d.
    (c) E x·y = 0, and E (x·y)² = Σ_ab E x_a x_b E y_a y_b = Σ_a 1/d² = 1/d.

    Match (j = k). The term i = j is |u_j|² |v_j|², with mean 1 by (a) and mean square (1 + 2/d)² by
    (b). Each of the N − 1 terms i ≠ j is (u_j·u_i)(v_i·v_j), with mean 0 and mean square 1/d² by (c).
    Terms i ≠ i' are uncorrelated: of the two at least one, say i, is not j, and their product is
    linear, hence odd, in u_i. So the variances add up: ((1 + 2/d)² − 1) + (N − 1) · 1/d².

    Cross (j ≠ k). The term i = j is |u_j|² (v_j·v_k), with mean 0 and mean square
    (1 + 2/d) · 1/d by (b) and (c); so is the term i = k, (u_j·u_k) |v_k|². Each of the other N − 2 is
    (u_j·u_i)(v_i·v_k), with mean 0 and mean square 1/d². Products of two terms are odd in some
    vector: in u_k for i = j, i' = k; in u_i if i is neither j nor k. So E s_jk = 0 and the mean
    squares add up: 2 · (1 + 2/d)/d + (N − 2) · 1/d².

    Parameters: N ≥ 1 pairs, width d ≥ 1. N = 1 has no cross pair: its mean and variance are nan.
    Raises ValueError otherwise. Source: M1, M2, derived here; the setting is that of NLB24.
    """
    N, d = check.integer("N", N, 1), check.integer("d", d, 1)
    var_match = (1 + 2 / d) ** 2 - 1 + (N - 1) / d ** 2
    if N == 1:
        return Moments(1.0, var_match, np.nan, np.nan)
    return Moments(1.0, var_match, 0.0, 2 * (1 + 2 / d) / d + (N - 2) / d ** 2)


def unit_moments(N, d):
    """Exact mean and variance of the scores where rows are normalised to length 1 (exact; derived).

    Statement. Let all u_i, v_i, i < N, be independent and uniform on the unit sphere of R^d, as are Gaussian
    rows divided by their length. Then for j ≠ k

        E s_jj = 1,   Var s_jj = (N − 1)/d²,
        E s_jk = 0,   Var s_jk = 2/d + (N − 2)/d².

    Derivation. As in `moments`, with |x|² = 1 in place of (a) and (b): the term |u_j|² |v_j|² is 1 and has no
    variance. (c) still holds: E x xᵀ commutes with every rotation and has trace 1, so it is I/d, and
    E (x·y)² = E yᵀ (E x xᵀ) y = E |y|²/d = 1/d. The law of x is that of −x, so products of two terms that
    are odd in some vector still have mean 0, and the mean squares add up.

    At N = 50, d = 32 a match varies by 49/1024 = 0.048, against 0.177 for Gaussian rows.

    Parameters and errors as in `moments`. Source: derived here; NLB24 normalises rows in its experiments.
    """
    N, d = check.integer("N", N, 1), check.integer("d", d, 1)
    if N == 1:
        return Moments(1.0, 0.0, np.nan, np.nan)
    return Moments(1.0, (N - 1) / d ** 2, 0.0, 2 / d + (N - 2) / d ** 2)


def recall_rate(N, d):
    """Share of N random pairs whose score is the largest for their key (claim M5; approximate; derived).

    Statement. With independent a, b ~ χ²_d / d, ξ ~ N(0, 1) and Φ the distribution function of N(0, 1),

        recall = E Φ(s / √v)^(N−1),   s = ab + (ab (N − 1))^(1/2) ξ / d,
        v = (a/d)(1 + 2/d) + (s²/b + a (N − 2)(1 − 1/d)/d) / d.

    Derivation. Let a = |v_k|², b = |u_k|², and x = W v_k without the term of u_j, so that s_jk = |u_j|²
    (v_j·v_k) + u_j·x. Given a and b, s_kk is ab plus N − 1 terms of variance ab/d² each: s. The first part
    of a rival s_jk has variance (1 + 2/d) a/d. Given x, u_j·x has variance |x|²/d. Along u_k, x has length
    s/|u_k|, hence the square s²/b: where s is low, rivals are low too. Across u_k, the mean of |x|² is a (N
    − 2)(1 − 1/d)/d. Together they make v. The pair wins if N − 1 rivals stay below s.

    Approximations: |x|² across u_k stands for its mean, the first part is taken as Gaussian, and the rivals
    as independent. Measured for d = 32 … 128 between capacity and twice that, the share is right within
    0.004. Nothing is fitted. The integrals are sums over 24 Gauss–Legendre nodes in the quantiles of a and
    b, and 40 Gauss–Hermite nodes for ξ.

    N ≥ 1 pairs, 1 ≤ d < 2^24. Returns a float in 0..1. Raises ValueError. Source: M5, derived here; the
    setting is that of NLB24.
    """
    N, d = check.integer("N", N, 1, 2 ** 62), check.integer("d", d, 1, 2 ** 24)
    if N == 1:
        return 1.0
    quantiles, weights = np.polynomial.legendre.leggauss(24)
    xi, density = np.polynomial.hermite_e.hermegauss(40)
    a, b = np.meshgrid(*[2 / d * gammaincinv(d / 2, (1 + quantiles) / 2)] * 2, indexing="ij")
    a, b = a[:, :, None], b[:, :, None]
    s = a * b + np.sqrt(a * b * (N - 1.0)) / d * xi
    v = a / d * (1 + 2 / d) + (s ** 2 / b + a * (N - 2.0) * (1 - 1 / d) / d) / d
    shares = ndtr(s / np.sqrt(v)) ** (N - 1.0) @ density / np.sqrt(2 * np.pi)
    return float(weights @ shares @ weights / 4)


def capacity(d, recall=0.99):
    """The largest N with recall_rate(N, d) ≥ recall (claim M5).

    It tends to d² / (4 log d), but slowly: at d = 2^17 it is 0.57 of that. 1 ≤ d < 2^24, recall in 0.5..1.
    Returns an int ≥ 1. Raises ValueError.
    """
    recall = check.real("recall", recall, 0.5, 1.0)
    low, high = 1, 2
    while recall_rate(high, d) >= recall:
        low, high = high, 2 * high
    while high > low + 1:
        middle = (low + high) // 2
        low, high = (middle, high) if recall_rate(middle, d) >= recall else (low, middle)
    return low


def check_pairs(u, v):
    """Return u and v as arrays (..., N, d) of one dtype, and the shape of their leading axes together."""
    u, v = check.asarray("u", u), check.asarray("v", v)
    u = check.floats("u", u, leading_axes(u) + (None, None))
    v = check.floats("v", v, leading_axes(v) + u.shape[-2:], u.dtype)
    return u, v, check.broadcast(u=u.shape[:-2], v=v.shape[:-2])


def leading_axes(array):
    """One None for every axis before the last two."""
    return (None,) * (np.ndim(array) - 2)
