"""The verdict on one instance: what must fail does, and says why."""

import errno
import math
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, strategies as st

from refimpl import claims
from tests.claims.examples import TEXT, wrong

INSTANCE = {"n": 3, "seed": 0}


def outcome(check, kind="exact", **changes):
    """What becomes of one instance of a claim with this check, and whether it fails."""
    claim = wrong(check, kind=kind, **changes)
    result = claims.evaluate(claim, INSTANCE, TEXT)
    assert claims.fails(claim, result) == (not result.error <= claim.tolerance)
    assert not (result.message and claims.breaks(claim, result))
    return result


class Pair(NamedTuple):
    a: Any
    b: Any


class Nothing(NamedTuple):
    pass


class Fields(tuple):
    """Like a NamedTuple, but of any length."""
    _fields = ("a", "b")


class Flattering(np.ndarray):
    """An array that says it is equal to everything."""
    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return np.zeros(3)


class Other(NamedTuple):
    a: Any
    b: Any


def leave(status):
    """A check that ends the process."""
    return lambda case, n: sys.exit(status)


def throw(error):
    """A check that raises."""
    def check(case, n):
        raise error
    return check


class Mute(Exception):
    def __str__(self):
        raise SystemExit(0)


@pytest.mark.parametrize("check, message", [
    (leave(0), "SystemExit: 0"), (leave(None), "SystemExit"),
    (throw(ValueError("long" * 10 ** 6)), "longlong"),
    (throw(BaseException("stop")), "BaseException: stop"),
    (throw(GeneratorExit()), "GeneratorExit"), (throw(MemoryError()), "MemoryError"), (throw(Mute()), "Mute"),
    (throw(OSError(errno.ENOENT, "none")), "FileNotFoundError"), (throw(ValueError("\x1b[2J")), r"\x1b[2J"),
    (throw(RuntimeError("one\ntwo")), "RuntimeError: one")])
def test_checks_that_raise_have_failed(check, message):
    result = outcome(check)
    assert result.error == math.inf and message in result.message
    assert result.message.isprintable() and "two" not in result.message and len(result.message) < 400


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
def test_a_machine_that_cannot_write_is_no_failure_of_the_claim(code):
    with pytest.raises(OSError):
        outcome(throw(OSError(code, "no room")))


def test_an_interrupt_is_no_failure_of_the_claim():
    with pytest.raises(KeyboardInterrupt):
        outcome(throw(KeyboardInterrupt()))


@pytest.mark.parametrize("returned, message", [
    (1.0, "TypeError: the check returned float"), (None, "NoneType"), ((1.0,), "a tuple of 1"),
    ((1, 1, 1, 1), "a tuple of 4"), (Pair(1, 1), "a tuple of 2"),
    (((1, 1), 1), "as many parts"), ((1, (1, 1)), "as many parts"), (((1, 1), (1, 1, 1)), "as many parts"),
    (((), ()), "at least one"),
    ((np.ones(3), np.ones((7, 3))), "equal shapes"), ((1.0, np.ones(3)), "equal shapes"),
    ((np.ones((7, 1)), np.ones(7)), "equal shapes"), ((np.ones(0), np.ones(0)), "at least one number"),
    ((np.ones((0, 3)), np.ones((0, 3))), "at least one number"),
    ((math.nan, 1.0), "finite"), ((1.0, math.nan), "finite"), ((math.nan, math.nan), "finite"),
    ((math.inf, math.inf), "finite"), ((np.array([1, math.nan]),) * 2, "finite"),
    ((Nothing(), Nothing()), "at least one"), ((Fields((1,)), Fields((1, 2))), "as many parts"),
    (({"a": 1}, {"a": 1}), "numbers, got dtype"), (("a", "a"), "numbers, got dtype"),
    ((None, None), "numbers, got dtype"),
    ((np.array([1, None]),) * 2, "numbers, got dtype"), ((Pair(1, 1), Other(1, 1)), "equal types"),
    ((Pair(1, 1), (1, 1)), "as many parts"), ((Pair(1, np.ones(0)),) * 2, "at least one number"),
    ((Pair(1, math.nan),) * 2, "finite"), ((2 ** 53 + 1, 2 ** 53), "2^53"), ((2 ** 70, 2 ** 70), "numbers"),
    ((1, 1, math.nan), "finite"), ((1, 1, math.inf), "finite"), ((1, 1, -1.0), ">= 0"),
    ((1, 1, (1, 1)), "one for each"), (((1, 1), (1, 1), (1, 1, 1)), "one for each"),
    ((np.ones(3), np.ones(3), np.ones(2)), "one or of shape"), ((1, 1, 1j), ">= 0")])
