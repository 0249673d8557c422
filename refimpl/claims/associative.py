"""The claims of the linear associative memory: exact cubature (M1, M2), and what is read back (M3, M5)."""

from functools import reduce

import numpy as np

from scipy.special import ndtr

from refimpl.associative import capacity, moments, read, recall_rate, write
from refimpl.claims.claim import claim

ROOT = np.sqrt(3)
TWO = np.array([[-1, 1], [1 / 2, 1 / 2]])                           # nodes and weights
THREE = np.array([[-ROOT, 0, ROOT], [1 / 6, 2 / 3, 1 / 6]])


def mean_and_variance(N, d, k, control):
    """Mean and variance of s_0k over Gaussian u and v, exact up to rounding: cubature.

    s_0k² is a polynomial of degree 4 in u_0 and v_k, of degree 2 in the other vectors (in the control
    v = u, which breaks this too). Two nodes a coordinate integrate degree 3 against N(0, 1), three
    degree 5. Every other pair j, k has the same moments: the vectors are exchangeable.
    """
    rules = [THREE if i == special else TWO
             for special in ((0,) if control else (0, k)) for i in range(N) for _ in range(d)]
    grid = np.meshgrid(*(nodes for nodes, _ in rules), indexing="ij")
    weights = reduce(np.multiply.outer, (w for _, w in rules)).ravel()
    points = np.stack(grid, axis=-1).reshape(len(weights), -1, N, d) / np.sqrt(d)
    u, v = points[:, 0], points[:, -1]
    scores = read(write(u, v), u, v)[:, 0, k]
    mean = weights @ scores
    return mean, weights @ (scores - mean) ** 2


@claim("M1", "moments of the score of a stored pair", source="this project, setting of NLB24",
       provenance="derived", derivation=moments, control="v = u: keys and values not independent",
       cases=12, N=(1, 6), d=(1, 4))
def match_moments(case, N, d):
    """Mean and variance of s_jj; N d ≤ 6 keeps the cubature small."""
    d = min(d, 6 // N)
    expected = moments(N, d)
    return ((expected.mean_match, expected.var_match), mean_and_variance(N, d, 0, case.control))


@claim("M2", "moments of the score of two different pairs", source="this project, setting of NLB24",
       provenance="derived", derivation=moments, control="v = u: keys and values not independent",
       cases=12, N=(2, 6), d=(1, 3))
def cross_moments(case, N, d):
    """Mean and variance of s_jk, j ≠ k; N d ≤ 6 keeps the cubature small."""
    d = min(d, 6 // N)
    expected = moments(N, d)
    mean, variance = mean_and_variance(N, d, 1, case.control)
    # The mean is 0: 1 is added to both sides, so that its error counts against the scores' size.
    return (1 + expected.mean_cross, expected.var_cross), (1 + mean, variance)


@claim("M3", "orthonormal pairs are recalled without interference", source="NLB24, BCBJB23",
       provenance="derived", control="Gaussian rows, not orthonormal", N=(1, 40), spare=(0, 40))
def orthonormal_recall(case, N, spare):
    """s_jk = 1[j = k].

    Derivation. s_jk = Σ_i (u_j·u_i)(v_i·v_k) = Σ_i 1[i = j] 1[i = k].
    """
    d = N + spare
    rows = case.number(case.rng.normal(0, d ** -0.5, (d, d))) if case.control else case.rotation(d)
    u, v = rows[:N], case.rotation(d)[:N]
    return np.eye(N), read(write(u, v), u, v)


PAIRS = 4000        # read back at least so many
MODEL_ERROR = 0.006


@claim("M5", "share of random pairs that are recalled", source="this project, setting of NLB24",
       provenance="derived", derivation=recall_rate, kind="limit", cases=8,
       reason="0.006 for the approximations, and four standard errors of a share of 4000 pairs",
       control="lengths not conditioned on", d=(32, 96), times=(1.0, 1.5))
def share_recalled(case, d, times):
    """Random memories of one to one and a half times `capacity(d)` pairs, read back."""
    N = int(times * capacity(d))
    count = -(-PAIRS // N)
    u, v = case.rng.normal(0, d ** -0.5, (2, count, N, d))
    observed = (read(write(u, v), u, v).argmax(axis=-2) == np.arange(N)).mean()
    predicted = recall_rate(N, d)
    if case.control:
        xi, density = np.polynomial.hermite_e.hermegauss(40)
        m = moments(N, d)
        score = 1 + np.sqrt(m.var_match) * xi
        predicted = ndtr(score / np.sqrt(m.var_cross)) ** (N - 1) @ density / np.sqrt(2 * np.pi)
    return predicted, observed, MODEL_ERROR + 4 * np.sqrt(predicted * (1 - predicted) / (count * N))
