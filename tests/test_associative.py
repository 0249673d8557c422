"""Claims M1–M3 and M5. A score squared has degree 4 in each coordinate, and three Gauss–Hermite nodes per
coordinate integrate degree 5 exactly: the moments are summed over all node combinations, not sampled."""

import numpy as np
import pytest

from refimpl import associative

SIZES = [(1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2), (1, 3), (1, 4), (3, 2)]


def cubature(count, d, chunk=3 ** 9):
    """Yield nodes (≤ chunk, count) and their weights, for `count` independent N(0, 1/d)."""
    for start in range(0, 3 ** count, chunk):
        numbers = np.arange(start, min(start + chunk, 3 ** count))
        digits = numbers[:, None] // 3 ** np.arange(count) % 3
        nodes = np.array([-np.sqrt(3 / d), 0, np.sqrt(3 / d)])
        yield nodes[digits], np.array([1 / 6, 2 / 3, 1 / 6])[digits].prod(1)


def exact_moments(N, d):
    """Mean (N, N) and variance (N, N) of the scores of Gaussian pairs."""
    mean, square = np.zeros((N, N)), np.zeros((N, N))
    for x, weights in cubature(2 * N * d, d):
        u, v = x.reshape(-1, 2, N, d).swapaxes(0, 1)
        scores = associative.read(associative.write(u, v), u, v)
        mean += np.tensordot(weights, scores, 1)
        square += np.tensordot(weights, scores ** 2, 1)
    return mean, square - mean ** 2


@pytest.mark.parametrize("N, d", SIZES)
def test_moments_equal_the_sum_over_all_nodes(N, d):
    mean, variance = exact_moments(N, d)
    expected = associative.moments(N, d)
    match, cross = np.eye(N, dtype=bool), ~np.eye(N, dtype=bool)
    # Up to 3^12 products of 12 weights: rounding stays below 1e-12 of the numbers' scale.
    np.testing.assert_allclose(mean[match], expected.mean_match, rtol=1e-12)
    np.testing.assert_allclose(variance[match], expected.var_match, rtol=1e-12)
    if N > 1:
        np.testing.assert_allclose(mean[cross], expected.mean_cross, atol=1e-12)
        np.testing.assert_allclose(variance[cross], expected.var_cross, rtol=1e-12)


def test_one_pair_has_no_cross_moments():
    for moments in (associative.moments, associative.unit_moments):
        assert np.isnan(moments(1, 3)[2:]).all()


@pytest.mark.parametrize("N, d", [(1, 1), (2, 2), (3, 2)])
def test_moments_need_independent_keys(N, d):
    """Control: with v = u, E s_jj = E |u_j|⁴ + Σ_{i≠j} E (u_j·u_i)² = 1 + 2/d + (N − 1)/d, not 1."""
    mean = 0
    for x, weights in cubature(N * d, d):
        u = x.reshape(-1, N, d)
        mean += np.tensordot(weights, associative.read(associative.write(u, u), u, u), 1)
    np.testing.assert_allclose(np.diag(mean), 1 + (N + 1) / d, rtol=1e-12)
    assert abs(mean[0, 0] - associative.moments(N, d).mean_match) > 0.5


def design(d):
    """Points on the unit sphere whose mean is that of the sphere for every polynomial up to degree 4."""
    golden = (1 + np.sqrt(5)) / 2
    points = {1: [[-1], [1]],
              2: [[np.cos(a), np.sin(a)] for a in 2 * np.pi * np.arange(5) / 5],                # pentagon
              3: [np.roll([0, a, b * golden], k) for a in (-1, 1) for b in (-1, 1) for k in range(3)],
              4: [[*c] for c in np.ndindex(3, 3, 3, 3) if sum(n != 1 for n in c) == 2]}[d]      # 24-cell
    points = np.array(points, float) - (d == 4)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("N, d", [(1, 1), (2, 1), (6, 1), (1, 2), (2, 2), (3, 2), (1, 3), (2, 3), (2, 4)])
