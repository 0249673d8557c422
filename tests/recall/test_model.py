"""The model against a second one written in single expressions, and its gradients."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from refimpl import induction
from refimpl.recall import Facts, Params, batched, forward, init, loss, loss_and_grads, sample

ACTIVATIONS = {"square": np.square, "relu": lambda x: x * (x.real > 0)}


def random_params(rng, V=8, d=4, L=6, dp=3, m=5, scale=1.0):
    shapes = (V, d), (V, d), (L, dp), (d + dp, d + dp), (m, d), (m,), (d, m)
    return Params(*(scale * rng.normal(size=shape) for shape in shapes))


def one_expression_logits(params, tokens, activation):
    """(attention, logits) of one prompt, every sum an einsum over the formula's indices."""
    E, U, P, WKQ, W1, b1, W2 = params
    rows = np.array([[*E[token], *P[i]] for i, token in enumerate(tokens)])
    weight = np.exp(np.einsum("i,ij,sj->s", rows[-1], WKQ, rows))
    attention = weight / weight.sum()
    hidden = ACTIVATIONS[activation](np.einsum("fi,s,si->f", W1, attention, E[tokens]) + b1)
    return attention, np.einsum("ui,if,f->u", U, W2, hidden)


def prompts_of(n, step, seed=0, count=3):
    """tokens, targets, slot: N = 3, R = 2, hence V = 8."""
    rng = np.random.default_rng(seed)
    prompts = sample(Facts.latin(3, 2, rng), n, count, rng)
    return prompts.infer() if step == "infer" else prompts.recall()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 3), st.sampled_from(sorted(ACTIVATIONS)),
       st.integers(0, 10 ** 6))
def test_forward_matches_the_formula(T, d, dp, activation, seed):
    rng = np.random.default_rng(seed)
    params = random_params(rng, V=7, d=d, dp=dp, scale=0.6)
    tokens = rng.integers(0, 7, T)
    trace = forward(params, tokens, activation)
    attention, logits = one_expression_logits(params, tokens, activation)
    # Sums of at most 6·5·5 products in another order: a few hundred roundings at most.
    assert np.abs(trace.attention - attention).max() <= 1e-12
    assert np.abs(trace.logits - logits).max() <= 1e-12 * max(1, np.abs(logits).max())


def test_trace_holds_every_step():
    params = random_params(np.random.default_rng(0))
    tokens = np.array([5, 0, 2])
    trace = forward(params, tokens, "relu")
    shapes = (3, 7), (3,), (3,), (4,), (5,), (5,), (4,), (8,)
    assert tuple(array.shape for array in trace) == shapes
    np.testing.assert_allclose(np.log(trace.attention / trace.attention[0]),
                               trace.scores - trace.scores[0], rtol=1e-9)
    np.testing.assert_allclose(trace.x, trace.attention @ params.E[tokens], rtol=1e-12)
    assert (trace.hidden == np.maximum(trace.preactivation, 0)).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("restricted", [True, False])
def test_loss_is_the_mean_cross_entropy_over_the_slot(activation, restricted):
    params = random_params(np.random.default_rng(0))
    tokens, targets, slot = prompts_of(2, "recall")
    start, stop = slot if restricted else (0, 8)
    losses = []
    for z, target in zip(tokens, targets):
        logits = one_expression_logits(params, z, activation)[1][start:stop]
        losses.append(-np.log(np.exp(logits[target - start]) / np.exp(logits).sum()))
    slot = slot if restricted else None
    observed, _ = loss_and_grads(params, tokens, targets, slot, activation)
    assert observed == loss(params, tokens, targets, slot, activation)
    assert observed == pytest.approx(np.mean(losses), rel=1e-12)    # as in the forward test


def complex_step(params, *args):
    """The derivative of the loss by every entry: Im loss(params + i h e) / h, exact to rounding."""
    derivative = []
    for field in params._fields:
        array = np.zeros(getattr(params, field).shape)
        for index in np.ndindex(array.shape):
            stepped = Params(*(a.astype(complex) for a in params))
            getattr(stepped, field)[index] += 1e-30j
            array[index] = loss(stepped, *args).imag / 1e-30
        derivative.append(array)
    return Params(*derivative)


