"""Both passes of both models, unchanged, on balls of interval arithmetic: they enclose what floats give."""

import numpy as np
import pytest

from refimpl import induction, recall
from tests.test_ops import plain_kernels

flint = pytest.importorskip("flint")
balls = np.vectorize(lambda x: flint.arb(float(x)), otypes=[object])


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Kernels as plain Python, as with NUMBA_DISABLE_JIT=1, and 170 bits."""
    kernels = plain_kernels()
    for model in (induction.model, recall.model):
        monkeypatch.setattr(model, "ops", kernels)
    for name in ("square", "relu"):
        monkeypatch.setitem(recall.model.ACTIVATIONS, name, (
            getattr(kernels, f"{name}_forward"), getattr(kernels, f"{name}_backward")))
    monkeypatch.setattr(flint.ctx, "prec", 170)
    return kernels


def assert_enclosed(enclosures, floats):
    """Every ball is narrow, and within rounding of its float."""
    for ball, x in zip(enclosures, floats, strict=True):
        for exact, rounded in zip(np.ravel(ball), np.ravel(x), strict=True):
            exact = flint.arb(exact)
            assert float(exact.rad()) < 1e-40 and abs(float(exact.mid()) - rounded) < 1e-13


@pytest.mark.parametrize("encoding", ["relative", "absolute"])
def test_induction_passes_enclose_the_gradient(encoding, rng, plain):
    params = induction.Params(*(w + rng.normal(0, 0.5, w.shape) for w in induction.init(4, 5, 6, rng)))
    z, mask = np.array([2, 0, 2, 1, 3, 2]), np.array([[True, False, True, True, True]])
    exact = induction.Params(*map(balls, params))
    trace, kept = induction.model.forward_pass(exact, z[:-1], encoding)
    loss = plain.cross_entropy_forward(trace.logits, z[1:], 0, 4)[mask[0]].sum() / 4
    dlogits = plain.cross_entropy_backward(trace.logits, z[1:], 0, 4, balls(mask[0] / 4))
    grads = induction.model.backward_pass(exact, z[:-1], encoding, trace, kept, dlogits)
    assert_enclosed(trace, induction.forward(params, z[:-1], encoding))
    floats = induction.loss_and_grads(params, z[None], mask, encoding)
    assert_enclosed((loss, *grads), (floats[0], *floats[1]))


@pytest.mark.parametrize("activation", ["square", "relu"])
def test_recall_passes_enclose_the_gradient(activation, rng, plain):
    params = recall.Params(*(w + rng.normal(0, 0.5, w.shape) for w in recall.init(3, 2, 1, 4, 3, 6, rng)))
    z, target, exact = np.array([2, 4, 1]), np.array([7]), recall.Params(*map(balls, params))
    trace, query = recall.model.forward_pass(exact, z, activation)
    loss = plain.cross_entropy_forward(trace.logits[None], target, 6, 8)
    dlogits = plain.cross_entropy_backward(trace.logits[None], target, 6, 8, balls(np.ones(1)))[0]
    grads = recall.model.backward_pass(exact, z, activation, trace, query, dlogits)
    assert_enclosed(trace, recall.forward(params, z, activation))
    floats = recall.loss_and_grads(params, z[None], target, (6, 8), activation)
    assert_enclosed((loss, *grads), (floats[0], *floats[1]))


def test_what_a_ball_leaves_open_is_not_decided(plain):
    """A ball around 0 is neither skipped as a zero nor cut at 0: the result encloses every case."""
    around = np.array([flint.arb(0, 1)], object)
    dlogits = plain.cross_entropy_backward(balls(np.zeros((1, 2))), np.array([0]), 0, 2, around)
    assert dlogits[0, 1].contains(0.5) and dlogits[0, 1].contains(-0.5)
    assert plain.relu_forward(around)[0].contains(1) and plain.relu_forward(around)[0].contains(0)
    assert np.isnan(plain.relu_backward(around, balls(np.ones(1)))[0])