def test_unit_moments_equal_the_sum_over_all_nodes(N, d):
    """s_jk² has degree 4 in u_j and v_k at most: every design's points, in all combinations."""
    points = design(d)
    assert len(points) == {1: 2, 2: 5, 3: 12, 4: 24}[d]
    mean, square, count = 0, 0, len(points) ** (2 * N)
    for start in range(0, count, 2 ** 15):
        numbers = np.arange(start, min(start + 2 ** 15, count))
        x = points[numbers[:, None] // len(points) ** np.arange(2 * N) % len(points)]
        scores = associative.read(associative.write(x[:, :N], x[:, N:]), x[:, :N], x[:, N:])
        mean, square = mean + scores.sum(0) / count, square + (scores ** 2).sum(0) / count
    expected = associative.unit_moments(N, d)
    match, cross, variance = np.eye(N, dtype=bool), ~np.eye(N, dtype=bool), square - mean ** 2
    np.testing.assert_allclose(mean[match], expected.mean_match, rtol=1e-12)
    np.testing.assert_allclose(variance[match], expected.var_match, atol=1e-12)
    if N > 1:
        np.testing.assert_allclose(mean[cross], expected.mean_cross, atol=1e-12)
        np.testing.assert_allclose(variance[cross], expected.var_cross, rtol=1e-12)


@pytest.mark.parametrize("normalised", [True, False])
def test_moments_are_those_of_drawn_rows(normalised):
    """s_00 and s_10 of 4000 draws, N = 50 and d = 32: within four standard errors, the other form is not."""
    u, v = np.random.default_rng(3).normal(0, 32 ** -0.5, (2, 4000, 50, 32))
    if normalised:
        u, v = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (u, v))
    images = (u[:, :2] @ u.swapaxes(1, 2)) @ (v @ v[:, 0, :, None])             # Σ_i (u_j·u_i)(v_i·v_0)

    def standard_errors(moments):
        for found, mean, variance in zip(images[..., 0].T, moments[::2], moments[1::2]):
            squares = (found - mean) ** 2
            yield (found.mean() - mean) / (found.std() / np.sqrt(len(found)))
            yield (squares.mean() - variance) / (squares.std() / np.sqrt(len(found)))
    forms = associative.unit_moments(50, 32), associative.moments(50, 32)
    right, other = forms if normalised else forms[::-1]
    assert max(map(abs, standard_errors(right))) < 4
    assert max(map(abs, standard_errors(other))) > 10               # control
    assert forms[0].var_match == 49 / 1024


def test_orthonormal_pairs_are_read_exactly():
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(40, 40)))[0][:30] for _ in range(2))
    scores = associative.read(associative.write(u, v), u, v)
    np.testing.assert_allclose(scores, np.eye(30), atol=1e-14)     # sums of 40 products of order 1/40
    u[0] += 0.1 * u[1]          # control: no longer orthonormal
    assert abs(associative.read(associative.write(u, v), u, v) - np.eye(30)).max() > 0.05


def test_capacity_is_where_the_recall_rate_falls_below():
    assert [associative.capacity(d) for d in (1, 16, 32, 64, 128, 256)] == [1, 1, 7, 65, 348, 1511]
    for d, recall in ((32, 0.9), (64, 0.99), (40, 0.7)):
        N = associative.capacity(d, recall)
        assert associative.recall_rate(N, d) >= recall > associative.recall_rate(N + 1, d)


def test_capacity_approaches_its_limit_slowly():
    """N* 2 log N* / d², which tends to 1; the local slope of N* is far above 2."""
    found = {d: associative.capacity(d) for d in (32, 256, 2 ** 10, 2 ** 14, 2 ** 17)}
    ratio = [N * 2 * np.log(N) / d ** 2 for d, N in found.items()][2:]
    np.testing.assert_allclose(ratio, [0.45, 0.53, 0.57], atol=0.005)
    assert np.log(found[256] / found[32]) / np.log(8) > 2.5


@pytest.mark.parametrize("d, N, share", [(64, 65, 0.9896), (64, 130, 0.9214), (128, 348, 0.9898)])
def test_recall_rate_is_close_to_60000_pairs_read_back(d, N, share):
    assert abs(associative.recall_rate(N, d) - share) < 0.004


def test_one_pair_is_always_recalled():
    assert associative.recall_rate(1, 3) == 1 and 0.5 < associative.recall_rate(2, 3) < 1


def test_write_and_read_follow_the_index_notation():
    rng = np.random.default_rng(1)
    u, v = rng.normal(size=(2, 3, 4, 5))                # 3 memories of 4 pairs in R^5, twice
    W = associative.write(u, v)
    np.testing.assert_allclose(W, np.einsum("mia,mib->mab", u, v), rtol=1e-13)
    np.testing.assert_allclose(associative.read(W, u, v), np.einsum("mja,mab,mkb->mjk", u, W, v), rtol=1e-12)
    shared = associative.read(W[0], u, v)               # one memory, read by three sets of pairs
    np.testing.assert_array_equal(shared[0], associative.read(W, u, v)[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_dtype_is_kept(dtype):
    u = np.ones((2, 3), dtype)
    W = associative.write(u, u)
    assert W.dtype == dtype and associative.read(W, u, u).dtype == dtype


@pytest.mark.parametrize("call, message", [
    (lambda: associative.write(np.ones((2, 3)), np.ones((2, 4))), "v: expected shape"),
    (lambda: associative.write(np.ones(3), np.ones(3)), "u: expected shape"),
    (lambda: associative.write(np.ones((2, 3)), np.ones((2, 3), np.float32)), "v: expected dtype float64"),
    (lambda: associative.write(np.full((2, 3), np.nan), np.ones((2, 3))), "u: expected finite"),
    (lambda: associative.read(np.ones((3, 2)), np.ones((2, 3)), np.ones((2, 3))), "memory: expected shape"),
    (lambda: associative.moments(0, 3), "N: expected"),
    (lambda: associative.moments(2, 1.5), "d: expected"),
    (lambda: associative.unit_moments(0, 3), "N: expected"),
    (lambda: associative.unit_moments(2, 0), "d: expected"),
])
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
