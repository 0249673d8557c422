"""The claims of the linear associative memory: exact cubature (M1, M2), and what is read back (M3, M5)."""

from functools import reduce

import numpy as np

from scipy.special import ndtr

from refimpl.associative import capacity, moments, read, recall_rate, write
from refimpl.claims.claim import claim

ROOT = np.sqrt(3)
TWO = np.array([[-1, 1], [1 / 2, 1 / 2]])                           # nodes and weights
THREE = np.array([[-ROOT, 0, ROOT], [1 / 6, 2 / 3, 1 / 6]])
RANDOM: dict = dict(source="this project, setting of NLB24", provenance="derived")
MOMENTS: dict = dict(RANDOM, derivation=moments, control="v = u: keys and values not independent", cases=12)


def cubature(N, d, k, control, special, other):
    """√d times u and v, each (count, N, d), at all nodes, and the weights of the nodes.

    s_0k² is a polynomial of degree 4 in u_0 and v_k, of degree 2 in the other vectors (in the control
    v = u, which breaks this too). So `special` integrates degree 5 against N(0, 1), `other` degree 3.
    """
    rules = [special if i == j else other
             for j in ((0,) if control else (0, k)) for i in range(N) for _ in range(d)]
    grid = np.meshgrid(*(nodes for nodes, _ in rules), indexing="ij")
    points = np.stack(grid, axis=-1).reshape(grid[0].size, -1, N, d)
    return points[:, 0], points[:, -1], reduce(np.multiply.outer, (weights for _, weights in rules)).ravel()


def compared_moments(N, d, k, control):
    """Predicted and observed mean and variance of s_0k; N d ≤ 6 keeps the cubature small."""
    d = min(d, 6 // N)
    u, v, weights = cubature(N, d, k, control, THREE, TWO)
    scores = read(write(u, v), u, v)[:, 0, k] / d ** 2
    mean = weights @ scores
    expected = moments(N, d)
    return tuple(expected[2:] if k else expected[:2]), (mean, weights @ (scores - mean) ** 2)


@claim("M1", "moments of the score of a stored pair", N=(1, 6), d=(1, 4), **MOMENTS)
def match_moments(case, N, d):
    """Mean and variance of s_jj."""
    return compared_moments(N, d, 0, case.control)


@claim("M2", "moments of the score of two different pairs", N=(2, 6), d=(1, 3), **MOMENTS)
def cross_moments(case, N, d):
    """Mean and variance of s_jk, j ≠ k. The mean is 0, and counts by the scores' size, which is 1."""
    return (*compared_moments(N, d, 1, case.control), (1.0, 0.0))


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


@claim("M5", "share of random pairs that are recalled", derivation=recall_rate, kind="limit", cases=8,
       reason="0.006 for the approximations, and four standard errors of a share of 4000 pairs",
       control="lengths not conditioned on", d=(32, 96), times=(1.0, 1.5), **RANDOM)
def share_recalled(case, d, times):
    """Random memories of one to one and a half times `capacity(d)` pairs, read back."""
    N = int(times * capacity(d))
    count = -(-4000 // N)
    u, v = case.rng.normal(0, d ** -0.5, (2, count, N, d))
    observed = (read(write(u, v), u, v).argmax(axis=-2) == np.arange(N)).mean()
    predicted = recall_rate(N, d)
    if case.control:
        (xi, density), m = np.polynomial.hermite_e.hermegauss(40), moments(N, d)
        score = 1 + np.sqrt(m.var_match) * xi
        predicted = ndtr(score / np.sqrt(m.var_cross)) ** (N - 1) @ density / np.sqrt(2 * np.pi)
    return predicted, observed, 0.006 + 4 * np.sqrt(predicted * (1 - predicted) / (count * N))
