import numpy as np
import pytest
from hypothesis import given
from scipy.special import log_softmax, softmax

from refimpl import gradcheck, induction
from refimpl.induction import Params, forward, init, loss, loss_and_grads
from tests import strategies

V, d, L = 4, 5, 7


@pytest.fixture
def params(rng):
    return Params(*(a + rng.normal(0, 0.7, a.shape) for a in init(V, d, L, rng)))


def einsum_logits(p, z, encoding):
    """The model once more, in one piece, with every index written out."""
    T = len(z)
    t, s = np.indices((T, T))
    future = s > t
    x0 = p.E[z] + (p.pos[:T] if encoding == "absolute" else 0)
    keys = np.broadcast_to(x0, (T, T, d))
    if encoding == "relative":
        keys = keys + p.pos[np.where(future, 0, t - s)]
    A1 = softmax(np.where(future, -np.inf, np.einsum("ti,ij,tsj->ts", x0, p.WK1, keys)), axis=1)
    x1 = x0 + np.einsum("ij,ts,sj->ti", p.Phi, A1, x0)
    A2 = softmax(np.where(future, -np.inf, np.einsum("ti,ij,sj->ts", x1, p.WK2, x1)), axis=1)
    x2 = x1 + np.einsum("ij,jk,ts,sk->ti", p.WO, p.WV, A2, x1)
    return np.einsum("vi,ij,tj->tv", p.U, np.eye(d) + p.WF, x2)


@pytest.mark.parametrize("encoding", ["relative", "absolute"])
@pytest.mark.parametrize("z", [[2], [0, 0, 0], [3, 1, 0, 2, 1, 1, 3]])
def test_forward_equals_einsum(params, encoding, z):
    expected = einsum_logits(params, z, encoding)
    np.testing.assert_allclose(forward(params, z, encoding).logits, expected, rtol=0,
                               atol=1e-13 * abs(expected).max())


@pytest.mark.parametrize("encoding", ["relative", "absolute"])
def test_attention_ignores_future_tokens(params, encoding):
    one, two = forward(params, [0, 1, 2, 3], encoding), forward(params, [0, 1, 2, 0], encoding)
    np.testing.assert_array_equal(one.logits[:3], two.logits[:3])
    assert not np.array_equal(one.logits[3], two.logits[3])
    for trace in (one, two):
        for square in (trace.scores1, trace.scores2, trace.attention1, trace.attention2):
            assert (np.triu(square, 1) == 0).all()


def test_encodings_differ(params):
    z = [0, 1, 2, 3]
    assert abs(forward(params, z).logits - forward(params, z, "absolute").logits).max() > 1e-3


@given(strategies.batches(), strategies.encodings)
def test_gradients_equal_complex_step(batch, encoding):
    params, tokens, mask = batch
    grads = loss_and_grads(params, tokens, mask, encoding)[1]
    steps = gradcheck.complex_step(lambda p: loss(p, tokens, mask, encoding), params)
    assert gradcheck.relative_error(steps, grads) <= 1e-12


def test_gradients_equal_central_differences(params, rng):
    tokens, mask = rng.integers(0, V, (2, L + 1)), np.ones((2, L), bool)
    grads = loss_and_grads(params, tokens, mask)[1]
    differences = gradcheck.central_difference(lambda p: loss(p, tokens, mask), params)
    for grad, difference in zip(grads, differences):
        assert gradcheck.relative_error(difference, grad) <= 1e-7    # cube root of rounding, squared


def test_loss_is_the_mean_over_the_mask(params, rng):
    tokens, mask = rng.integers(0, V, (3, L + 1)), rng.random((3, L)) < 0.5
    losses = [-log_softmax(forward(params, tokens[b, :-1]).logits[t])[tokens[b, t + 1]]
              for b, t in np.argwhere(mask)]
    value, _ = loss_and_grads(params, tokens, mask)
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-13)
    np.testing.assert_allclose(loss(params, tokens, mask), value, rtol=1e-15)


def test_gradient_of_a_batch_is_the_mean_of_its_sequences(params, rng):
    tokens, mask = rng.integers(0, V, (2, L + 1)), np.ones((2, L), bool)
    both = loss_and_grads(params, tokens, mask)[1]
    each = [loss_and_grads(params, tokens[b:b + 1], mask[b:b + 1])[1] for b in range(2)]
    for grad, one, two in zip(both, *each):
        assert gradcheck.relative_error((one + two) / 2, grad) <= 1e-13


@pytest.mark.parametrize("encoding", ["relative", "absolute"])
def test_huge_scores_stay_finite(params, encoding):
    huge = params._replace(WK1=1e4 * params.WK1, WK2=1e4 * params.WK2, WF=1e3 * params.WF)
    value, grads = loss_and_grads(huge, [[0, 1, 2, 2, 0]], np.ones((1, 4), bool), encoding)
    assert np.isfinite(value) and all(np.isfinite(grad).all() for grad in grads)


def test_float32_stays_float32_and_agrees(params, rng):
    tokens, mask = rng.integers(0, V, (2, L + 1)), np.ones((2, L), bool)
    single = Params(*(a.astype(np.float32) for a in params))
    value, grads = loss_and_grads(single, tokens, mask)
    exact, exact_grads = loss_and_grads(params, tokens, mask)
    assert value.dtype == np.float32 and all(g.dtype == np.float32 for g in grads)
    assert all(a.dtype == np.float32 for a in forward(single, tokens[0, :-1]))
    np.testing.assert_allclose(value, exact, rtol=1e-5)     # a hundred roundings of 6e-8
    for grad, exact_grad in zip(grads, exact_grads):
        assert gradcheck.relative_error(grad, exact_grad) <= 1e-4


