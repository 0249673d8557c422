"""Every kernel pair: the backward against the complex step of the forward, and what the forward promises.

The checks take the kernels as an argument, so that the same ones are run on mutated kernels, which
they must catch. Cotangents are random: with constant ones the gradient of a softmax is zero.
"""

import pathlib
import types

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import log_softmax

from refimpl import ops
from refimpl.gradcheck import adjoint_gap, complex_step

TOLERANCE = 1e-12       # a few hundred roundings of 1e-16; both sides are exact up to rounding
SEEDS = st.integers(0, 2 ** 32 - 1)


def assert_close(observed, expected, terms=0.0):
    """Compare relative to the largest entry, or to the largest term that cancelled in the sums."""
    size = max(np.abs(expected).max(), np.abs(terms).max())
    assert observed.shape == expected.shape
    assert np.abs(observed - expected).max() <= TOLERANCE * size


def draw_scores(rng, shape, scale, ties):
    """Random scores; with ties they take three values only."""
    return scale * (rng.integers(-1, 2, shape).astype(float) if ties else rng.normal(size=shape))


def check_embed(ops, rng, T, V, **_):
    z, W, dx = rng.integers(V, size=T), rng.normal(size=(V, 3)), rng.normal(size=(T, 3))
    x = ops.embed_forward(W, z)
    np.testing.assert_array_equal(x, W[z])
    start = rng.normal(size=W.shape)
    dW = start.copy()
    ops.embed_backward(z, dx, dW)
    gradient = complex_step(lambda W: (dx * ops.embed_forward(W, z)).sum(), W)
    assert_close(dW, start + gradient)


def check_relative_scores(ops, rng, T, V, **_):
    L = T + V - 2           # as many offsets as keys, or more
    content, offset, dS = rng.normal(size=(T, T)), rng.normal(size=(T, L)), np.tril(rng.normal(size=(T, T)))
    forward = ops.relative_scores_forward
    assert_close(ops.relative_scores_backward(dS, L),
                 complex_step(lambda offset: (dS * forward(content + 0j, offset)).sum(), offset))
    assert_close(dS, complex_step(lambda content: (dS * forward(content, offset + 0j)).sum(), content))


def check_softmax(ops, rng, T, V, scale, ties):
    s, dp = draw_scores(rng, T, scale, ties), rng.normal(size=T)
    p = ops.softmax_forward(s)
    gradient = complex_step(lambda s: (dp * ops.softmax_forward(s)).sum(), s)
    assert_close(ops.softmax_backward(p, dp), gradient, p * dp)


def check_causal_softmax(ops, rng, T, V, scale, ties):
    S, dA = draw_scores(rng, (T, T), scale, ties), rng.normal(size=(T, T))
    A = ops.causal_softmax_forward(S)
    gradient = complex_step(lambda S: (dA * ops.causal_softmax_forward(S)).sum(), S)
    assert_close(ops.causal_softmax_backward(A, dA), gradient, A * dA)


def check_cross_entropy(ops, rng, T, V, scale, ties):
    logits = draw_scores(rng, (T, V), scale, ties)
    start = int(rng.integers(V))
    stop = int(rng.integers(start + 1, V + 1))
    target = rng.integers(start, stop, size=T)
    dloss = rng.normal(size=T) * (rng.random(T) < 0.7)      # rows outside the loss among them
    gradient = complex_step(
        lambda logits: (dloss * ops.cross_entropy_forward(logits, target, start, stop)).sum(), logits)
    # Small gradients of confident predictions keep their digits, until the complex step underflows.
    assert_close(ops.cross_entropy_backward(logits, target, start, stop, dloss), gradient, 1e-250 * dloss)


def check_square(ops, rng, T, **_):
    x, dh = rng.normal(size=(2, T))
    assert_close(ops.square_backward(x, dh), complex_step(lambda x: (dh * ops.square_forward(x)).sum(), x))


def check_relu(ops, rng, T, **_):
    x, dh = rng.normal(size=(2, T))
    x[rng.random(T) < 0.2] = 0
    assert_close(ops.relu_backward(x, dh), complex_step(lambda x: (dh * ops.relu_forward(x)).sum(), x))


