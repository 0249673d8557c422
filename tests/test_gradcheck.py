"""The checkers themselves: on functions whose derivatives are known, and on wrong ones."""

from typing import NamedTuple

import numpy as np
import pytest

from refimpl.gradcheck import VANISHING, adjoint_gap, central_difference, complex_step, relative_error


class Pair(NamedTuple):
    a: np.ndarray
    b: np.ndarray


def cubic(x):
    """f = Σ_ij a_ij³ exp(b_j)."""
    return (x.a ** 3 * np.exp(x.b)).sum()


def cubic_derivative(x):
    return Pair(3 * x.a ** 2 * np.exp(x.b), (x.a ** 3 * np.exp(x.b)).sum(0))


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    return Pair(rng.normal(size=(2, 3)), rng.normal(size=3))


def test_complex_step_is_exact_to_rounding(x):
    observed = complex_step(cubic, x)
    assert isinstance(observed, Pair) and observed.a.dtype == np.float64
    assert relative_error(observed, cubic_derivative(x)) < 1e-14      # a few roundings


def test_complex_step_takes_arrays_of_every_shape():
    assert complex_step(np.exp, np.array(2.0)) == pytest.approx(np.exp(2.0), rel=1e-15)
    assert complex_step(lambda a: (a ** 2).sum(), np.ones((1, 2, 1))).tolist() == [[[2.0], [2.0]]]
    assert complex_step(lambda a: 1 + 0j, np.ones((0, 3))).shape == (0, 3)


def test_complex_step_refuses_a_lost_imaginary_part():
    with pytest.raises(ValueError, match="imaginary part"):
        complex_step(lambda a: a.real.sum(), np.ones(2))


@pytest.mark.parametrize("f", [lambda a: (a, a), lambda a: (a, a[0]), lambda a: [a[:1], a], lambda a: None])
def test_complex_step_refuses_all_but_a_scalar(f):
    with pytest.raises(ValueError, match="^f: expected"):
        complex_step(f, np.ones(2))


def test_central_difference_is_good_to_nine_digits(x):
    # Truncation h² f'''/6 and rounding eps f/h are both near 1e-11 for numbers of order 1.
    error = relative_error(central_difference(cubic, x), cubic_derivative(x))
    assert 1e-15 < error < 1e-9


def test_central_difference_truncation_is_second_order(x):
    errors = [relative_error(central_difference(cubic, x, h), cubic_derivative(x)) for h in (1e-2, 1e-3)]
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.01)


def test_checkers_leave_their_arguments_alone(x):
    before = Pair(x.a.copy(), x.b.copy())
    complex_step(cubic, x)
    central_difference(cubic, x)
    adjoint_gap(cubic, lambda x, dy: cubic_derivative(x), x, np.random.default_rng(1))
    assert all((a == b).all() for a, b in zip(before, x))


def test_adjoint_gap_is_rounding_for_a_right_backward(x):
    def backward(x, dy):
        return Pair(*(dy * derivative for derivative in cubic_derivative(x)))
    assert adjoint_gap(cubic, backward, x, np.random.default_rng(1)) < 1e-14


def test_adjoint_gap_sees_one_wrong_entry_of_a_large_map():
    rng = np.random.default_rng(2)
    W = rng.normal(size=(200, 300))
    wrong = W.copy()
    wrong[17, 5] *= -1

    def gap(matrix):
        return adjoint_gap(lambda v: W @ v, lambda v, dy: matrix.T @ dy, rng.normal(size=300), rng)
    assert gap(W) < 1e-13       # sums of 60,000 rounded products
    assert gap(wrong) > 1e-6
    assert gap(0 * W) == pytest.approx(1)
    assert adjoint_gap(lambda v: 0 * v, lambda v, dy: 0 * dy, np.ones(3), rng) == 0
    assert gap(np.nan * W) == np.inf


def test_adjoint_gap_refuses_a_lost_imaginary_part():
    with pytest.raises(ValueError, match="imaginary part"):
        adjoint_gap(np.real, lambda x, dy: dy, np.ones(3), np.random.default_rng(0))


@pytest.mark.parametrize("a, b, error", [
    (np.zeros(3), np.zeros(3), 0),
    (np.zeros((0, 2)), np.zeros((0, 2)), 0),
    ((), (), 0),
    (np.array([1.0, -4.0]), np.array([1.0, -3.0]), 0.25),
    (1e-30, 2e-30, 0.5),                                # no absolute floor
    (1 + 0j, 1j, 2 ** 0.5),
    (np.zeros(3), np.full(3, 1e-300), 1),
    (np.array([True, False]), np.array([True, True]), 1),
    (np.uint8(1), np.uint8(2), 0.5),
    (np.zeros(3), np.zeros((3, 1)), np.inf),            # no broadcasting
    (np.array([np.nan]), np.array([np.nan]), np.inf),
    (np.array([np.inf]), np.array([np.inf]), np.inf),
    (np.array([np.nan]), np.array([1.0]), np.inf),      # and the other way round
    (Pair(np.ones(2), np.ones(1)), Pair(np.ones(2), np.full(1, 2.0)), 0.5),
    (Pair(np.ones(2), np.ones(1)), (np.ones(2),), np.inf),
])
def test_relative_error(a, b, error):
    assert relative_error(a, b) == pytest.approx(error, rel=1e-15)
    assert relative_error(b, a) == pytest.approx(error, rel=1e-15)


@pytest.mark.parametrize("small, error", [(1.0, 2), (VANISHING, 2), (VANISHING / 1000, 2e-3)])
def test_relative_error_keeps_small_fields_in_sight_until_they_vanish(small, error):
    a, b = Pair(np.ones(2), np.full(2, small)), Pair(np.ones(2), np.full(2, -small))
    assert relative_error(a, b) == pytest.approx(error)
