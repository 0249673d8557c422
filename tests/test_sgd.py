"""SGD against a transcription of torch.optim.SGD's documentation, and the training loop."""

from typing import NamedTuple

import numpy as np
import pytest

from refimpl import induction, recall, sgd
from refimpl.gradcheck import relative_error


class Line(NamedTuple):
    """y = W x + b."""

    W: np.ndarray       # (3, 2)
    b: np.ndarray       # ()


def draw(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return Line(rng.normal(size=(3, 2)).astype(dtype), np.array(rng.normal(), dtype))


def batches(seed, count):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(5, 2)), rng.normal(size=(5, 3))) for _ in range(count)]


def loss_and_grads(params, x, y):
    """Half the squared error, summed over the batch."""
    error = x @ params.W.T + params.b - y
    return 0.5 * (error ** 2).sum(), Line(error.T @ x, np.asarray(error.sum()))


def pytorch_step(w, g, buffer, lr, momentum, weight_decay):
    """The algorithm in torch.optim.SGD's documentation, dampening 0; buffer None at the first step."""
    if weight_decay != 0:
        g = g + weight_decay * w
    if momentum != 0:
        buffer = g if buffer is None else momentum * buffer + g
        g = buffer
    return w - lr * g, buffer


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("trained", [None, ("W",), ("b",), ()])
def test_step_follows_pytorch(dtype, momentum, weight_decay, trained):
    params, buffers = draw(0, dtype), None
    expected, expected_buffers = list(params), [None, None]
    settings = [dtype(value) for value in (0.1, momentum, weight_decay)]
    for number in range(4):
        grads = draw(number + 1, dtype)
        params, buffers = sgd.step(params, grads, buffers, 0.1, momentum, weight_decay, trained)
        for i, name in enumerate(Line._fields):
            if trained is None or name in trained:
                expected[i], expected_buffers[i] = pytorch_step(
                    expected[i], grads[i], expected_buffers[i], *settings)
            assert params[i].dtype == dtype and params[i].shape == grads[i].shape
            # The same operations in the same order: the same bits.
            np.testing.assert_array_equal(params[i], expected[i])
            if momentum:
                np.testing.assert_array_equal(buffers[i], 0 if expected_buffers[i] is None
                                              else expected_buffers[i])


def test_step_worked_by_hand():
    class One(NamedTuple):
        w: np.ndarray
    # g = 1 + 0.5·2 = 2, w = 2 − 0.25·2 = 1.5; then g = 1 + 0.75, buffer = 0.5·2 + 1.75 = 2.75.
    params, buffers = sgd.step(One(np.array([2.0])), One(np.array([1.0])), None, 0.25, 0.5, 0.5)
    assert (params.w, buffers.w) == (1.5, 2.0)
    params, buffers = sgd.step(params, One(np.array([1.0])), buffers, 0.25, 0.5, 0.5)
    assert (params.w, buffers.w) == (0.8125, 2.75)


def test_step_leaves_its_arguments_alone():
    params, grads, buffers = draw(0), draw(1), draw(2)
    params.W.setflags(write=False)
    before = [[array.copy() for array in values] for values in (params, grads, buffers)]
    sgd.step(params, grads, buffers, 0.1, 0.9, 0.1)
    for values, copies in zip((params, grads, buffers), before):
        for array, copy in zip(values, copies):
            np.testing.assert_array_equal(array, copy)


def test_step_takes_arrays_of_any_memory_order():
    params, grads = draw(0), draw(1)
    fortran = Line(np.asfortranarray(params.W), params.b)
    sliced = Line(np.repeat(grads.W, 2, axis=0)[::2], grads.b)
    expected, _ = sgd.step(params, grads, None, 0.1)
    observed, _ = sgd.step(fortran, sliced, None, 0.1)
    np.testing.assert_array_equal(observed.W, expected.W)


@pytest.mark.parametrize("change, message", [
    (dict(lr=-1.0), "lr: "), (dict(lr=np.nan), "lr: "), (dict(lr="1"), "lr: "),
    (dict(momentum=-0.1), "momentum: "), (dict(weight_decay=-0.1), "weight_decay: "),
    (dict(trained=("W", "c")), "trained: expected one of W, b, got 'c'"),
    (dict(trained="Wb c"), "trained: "),
    (dict(grads=(np.ones((3, 2)), np.ones(()))), "grads: expected Line"),
    (dict(grads=Line(np.ones((2, 3)), np.ones(()))), r"grads.W: expected shape \(3, 2\)"),
    (dict(grads=draw(1, np.float32)), "grads.W: expected dtype float64"),
    (dict(grads=Line(np.ones((3, 2)), np.array(np.inf))), "grads.b: expected finite"),
    (dict(buffers=Line(np.ones((3, 2)), np.ones(1))), "buffers.b: expected shape"),
    (dict(params=[np.ones(2)]), "params: expected a NamedTuple"),
    (dict(params=draw(0, np.complex128)), "params.W: expected float64 or float32"),
])
def test_step_refuses_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        sgd.step(**{**dict(params=draw(0), grads=draw(1), buffers=None, lr=0.1), **change})