CHECKS = {"embed": check_embed, "relative_scores": check_relative_scores, "softmax": check_softmax,
          "causal_softmax": check_causal_softmax, "cross_entropy": check_cross_entropy,
          "square": check_square, "relu": check_relu}


def test_every_pair_has_a_check():
    assert {name.removesuffix("_backward") for name in vars(ops) if name.endswith("_backward")} == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 6), st.integers(2, 5), st.sampled_from([0.0, 1.0, 30.0, 1e3]), st.booleans())
def test_backward_equals_the_complex_step(name, seed, T, V, scale, ties):
    CHECKS[name](ops, np.random.default_rng(seed), T=T, V=V, scale=scale, ties=ties)


# Each mutant replaces one text in one backward.
MUTANTS = [
    ("embed", "+= dx[t, i]", "= dx[t, i]"),                         # repeated tokens overwrite
    ("embed", "+= dx[t, i]", "-= dx[t, i]"),
    ("embed", "range(z.shape[0])", "range(1, z.shape[0])"),         # the first token left out
    ("embed", "range(dW.shape[1])", "range(dW.shape[1] - 1)"),
    ("embed", "dW[z[t], i]", "dW[t % dW.shape[0], i]"),             # the position for the token
    ("relative_scores", "doffset[t, t - s]", "doffset[t, s]"),  # absolute for relative
    ("relative_scores", "doffset[t, t - s]", "doffset[s, t - s]"),
    ("relative_scores", "= dS[t, s]", "= dS[s, t]"),
    ("relative_scores", "= dS[t, s]", "= -dS[t, s]"),
    ("relative_scores", "range(t + 1)", "range(t)"),                # the diagonal left out
    ("softmax", "(dp[i] - mean)", "(dp[i] + mean)"),
    ("softmax", "(dp[i] - mean)", "dp[i]"),                         # only the diagonal of the Jacobian
    ("softmax", "dp[i] * p[i]", "dp[i] / p.shape[0]"),              # unweighted mean
    ("softmax", "p[i] * (dp[i] - mean)", "dp[i] - mean"),
    ("softmax", "mean += dp[i] * p[i]", "mean = dp[i] * p[i]"),
    ("causal_softmax", "A[t, :t + 1], dA[t, :t + 1]", "A[:t + 1, t], dA[:t + 1, t]"),
    ("causal_softmax", "A[t, :t + 1], dA[t, :t + 1]", "A[t, :t + 1], A[t, :t + 1]"),
    ("causal_softmax", "range(A.shape[0])", "range(A.shape[0] - 1)"),
    ("causal_softmax", "dS[t, :t + 1]", "dS[:t + 1, t]"),
    ("cross_entropy", "-= dloss[t]", "+= dloss[t]"),
    ("cross_entropy", "-= dloss[t] *", "-="),
    ("cross_entropy", "u] = dloss[t] *", "u] ="),
    ("cross_entropy", "-= dloss[t] * p[u - start]", "= -dloss[t] * p[u - start]"),
    ("cross_entropy", "logits[t, start:stop]", "logits[t, :stop]"),
    ("cross_entropy", "u] = dloss[t] * p[u - start]", "u] = dloss[t] * p[stop - 1 - u]"),
    ("cross_entropy", "range(start, stop)", "range(start, stop - 1)"),
    ("cross_entropy", "target[t]] -=", "target[t - 1]] -="),
    ("cross_entropy", "if not dloss[t] == 0", "if dloss[t] > 0"),
    ("square", "2 * x[i]", "x[i]"),
    ("square", "2 * x[i] * dh[i]", "2 * x[i]"),
    ("square", "2 * x[i]", "-2 * x[i]"),
    ("relu", "if x[i] > 0", "if x[i] < 0"),
    ("relu", "if x[i] > 0", "if x[i] >= 0"),
    ("relu", "= dh[i]", "= x[i]"),
]


def plain_kernels(name="", old="", new=""):
    """ops.py as plain Python, `old` replaced by `new` in `<name>_backward`."""
    source = pathlib.Path(ops.__file__).read_text(encoding="utf-8")
    if name:
        head, mark, rest = source.partition(f"\ndef {name}_backward(")
        body, decorator, tail = rest.partition("\n@njit")
        docstring, quotes, code = body.rpartition('"""')
        assert code.count(old) == 1, "a mutant replaces one text"
        source = head + mark + docstring + quotes + code.replace(old, new) + decorator + tail
    source = source.replace("from numba import njit", "def njit(cache):\n    return lambda kernel: kernel")
    kernels = types.SimpleNamespace()
    exec(compile(source, "mutant of ops.py", "exec"), vars(kernels))
    return kernels