def test_inputs_are_not_changed_and_layout_does_not_matter(params, rng):
    tokens, mask = rng.integers(0, V, (2, L + 1)), np.ones((2, L), bool)
    value, grads = loss_and_grads(params, tokens, mask)
    fortran = Params(*(np.asfortranarray(a) for a in params))
    for array in [*fortran, tokens, mask]:
        array.setflags(write=False)
    other, other_grads = loss_and_grads(fortran, tokens.astype(np.int32), mask)
    assert other == value
    for grad, other_grad in zip(grads, other_grads):
        np.testing.assert_array_equal(grad, other_grad)


def test_init_has_the_variance_of_unit_rows(rng):
    params = init(50, 400, 30, rng)
    for name in ("E", "U", "pos", "Phi", "WV"):
        assert abs(getattr(params, name).var() * 400 - 1) < 0.1, name
    for name in ("WK1", "WK2", "WO", "WF"):
        assert (getattr(params, name) == 0).all() and getattr(params, name).shape == (400, 400)


@pytest.mark.parametrize("change, name", [
    (dict(tokens=[]), "tokens"), (dict(tokens=[[0]]), "tokens"), (dict(tokens=[4]), "tokens"),
    (dict(tokens=[-1]), "tokens"), (dict(tokens=[0.0]), "tokens"), (dict(tokens=[True]), "tokens"),
    (dict(tokens=[0] * (L + 1)), "tokens"), (dict(encoding="rotary"), "encoding"),
    (dict(params=None), "params")])
def test_bad_arguments_of_forward_are_named(change, name, params):
    arguments = {**dict(params=params, tokens=[0, 1], encoding="relative"), **change}
    with pytest.raises(ValueError, match=f"^{name}:"):
        forward(**arguments)


@pytest.mark.parametrize("field, bad", [
    ("E", np.zeros((1, d))), ("U", np.zeros((V + 1, d))), ("pos", np.zeros((L, d + 1))),
    ("Phi", np.zeros(d)), ("WV", np.zeros((d, d), np.float32)), ("WK1", np.zeros((d, d), int)),
    ("WK2", np.full((d, d), np.nan)), ("WO", np.full((d, d), np.inf)), ("WF", np.zeros((0, d)))])
def test_bad_fields_of_params_are_named(field, bad, params):
    with pytest.raises(ValueError, match=f"^{field}:"):
        forward(params._replace(**{field: bad}), [0])


@pytest.mark.parametrize("tokens, mask, name", [
    ([[0, 1]], [[False]], "mask"), ([[0, 1]], [[1]], "mask"), ([[0, 1]], [True], "mask"),
    ([[0]], np.ones((1, 0), bool), "tokens"), ([0, 1], [[True]], "tokens"),
    ([[0, 9]], [[True]], "tokens")])
def test_bad_batches_are_named(tokens, mask, name, params):
    with pytest.raises(ValueError, match=f"^{name}:"):
        loss_and_grads(params, tokens, np.array(mask))


def test_gradients_need_real_weights(params):
    with pytest.raises(ValueError, match="float64 or float32"):
        loss_and_grads(Params(*(a.astype(complex) for a in params)), [[0, 1]], np.ones((1, 1), bool))


@pytest.mark.parametrize("sizes, name", [((1, 2, 2), "V"), ((2, 0, 2), "d"), ((2, 2, 0), "L")])
def test_bad_sizes_of_init_are_named(sizes, name, rng):
    with pytest.raises(ValueError, match=f"^{name}:"):
        induction.init(*sizes, rng)


@pytest.mark.parametrize("call", [
    lambda p: forward(p, [0, 1, 2]), lambda p: loss(p, [[0, 1, 2]], np.ones((1, 2), bool)),
    lambda p: loss_and_grads(p, [[0, 1, 2]], np.ones((1, 2), bool)),
    lambda p: loss_and_grads(p, [[0, 1, 2]], np.ones((1, 2), bool), "absolute")])
@pytest.mark.parametrize("change", [
    dict(E=1e155), dict(U=1e200, WF=1e200), dict(E=1e10, WK1=1e300), dict(WO=1e160, WV=1e160)])
def test_weights_that_overflow_are_named(call, change, params):
    call(params)
    huge = params._replace(**{name: size * getattr(params, name) for name, size in change.items()})
    with pytest.raises(ValueError, match="^params: .* stay finite, got entries up to .* in (E|U|WK1|WO|WV)$"):
        call(huge)


def test_loss_that_overflows_over_finite_logits_is_named(params):
    """The logits are ±1.2e308: their difference is not finite, nor is the loss."""
    flat = params._replace(E=np.ones((V, d)), U=np.ones((V, d)) * [[1], [-1], [1], [1]] * 1.2e308 / d,
                           Phi=0 * params.Phi, WO=0 * params.WO, WF=0 * params.WF)
    assert np.isfinite(forward(flat, [0]).logits).all()
    with pytest.raises(ValueError, match="^params: "):
        loss(flat, [[0, 1]], np.ones((1, 1), bool))