@pytest.mark.parametrize("control", [False, True])
def test_what_does_not_compare_fails_the_claim_and_is_no_failing_control(returned, message, control):
    claim = wrong(lambda case, n: returned)
    result = claims.evaluate(claim, INSTANCE, TEXT, control)
    assert message in result.message and claims.fails(claim, result) and not claims.breaks(claim, result)
    assert result.numbers == 0


@pytest.mark.parametrize("allowed", [
    -1.0, math.inf, math.nan, None, "much", (), (1.0,) * 3, (1.0, -1.0), (1.0, math.inf), (math.nan, 1.0),
    (np.ones(2), 1.0), 1j])
def test_what_a_limit_allows_must_be_finite_and_as_many_as_its_parts(allowed):
    result = outcome(lambda case, n: ((1.0, 2.0), (1.0, 2.0), allowed), "limit")
    assert result.error == math.inf and result.message


def test_a_limit_must_say_what_it_allows():
    assert "allowed" in outcome(lambda case, n: (1.0, 1.0), "limit").message


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 9))
def test_a_limit_accepts_what_it_says(predicted, observed, allowed):
    result = outcome(lambda case, n: (predicted, observed, allowed), "limit")
    (below, above), = result.accepted
    assert below == pytest.approx(observed - allowed - predicted) and above == pytest.approx(
        observed + allowed - predicted)
    if abs(abs(predicted - observed) - allowed) > 1e-9:
        assert (result.error <= 1) == (below <= 0 <= above) == (abs(predicted - observed) <= allowed)


@pytest.mark.parametrize("returned", [(1j, 1.0, 9.0), (1.0, 1j, 9.0)])
def test_a_complex_limit_has_no_interval(returned):
    result = outcome(lambda case, n: returned, "limit")
    assert result.error == pytest.approx(2 ** 0.5 / 9) and result.accepted == ()


def test_a_limit_counts_in_units_of_what_it_allows():
    result = outcome(lambda case, n: (np.ones(2), np.ones(2) + [0.1, -0.2], 0.4), "limit")
    assert result.error == pytest.approx(0.5) and result.numbers == 2 and result.accepted == ()
    assert outcome(lambda case, n: (1.0, 1.0, 0.0), "limit").error == 0
    assert outcome(lambda case, n: (1.0, 1.1, 0.0), "limit").error == math.inf


def test_scale_is_the_least_size_that_counts():
    assert outcome(lambda case, n: (0.0, -5e-21)).error == 1
    assert outcome(lambda case, n: (0.0, -5e-21, 1.0)).error == 5e-21
    assert outcome(lambda case, n: (3.0, 3.3, 1.0)).error == pytest.approx(0.3 / 3.3)
    result = outcome(lambda case, n: ((0.0, 0.0), (1e-9, 1e-9), (1.0, 1e-3)))
    assert result.error == pytest.approx(1e-6) and result.numbers == 2
    assert outcome(lambda case, n: (np.zeros(2), np.array([0, 1e-9]), np.array([1, 1e-3]))).error == (
        pytest.approx(1e-6))


def test_parts_count_each_by_its_own_size():
    assert outcome(lambda case, n: ((1e9, 1e-9), (1e9, 2e-9))).error == 0.5
    nested = (1.0, (2.0, [3.0])), (1.0, (2.0, [3.5]))
    assert outcome(lambda case, n: nested).error == pytest.approx(0.5 / 3.5)