def run_checks(kernels, name):
    for seed in range(20):
        CHECKS[name](kernels, np.random.default_rng(seed), T=4, V=5, scale=1.0, ties=False)


@pytest.mark.parametrize("name", CHECKS)
def test_plain_kernels_pass_the_checks(name):
    """Control: what catches the mutants lets the unmutated source pass."""
    run_checks(plain_kernels(), name)


@pytest.mark.parametrize("name, old, new", MUTANTS)
def test_mutated_backward_is_caught(name, old, new):
    mutant = plain_kernels(name, old, new)
    with pytest.raises((AssertionError, IndexError)):
        run_checks(mutant, name)


def add_embed_backward(z, dx, V):
    dW = np.zeros((V, dx.shape[1]))
    ops.embed_backward(z, dx, dW)
    return dW


def large_maps(rng, T=64, V=200):
    """Name, forward, backward and input of every pair, at a size too large for every coordinate."""
    z, target, x = rng.integers(V, size=T), rng.integers(50, 150, size=T), rng.normal(size=V)
    content = rng.normal(size=(T, T))
    yield ("embed", lambda W: ops.embed_forward(W, z), lambda W, dx: add_embed_backward(z, dx, V),
           rng.normal(size=(V, 32)))
    yield ("relative_scores", lambda position: ops.relative_scores_forward(content + 0j, position),
           lambda position, dS: ops.relative_scores_backward(dS, V), rng.normal(size=(T, V)))
    yield "softmax", ops.softmax_forward, lambda s, dp: ops.softmax_backward(ops.softmax_forward(s), dp), x
    yield ("causal_softmax", ops.causal_softmax_forward,
           lambda S, dA: ops.causal_softmax_backward(ops.causal_softmax_forward(S), dA), content)
    yield ("cross_entropy", lambda logits: ops.cross_entropy_forward(logits, target, 50, 150),
           lambda logits, dloss: ops.cross_entropy_backward(logits, target, 50, 150, dloss),
           rng.normal(size=(T, V)))
    yield "square", ops.square_forward, ops.square_backward, x
    yield "relu", ops.relu_forward, ops.relu_backward, x


def test_backward_is_the_adjoint_at_larger_sizes():
    rng = np.random.default_rng(0)
    names = []
    for name, forward, backward, x in large_maps(rng):
        names.append(name)
        assert adjoint_gap(forward, backward, x, rng) < TOLERANCE, name
    assert names == list(CHECKS)


def with_nan_above(array):
    return np.where(np.tri(len(array), dtype=bool), array, np.nan)


def test_kernels_ignore_future_scores():
    rng = np.random.default_rng(1)
    S, dA, position = rng.normal(size=(3, 5, 5))
    A = ops.causal_softmax_forward(S)
    np.testing.assert_array_equal(ops.causal_softmax_forward(with_nan_above(S)), A)
    np.testing.assert_array_equal(ops.causal_softmax_backward(with_nan_above(A), with_nan_above(dA)),
                                  ops.causal_softmax_backward(A, dA))
    np.testing.assert_array_equal(ops.relative_scores_forward(with_nan_above(S), position),
                                  ops.relative_scores_forward(S, position))
    np.testing.assert_array_equal(ops.relative_scores_backward(with_nan_above(dA), 5),
                                  ops.relative_scores_backward(dA, 5))
    for lower in (A, ops.causal_softmax_backward(A, dA), ops.relative_scores_forward(S, position)):
        assert not np.triu(lower, 1).any()


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 30), st.sampled_from([0.0, 1.0, 1e3, 1e300]), st.booleans())
def test_attention_rows_sum_to_one(seed, T, scale, ties):
    A = ops.causal_softmax_forward(draw_scores(np.random.default_rng(seed), (T, T), scale, ties))
    np.testing.assert_allclose(A.sum(1), 1, rtol=1e-14)     # 30 roundings
    assert (A >= 0).all() and A[0, 0] == 1


