import multiprocessing
import threading
import time

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl import gradcheck
from refimpl.induction import Params, forward, init, loss_and_grads, tables
from refimpl.induction.tables import fast, kernels, threads as blas
from tests import strategies

V, d, L = 5, 6, 12


@pytest.fixture
def batch(rng):
    """params, tokens (11, 10), mask (11, 9): more sequences than chunks; one of them is not in the loss."""
    params = Params(*(a + rng.normal(0, 0.7, a.shape) for a in init(V, d, L, rng)))
    mask = rng.random((11, 9)) < 0.4
    mask[3] = False
    return params, rng.integers(0, V, (11, 10)), mask


def assert_equals_plain(params, tokens, mask, tolerance=1e-11):
    """Loss and all nine gradients, relative to the largest entry of each."""
    value, grads = tables.loss_and_grads(params, tokens, mask)
    plain, plain_grads = loss_and_grads(params, tokens, mask)
    assert value.dtype == plain.dtype and abs(value - plain) <= tolerance * max(abs(plain), 1)
    assert [g.dtype for g in grads] == [g.dtype for g in plain_grads]
    assert gradcheck.relative_error(grads, plain_grads) <= tolerance


@given(strategies.batches())
def test_tables_equal_plain(batch):
    assert_equals_plain(*batch)


@given(strategies.batches(max_V=9, max_T=20), st.integers(0, 2 ** 31))
def test_tables_equal_plain_with_one_position_in_the_loss(batch, seed):
    params, tokens, mask = batch
    one = np.zeros_like(mask)
    one.flat[seed % mask.size] = True
    assert_equals_plain(params, tokens, one)


def test_tables_equal_plain_in_several_blocks_with_more_tokens_than_the_first_one_has_keys(rng):
    """Queries are taken ROWS at a time; the first block has fewer keys than the sequence has tokens."""
    T, V = 2 * kernels.ROWS + 7, 2 * kernels.ROWS + 9
    params = Params(*(a + rng.normal(0, 0.2, a.shape) for a in init(V, d, T, rng)))
    tokens = np.stack([rng.permutation(V)[:T + 1], rng.integers(0, V, T + 1)])
    assert_equals_plain(params, tokens, rng.random((2, T)) < 0.9)


@pytest.mark.parametrize("name, scale", [("WK1", 1e4), ("WK2", 1e4), ("WF", 1e3), ("pos", 1e4)])
def test_huge_scores_stay_finite_and_equal_plain(batch, name, scale):
    params, tokens, mask = batch
    assert_equals_plain(params._replace(**{name: scale * getattr(params, name)}), tokens, mask, 1e-10)


def test_ranges_that_exponentials_cannot_hold_go_to_the_plain_model(batch, monkeypatch):
    params, tokens, mask = batch
    seen = []
    monkeypatch.setattr(fast.model, "loss_and_grads", lambda *args: seen.append(1) or loss_and_grads(*args))
    plain = []
    for scale in np.geomspace(1, 1e3, 13):
        assert_equals_plain(params._replace(WK1=scale * params.WK1), tokens, mask, 1e-10)
        plain.append(len(seen) > sum(plain))
    assert not plain[0] and plain[-1] and plain == sorted(plain)        # control: both ways were taken
    for name in ("WK1", "WK2", "WO"):       # tables that are not finite
        with pytest.raises(ValueError, match="params: expected weights"):
            tables.loss_and_grads(params._replace(**{name: np.full((d, d), 1e308)}), tokens, mask)
    assert len(seen) == sum(plain) + 3


@pytest.mark.parametrize("dtype, error", [(np.float64, 5e-16), (np.float32, 2e-7)])
def test_exponentials(dtype, error, rng):
    x = np.concatenate([-700 * rng.random(3000), -rng.random(3000), -np.log(2) * np.arange(1000) / 2, [-708]])
    x = x[x > np.log(np.finfo(dtype).tiny)].astype(dtype)
    y = x.copy()
    kernels.exponentials(y)
    assert y.dtype == dtype and np.abs(y / np.exp(x.astype(float)) - 1).max() <= error


@pytest.mark.jit
def test_exponentials_at_the_ends():
    x = np.array([0.0, -0.0, -5e-324, -709, -1e300, -np.inf, np.nan])
    kernels.exponentials(x)
    np.testing.assert_array_equal(x, [1, 1, 1, 0, 0, 0, np.nan])


@pytest.mark.parametrize("name", ["WK2", "Phi"])
def test_scores_that_round_by_more_than_exponentials_hold(name, batch):
    params, tokens, mask = batch
    tokens[:, 0], tokens[:, 1] = 0, 1       # no two keys are alike: one of them takes all
    params = params._replace(**{name: 1e20 * getattr(params, name)})
    value, grads = tables.loss_and_grads(params, tokens, mask)
    plain = loss_and_grads(params, tokens, mask)[0]
    assert abs(value - plain) <= 1e-11 * plain and all(np.isfinite(g).all() for g in grads)


def test_float32_stays_float32_and_agrees(batch):
    params, tokens, mask = batch
    single = Params(*(a.astype(np.float32) for a in params))
    assert_equals_plain(single, tokens, mask, 1e-4)     # a hundred roundings of 6e-8, some cancel
    assert tables.logits(single, tokens[0]).dtype == np.float32