@pytest.mark.parametrize("smaller, larger, scale, margin", [
    (1.0, 2.0, (), 0.5), (2.0, 1.0, (), -0.5), (1.0, 1.0, (), 0), (0.0, 0.0, (), 0), (-2.0, -1.0, (), 0.5),
    (1.0, 2.0, (10.0,), 0.1), (np.array([1, 3.0]), np.array([2, 2.0]), (), -1 / 3), ((1, 1), (3, 2), (), 0.5),
    (np.array([0, 1.0]), np.array([1, 2.0]), (np.array([1.0, 4.0]),), 0.25)])
def test_an_inequality_has_its_smallest_margin(smaller, larger, scale, margin):
    result = outcome(lambda case, n: (smaller, larger, *scale), "inequality")
    assert result.margin == pytest.approx(margin) and result.error == pytest.approx(max(0, -margin))


@pytest.mark.parametrize("returned", [(1, 2, 0.0), (1, 2, -1.0), (1, 1j), (1j, 1), (math.nan, 1),
                                      (np.ones(2), 1)])
def test_an_inequality_that_does_not_compare_fails(returned):
    result = outcome(lambda case, n: returned, "inequality")
    assert result.message and result.margin is None


def test_gaps_that_overflow_fail_without_a_warning():
    huge = lambda case, n: (1.7e308, -1.7e308)     # noqa: E731
    assert not outcome(huge).error <= 1 and outcome(huge, "inequality").margin == -math.inf
    claim = wrong(huge)
    assert not claims.breaks(claim, claims.evaluate(claim, INSTANCE, TEXT, control=True))


@pytest.mark.parametrize("a, b", [(True, True), (np.uint8(3), np.uint8(3)), (1, 1.0), (1 + 1j, 1 + 1j),
                                  (np.float32(1), np.float64(1)), ([1, 2], (1, 2))])
def test_equal_numbers_of_all_types_have_no_error(a, b):
    assert outcome(lambda case, n: (a, b)).error == 0


def test_arrays_that_flatter_and_masks_that_hide_are_compared_as_numbers():
    assert outcome(lambda case, n: (np.ones(3), np.full(3, 2.0).view(Flattering))).error == 0.5
    assert outcome(lambda case, n: (np.ones(2), np.ma.array([1.0, 2.0], mask=[False, True]))).error == 0.5


def test_unsigned_and_boolean_numbers_subtract_as_numbers():
    assert outcome(lambda case, n: (np.uint8(1), np.uint8(3))).error == pytest.approx(2 / 3)
    assert outcome(lambda case, n: (True, False)).error == 1


@pytest.mark.parametrize("returned", [(Pair(1.0, 2.0), np.array([1.0, 2.0])),
                                      (np.array([1.0, 2.0]), Pair(1.0, 2.0))])
def test_a_named_tuple_is_no_array(returned):
    assert "equal types" in outcome(lambda case, n: returned).message


@pytest.mark.parametrize("returned", [(np.int8(-128), 1.0), (1.0, np.int8(-128))])
def test_the_smallest_integer_has_its_size(returned):
    assert outcome(lambda case, n: returned).error == 129 / 128      # |−128| is no int8


def test_fields_of_one_named_tuple_have_one_size():
    assert outcome(lambda case, n: (Pair(1.0, 0.0), Pair(1.0, 1e-16))).error <= 1e-13
    assert outcome(lambda case, n: (Pair(1.0, 0.0), Pair(1.0, 1e-3))).error > 1e-2
    assert outcome(lambda case, n: (Pair(1.0, 0.0), Pair(1.0, 1e-3), 1.0)).error == pytest.approx(1e-3)


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.floats(0, 1))
def test_the_verdict_is_that_of_the_definition(a, b, tolerance):
    claim = wrong(lambda case, n: (a, b), tolerance=tolerance)
    result = claims.evaluate(claim, INSTANCE, TEXT)
    size = max(abs(a), abs(b))
    assert claims.fails(claim, result) == (size > 0 and abs(a - b) / size > tolerance)


def test_show_reaches_the_case_and_nothing_else_needs_it():
    lines = []
    check = lambda case, n: (case.show("prompt", "a b"), (n, n))[1]     # noqa: E731
    assert claims.evaluate(wrong(check), INSTANCE, TEXT).error == 0
    claims.evaluate(wrong(check), INSTANCE, TEXT, show=lambda *line: lines.append(line))
    assert lines == [("prompt", "a b")]