@pytest.mark.parametrize("n, step, activation, restricted", [
    (1, "infer", "square", True), (2, "infer", "relu", True), (2, "recall", "square", True),
    (1, "recall", "relu", True), (2, "recall", "relu", False), (2, "infer", "square", False),
])
def test_gradients_match_the_complex_step(n, step, activation, restricted):
    params = random_params(np.random.default_rng(n))
    tokens, targets, slot = prompts_of(n, step, seed=n)
    args = tokens, targets, slot if restricted else None, activation
    _, grads = loss_and_grads(params, *args)
    for field, observed, expected in zip(Params._fields, grads, complex_step(params, *args)):
        largest = np.abs(expected).max()
        assert largest > 1e-6, f"{field}: a gradient of zero would prove nothing"
        # Both sides are exact to rounding; entries are sums of terms as large as the largest one.
        assert np.abs(observed - expected).max() <= 1e-12 * largest, field


def test_gradients_of_a_lone_token_match_the_complex_step():
    params = random_params(np.random.default_rng(3))
    args = np.array([[2]]), np.array([5]), None, "square"
    _, grads = loss_and_grads(params, *args)
    for field, observed, expected in zip(Params._fields, grads, complex_step(params, *args)):
        assert np.abs(observed - expected).max() <= 1e-12 * max(np.abs(expected).max(), 1e-30), field
    # Attention has one key, so nothing depends on what the scores are.
    assert not grads.WKQ.any() and not grads.P.any()


def test_gradient_is_zero_outside_the_slot():
    params = random_params(np.random.default_rng(0))
    tokens, targets, (start, stop) = prompts_of(1, "infer")
    _, grads = loss_and_grads(params, tokens, targets, (start, stop))
    outside = np.delete(grads.U, np.arange(start, stop), axis=0)
    assert not outside.any() and grads.U[start:stop].all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_float32_stays_float32(activation):
    params = random_params(np.random.default_rng(0))
    single = Params(*(array.astype(np.float32) for array in params))
    args = (*prompts_of(2, "recall"), activation)
    expected, exact = loss_and_grads(params, *args)
    value, grads = loss_and_grads(single, *args)
    assert value.dtype == loss(single, *args).dtype == np.float32
    assert {array.dtype for array in forward(single, args[0][0], activation)} == {np.dtype(np.float32)}
    assert {grad.dtype for grad in grads} == {np.dtype(np.float32)}
    # float32 rounds at 6e-8; logits near 100 cost two digits.
    assert value == pytest.approx(expected, rel=1e-4)
    assert np.abs(grads.WKQ - exact.WKQ).max() <= 1e-3 * np.abs(exact.WKQ).max()


def test_inputs_are_left_unchanged():
    params = random_params(np.random.default_rng(0))
    tokens, targets, slot = prompts_of(2, "infer")
    before = [array.copy() for array in (*params, tokens, targets)]
    loss_and_grads(params, tokens, targets, slot)
    loss(params, tokens, targets, slot, "relu")
    forward(params, tokens[0])
    assert all((a == b).all() for a, b in zip(before, (*params, tokens, targets)))


def test_large_scores_and_logits_stay_finite():
    params = random_params(np.random.default_rng(0), scale=30.0)
    tokens, targets, slot = prompts_of(2, "recall")
    value, grads = loss_and_grads(params, tokens, targets, slot)
    assert np.isfinite(value) and all(np.isfinite(grad).all() for grad in grads)


BATCH = (np.array([[0, 3, 1]]), np.array([6]))