def test_train_reports_the_loss_before_and_the_params_after():
    params, buffers = draw(0), None
    data = batches(1, 4)
    steps = list(sgd.train(params, data, loss_and_grads, 0.01, momentum=0.9, weight_decay=0.1))
    assert [step.step for step in steps] == [0, 1, 2, 3]
    for step, batch in zip(steps, data):
        loss, grads = loss_and_grads(params, *batch)
        params, buffers = sgd.step(params, grads, buffers, 0.01, 0.9, 0.1)
        assert step.loss == loss
        assert step.gradient_norm == pytest.approx(np.sqrt((grads.W ** 2).sum() + grads.b ** 2), rel=1e-14)
        np.testing.assert_array_equal(step.params.W, params.W)     # nor did a later step change them


def test_train_moves_and_measures_trained_fields_only():
    start = draw(0)
    for step in sgd.train(start, batches(1, 3), loss_and_grads, 0.01, weight_decay=0.5, trained=["b"]):
        np.testing.assert_array_equal(step.params.W, start.W)
    step, = sgd.train(start, batches(1, 1), loss_and_grads, 0.01, trained=["b"])
    _, grads = loss_and_grads(start, *batches(1, 1)[0])
    assert step.gradient_norm == pytest.approx(abs(grads.b), rel=1e-15)
    assert step.params.b != start.b


def test_train_gives_the_same_bits_for_the_same_seed():
    def run(seed):
        *_, last = sgd.train(draw(seed), batches(seed, 5), loss_and_grads, 0.01, 0.9)
        return last.loss, last.gradient_norm, last.params.W.tobytes(), last.params.b.tobytes()
    assert run(3) == run(3)
    assert run(3) != run(4)


@pytest.mark.parametrize("batches", [None, 3, loss_and_grads])
def test_train_refuses_what_holds_no_batches(batches):
    with pytest.raises(ValueError, match="^batches: expected an iterable of tuples, got "):
        next(sgd.train(draw(0), batches, loss_and_grads, 0.1))


def test_train_says_at_which_step_the_model_overflows():
    rng = np.random.default_rng(0)
    params, batch = induction.init(4, 8, 6, rng), (rng.integers(4, size=(2, 7)), np.ones((2, 6), bool))
    with pytest.raises(FloatingPointError, match="^step 1: params: .* entries up to .*; last finite loss: 1"):
        list(sgd.train(params, [batch] * 3, induction.loss_and_grads, 1e200))


def test_train_takes_batches_one_at_a_time():
    def endless():
        while True:
            yield batches(0, 1)[0]
    steps = sgd.train(draw(0), endless(), loss_and_grads, 0.01)
    assert next(steps).loss > next(steps).loss


def diverging(bad_loss, bad_grad, at):
    """Loss 5, 4, 3, …, until step `at`, where it and its gradient are as given."""
    count = iter(range(100))

    def loss_and_grads(params):
        number = next(count)
        if number < at:
            return 5.0 - number, Line(np.zeros((3, 2)), np.zeros(()))
        return bad_loss, Line(np.zeros((3, 2)), np.array(bad_grad))
    return loss_and_grads


@pytest.mark.parametrize("loss, grad", [(np.nan, 0.0), (np.inf, 0.0), (1.0, np.nan), (1.0, -np.inf)])
@pytest.mark.parametrize("trained", [None, ["W"]])
def test_train_stops_where_loss_or_gradient_is_not_finite(loss, grad, trained):
    steps = sgd.train(draw(0), [()] * 9, diverging(loss, grad, 2), 0.1, trained=trained)
    assert [next(steps).loss, next(steps).loss] == [5.0, 4.0]
    with pytest.raises(FloatingPointError, match="step 2.*last finite loss: 4.0"):
        next(steps)
    with pytest.raises(FloatingPointError, match="step 0.*last finite loss: None"):
        next(sgd.train(draw(0), [()], diverging(loss, grad, 0), 0.1))


def test_train_stops_where_the_update_is_not_finite():
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match="step 1.*loss: 1.0"):
        list(sgd.train(draw(0), [()] * 3, diverging(1.0, 1e200, 1), 1e200))


def test_induction_model_learns_to_copy():
    rng = np.random.default_rng(0)
    params = induction.init(4, 16, 6, rng)
    tokens = rng.integers(4, size=(8, 7))
    mask = np.ones((8, 6), bool)
    *_, last = sgd.train(params, [(tokens, mask)] * 20, induction.loss_and_grads, 0.5, 0.9,
                         trained=("WK1", "WK2", "WO", "WF"))
    assert last.loss < np.log(4) - 0.1          # what it starts at is log V
    np.testing.assert_array_equal(last.params.E, params.E)


def test_recall_model_learns_one_batch():
    rng = np.random.default_rng(0)
    facts = recall.Facts.latin(8, 3, rng)
    params = recall.construct(facts, 2, 10.0)
    batch = recall.sample(facts, 2, 16, rng).infer()
    losses = [step.loss for step in sgd.train(params, [batch] * 20, recall.loss_and_grads, 1.0,
                                              trained=("WKQ",))]
    assert losses[-1] < 0.5 * losses[0]


def test_float32_stays_close_to_float64():
    runs = []
    for dtype in (np.float32, np.float64):
        params, buffers = draw(0, dtype), None
        for number in range(10):
            params, buffers = sgd.step(params, draw(number + 1, dtype), buffers, 0.1, 0.9, 0.01)
        runs.append(params)
    assert relative_error(*runs) < 1e-6         # ten steps of a few roundings of 6e-8