@given(strategies.prompts(), strategies.seeds)
def test_logits_equal_forward(prompt, seed):
    V, z = prompt
    rng = np.random.default_rng(seed)
    params = Params(*(a + rng.normal(0, 0.5, a.shape) for a in init(V, 4, len(z), rng)))
    assert gradcheck.relative_error(tables.logits(params, z), forward(params, z).logits) <= 1e-12


@pytest.mark.jit
def test_number_of_threads_does_not_change_a_bit(rng, monkeypatch):
    """At a size that uses whole blocks, chunks of several sequences, and the BLAS."""
    params = Params(*(a + rng.normal(0, 0.1, a.shape) for a in init(65, 32, 200, rng)))
    tokens, mask = rng.integers(0, 65, (19, 201)), rng.random((19, 200)) < 0.5
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(numba, "get_num_threads", lambda: threads)
        results.append(tables.loss_and_grads(params, tokens, mask))
    for value, grads in results[1:]:
        assert value == results[0][0]
        for grad, first in zip(grads, results[0][1]):
            np.testing.assert_array_equal(grad, first)


def test_calls_are_spread_over_threads_that_know_of_errstate():
    threads = numba.get_num_threads()
    everybody = threading.Barrier(threads)

    def job(a, b):      # each thread gets one: it waits until all are there
        everybody.wait(60)
        return a - b, threading.get_ident(), np.geterr()["over"]

    with np.errstate(over="raise"):
        differences, idents, settings = zip(*blas.spread(job, range(threads), range(0, 2 * threads, 2)))
    assert differences == tuple(-i for i in range(threads)) and threading.get_ident() in idents
    assert len(set(idents)) == threads and set(settings) == {"raise"}
    with pytest.raises(ZeroDivisionError):
        blas.spread(lambda a: 1 // a, [2] * threads + [0])


def test_no_call_is_left_running_when_others_fail(monkeypatch):
    monkeypatch.setattr(numba, "get_num_threads", lambda: 3)
    for _ in range(20):         # which thread gets which call is left to chance
        everybody, ended = threading.Barrier(3), []

        def job(i):
            everybody.wait(60)
            if i < 2:
                raise ZeroDivisionError
            time.sleep(0.02)
            ended.append(i)

        with pytest.raises(ZeroDivisionError):
            blas.spread(job, range(3))
        assert ended == [2]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("during", [False, True])
def test_a_child_computes_whether_it_was_forked_during_a_step_or_after(during, batch):
    """A lock that another thread of the parent held would not open, and OpenBLAS would keep one thread."""
    tables.loss_and_grads(*batch)
    numbers = blas.openblas()
    before = [get() for get, _ in numbers]

    def child():
        assert [get() for get, _ in numbers] == before
        tables.loss_and_grads(*batch)

    inside = threading.Event()

    def hold():
        with blas.one_blas_thread():
            inside.set()
            time.sleep(0.5)

    holder = threading.Thread(target=hold)
    if during:
        holder.start()
        inside.wait(60)
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    process.kill()
    if during:
        holder.join()
    assert process.exitcode == 0 and [get() for get, _ in numbers] == before


def test_openblas_has_the_threads_that_it_had_before(batch):
    """During a step it has one, and a step that fails gives the others back too."""
    numbers = blas.openblas()
    before = [get() for get, _ in numbers]
    try:
        for _, set_number in numbers:
            set_number(2)
        tables.loss_and_grads(*batch)
        with pytest.raises(KeyError), blas.one_blas_thread():
            assert [get() for get, _ in numbers] == [1] * len(numbers)
            raise KeyError
        assert [get() for get, _ in numbers] == [2] * len(numbers)
    finally:
        for (_, set_number), number in zip(numbers, before):
            set_number(number)


def test_inputs_are_not_changed_and_layout_does_not_matter(batch):
    params, tokens, mask = batch
    value, grads = tables.loss_and_grads(params, tokens, mask)
    fortran = Params(*(np.asfortranarray(a) for a in params))
    mask = np.asfortranarray(mask)
    for array in [*fortran, tokens, mask]:
        array.setflags(write=False)
    other, other_grads = tables.loss_and_grads(fortran, tokens.astype(np.int32), mask)
    assert other == value
    for grad, other_grad in zip(grads, other_grads):
        np.testing.assert_array_equal(grad, other_grad)


@pytest.mark.parametrize("change, name", [
    (dict(encoding="absolute"), "encoding"), (dict(params=None), "params"),
    (dict(tokens=np.full((11, 10), V)), "tokens"), (dict(mask=np.zeros((11, 9), bool)), "mask"),
    (dict(mask=np.ones((11, 10), bool)), "mask")])
def test_bad_arguments_are_named(change, name, batch):
    arguments = {**dict(zip(("params", "tokens", "mask"), batch)), **change}
    with pytest.raises(ValueError, match=f"^{name}:"):
        tables.loss_and_grads(**arguments)


def test_absolute_positions_are_sent_to_the_plain_path(batch):
    with pytest.raises(ValueError, match="absolute.*") as error:
        tables.loss_and_grads(*batch, encoding="absolute")
    assert "induction.loss_and_grads" in str(error.value)


def test_complex_weights_have_logits_but_no_gradients(batch):
    params, tokens, mask = batch
    params = Params(*(a + 1e-3j * a ** 2 for a in params))
    with pytest.raises(ValueError, match="^params: expected float64 or float32"):
        tables.loss_and_grads(params, tokens, mask)
    error = gradcheck.relative_error(tables.logits(params, tokens[0]), forward(params, tokens[0]).logits)
    assert error <= 1e-12