@pytest.mark.parametrize("field, array, message", [
    ("E", np.zeros(8), "E: expected shape"),
    ("E", np.zeros((8, 4), int), "E: expected dtype"),
    ("U", np.zeros((7, 4)), "U: expected shape"),
    ("P", np.zeros((6, 2)), "WKQ: expected shape"),
    ("P", np.zeros((6, 3), np.float32), "P: expected dtype float64"),
    ("WKQ", np.full((7, 7), np.nan), "WKQ: expected finite"),
    ("W1", np.zeros((5, 3)), "W1: expected shape"),
    ("b1", np.zeros(4), "b1: expected shape"),
    ("W2", np.zeros((5, 4)), "W2: expected shape"),
])
def test_model_refuses_params_that_do_not_fit(field, array, message):
    params = random_params(np.random.default_rng(0))._replace(**{field: array})
    for call in (lambda: forward(params, BATCH[0][0]), lambda: loss(params, *BATCH),
                 lambda: loss_and_grads(params, *BATCH)):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("tokens, targets, slot, activation, message", [
    ([[0, 8]], [6], None, "square", "tokens: expected values in 0..7"),
    ([[-1, 0]], [6], None, "square", "tokens: expected values in 0..7"),
    ([[0.0, 1]], [6], None, "square", "tokens: expected integers"),
    ([0, 1], [6], None, "square", "tokens: expected 2 axes"),
    (np.zeros((0, 3), int), [6], None, "square", "tokens: expected at least one"),
    ([[0] * 7], [6], None, "square", "tokens: expected 1..6 positions"),
    ([[0, 1]], [6, 6], None, "square", "targets: expected one for each of 1"),
    ([[0, 1]], [8], None, "square", "targets: expected values in 0..7"),
    ([[0, 1]], [5], (6, 8), "square", "targets: expected values in 6..7"),
    ([[0, 1]], [6], (6, 6), "square", "slot stop: "),
    ([[0, 1]], [6], (6, 9), "square", "slot stop: "),
    ([[0, 1]], [6], (-1, 8), "square", "slot start: "),
    ([[0, 1]], [6], (0.0, 8), "square", "slot start: "),
    ([[0, 1]], [6], 6, "square", r"slot: expected None or \(start, stop\)"),
    ([[0, 1]], [6], None, "gelu", "activation: expected one of square, relu"),
])
def test_loss_refuses(tokens, targets, slot, activation, message):
    params = random_params(np.random.default_rng(0))
    for call in (loss, loss_and_grads):
        with pytest.raises(ValueError, match=message):
            call(params, tokens, targets, slot, activation)


@pytest.mark.parametrize("tokens, activation, message", [
    ([8], "square", "tokens: expected values"),
    ([], "square", "tokens: expected"),
    ([[0]], "square", "tokens: expected 1 axes"),
    ([0] * 7, "square", "tokens: expected 1..6 positions"),
    ([0], "tanh", "activation: "),
])
def test_forward_refuses(tokens, activation, message):
    with pytest.raises(ValueError, match=message):
        forward(random_params(np.random.default_rng(0)), tokens, activation)


def test_model_refuses_what_is_no_params():
    with pytest.raises(ValueError, match="params: expected recall.Params"):
        forward(tuple(random_params(np.random.default_rng(0))), [0])


def test_gradients_need_real_params():
    params = Params(*(array.astype(complex) for array in random_params(np.random.default_rng(0))))
    with pytest.raises(ValueError, match="params: expected float64 or float32"):
        loss_and_grads(params, *BATCH)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("call", [
    lambda p, a: forward(p, [0, 1, 2], a), lambda p, a: loss(p, [[0, 1, 2]], [3], None, a),
    lambda p, a: loss_and_grads(p, [[0, 1, 2]], [3], None, a),
    lambda p, a: batched.loss_and_grads(p, [[0, 1, 2]], [3], None, a)])
@pytest.mark.parametrize("change", [
    dict(E=1e155), dict(E=1e10, WKQ=1e300), dict(W1=1e160, W2=1e160), dict(U=1e200, W2=1e200)])
def test_weights_that_overflow_are_named(call, change, activation):
    params = random_params(np.random.default_rng(0))
    call(params, activation)
    huge = params._replace(**{name: size * getattr(params, name) for name, size in change.items()})
    with pytest.raises(ValueError, match="^params: .* stay finite, got entries up to .* in (E|WKQ|W1|W2|U)$"):
        call(huge, activation)


def test_params_and_traces_print_shapes_and_norms(rng):
    params = init(3, 2, 1, 4, 3, 6, rng)
    for shown in (params, forward(params, np.array([0, 3, 1])),
                  induction.forward(induction.init(3, 4, 5, rng), np.array([0, 1]))):
        first, *lines = repr(shown).splitlines()
        assert first == type(shown).__name__ + ":" and len(lines) == len(shown)
        for line, name, array in zip(lines, shown._fields, shown):
            assert line.split()[0] == name and str(array.shape) in line
            assert line.endswith(f"float64, norm {np.linalg.norm(array):.4g}")