def test_relative_scores_add_content_and_position():
    content = np.array([[1.0, 2.0], [3.0, 4.0]])
    position = np.array([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])
    # The key itself stands 0 back, the one before it 1 back.
    np.testing.assert_array_equal(ops.relative_scores_forward(content, position), [[11, 0], [53, 44]])


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 5), st.integers(2, 8), st.sampled_from([1.0, 1e3]), st.booleans())
def test_cross_entropy_is_the_log_softmax_over_the_slot(seed, T, V, scale, ties):
    rng = np.random.default_rng(seed)
    logits = draw_scores(rng, (T, V), scale, ties)
    start = int(rng.integers(V))
    stop = int(rng.integers(start + 1, V + 1))
    target = rng.integers(start, stop, size=T)
    logits[:, :start] = logits[:, stop:] = np.nan       # nothing outside the slot is read
    expected = -log_softmax(logits[:, start:stop], axis=1)[np.arange(T), target - start]
    loss = ops.cross_entropy_forward(logits, target, start, stop)
    # scipy's loss near 0 is a difference of logits: its rounding is relative to those.
    np.testing.assert_allclose(loss, expected, rtol=1e-13, atol=1e-14 * scale)
    dlogits = ops.cross_entropy_backward(logits, target, start, stop, np.ones(T))
    assert not dlogits[:, :start].any() and not dlogits[:, stop:].any()


def test_a_confident_prediction_keeps_its_digits():
    logits, target = np.array([[100.0, 0.0]]), np.array([0])
    # log(1 + e^−100) = e^−100 up to a relative e^−100.
    np.testing.assert_allclose(ops.cross_entropy_forward(logits, target, 0, 2), np.exp(-100), rtol=1e-14)
    dlogits = ops.cross_entropy_backward(logits, target, 0, 2, np.ones(1))
    np.testing.assert_allclose(dlogits, [[-np.exp(-100), np.exp(-100)]], rtol=1e-14)


def test_rows_outside_the_loss_are_skipped():
    logits = np.array([[np.nan, np.nan, np.nan], [1.0, 2.0, 3.0]])
    dlogits = ops.cross_entropy_backward(logits, np.array([0, 2]), 0, 3, np.array([0.0, 1.0]))
    np.testing.assert_array_equal(dlogits[0], 0)
    np.testing.assert_allclose(dlogits[1], np.exp(log_softmax([1, 2, 3])) - [0, 0, 1], rtol=1e-14)


def test_relu_is_flat_at_zero():
    x = np.array([-1.0, -0.0, 0.0, 5e-324, 2.0])
    np.testing.assert_array_equal(ops.relu_forward(x), [0, 0, 0, 5e-324, 2])
    np.testing.assert_array_equal(ops.relu_backward(x, np.full(5, 3.0)), [0, 0, 0, 3, 3])


def test_relu_keeps_nan():
    x = np.array([np.nan, 1.0])
    np.testing.assert_array_equal(ops.relu_forward(x), x)
    np.testing.assert_array_equal(ops.relu_backward(x, np.ones(2)), x)


def every_kernel(dtype):
    """The outputs of all kernels on one small input, in this dtype."""
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 4, 4)).astype(dtype)
    z = np.array([1, 0, 3, 1])
    dW = np.zeros((4, 4), dtype)
    ops.embed_backward(z, a, dW)
    A = ops.causal_softmax_forward(a)
    return [ops.embed_forward(a, z), dW, ops.relative_scores_forward(a, b),
            ops.relative_scores_backward(a, 5), ops.softmax_forward(a[0]), ops.softmax_backward(A[3], b[0]),
            A, ops.causal_softmax_backward(A, c), ops.cross_entropy_forward(a, z, 0, 4),
            ops.cross_entropy_backward(a, z, 0, 4, b[0]), ops.square_forward(a[0]),
            ops.square_backward(a[0], b[0]), ops.relu_forward(a[0]), ops.relu_backward(a[0], b[0])]


def test_float32_stays_float32():
    for single, double in zip(every_kernel(np.float32), every_kernel(np.float64), strict=True):
        assert single.dtype == np.float32 and double.dtype == np.float64
        np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-6)    # a few roundings of 6e-8
