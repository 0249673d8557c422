"""Refuse bad input with a ValueError that names the argument, what was expected and what came.

Numba checks no bounds, so every public function passes its arguments through here before a kernel
sees them. Formulas declare their arguments (`takes`, at the end), so that a body is its formula.
"""

import functools
import inspect
import os
import re
import sys
from typing import Any, Callable, NamedTuple

import numpy as np

FLOATS = (np.float64, np.float32, np.complex128)
LARGEST = 2 ** 31       # no size or number of things in this project comes near it
ROUNDING = 1e-9         # how far from 1 the sum of given probabilities may be
QUIET: dict[str, Any] = dict(over="ignore", invalid="ignore")  # for np.errstate, where `computed` follows


class Overflow(ValueError):
    """Finite weights that are too large: what was computed from them is not finite."""


def instance(name, value, kind, expected):
    """Return `value`, which must be of this class; `expected` names it."""
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected {expected}, got {type(value).__name__}")
    return value


def asarray(name, values):
    """Return `values` as an array, if they have one shape."""
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"{name}: expected an array, got rows of different lengths") from None


def shaped(name, array, shape):
    """Return the array, which must have this shape; None in it leaves a size free."""
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape)):
        expected = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: expected shape ({expected}), got {array.shape}")
    return array


def broadcast(**shapes):
    """The shape to which those of these arguments broadcast; raise ValueError if they do not."""
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        raise ValueError(f"{', '.join(shapes)}: expected shapes that broadcast, "
                         f"got {', '.join(map(str, shapes.values()))}") from None


def integers(name, values, low, high, ndim=None, shape=None):
    """Return `values` as a contiguous int64 array (a copy if need be); each is in low..high−1.

    `ndim` is the number of axes; `shape` as in `shaped`. An array without entries is refused.
    """
    array = asarray(name, values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got dtype {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} axes, got shape {array.shape}")
    if shape is not None:
        shaped(name, array, shape)
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one entry, got shape {array.shape}")
    if array.min() < low or array.max() >= high:
        raise ValueError(f"{name}: expected values in {low}..{high - 1}, got {array.min()}..{array.max()}")
    return np.ascontiguousarray(array, dtype=np.int64).reshape(array.shape)


def integer(name, value, low, high=LARGEST):
    """Return `value` as an int that is at least `low` and less than `high`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name}: expected an integer, got {value!r}")
    if not low <= value < high:
        allowed = f"at least {low}" if value < low and high == LARGEST else f"in {low}..{high - 1}"
        raise ValueError(f"{name}: expected an integer {allowed}, got {value}")
    return int(value)


def real(name, value, low=-np.inf, high=np.inf):
    """Return `value` as a finite float that is at least `low` and at most `high`."""
    if hasattr(value, "rad") and not (value < low or value > high):
        return value
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise ValueError(f"{name}: expected a real number, got {value!r}")
    # Not by np.isfinite, which takes no integer from 2^64 on.
    if not (low <= value <= high and abs(value) <= sys.float_info.max):
        bound = "" if low == -np.inf else f" that is at least {low}"
        bound += "" if high == np.inf else f" and at most {high}"
        raise ValueError(f"{name}: expected a finite number{bound}, got {value}")
    return float(value)


def real_or_infinite(name, value, low=-np.inf):
    """Return `value` as a float that is at least `low`, +∞ included."""
    return np.inf if isinstance(value, float) and value == np.inf else real(name, value, low)


def summary(arrays):
    """The repr of a NamedTuple of arrays: a line for each with its shape, dtype and Euclidean norm."""
    lines = [f"    {name:14} {str(np.shape(a)):12} {np.asarray(a).dtype}, norm "
             f"{float(np.sqrt((np.abs(a) ** 2).sum())):.4g}" for name, a in zip(arrays._fields, arrays)]
    return "\n".join([f"{type(arrays).__name__}:", *lines])


def choice(name, value, allowed):
    """Return `value`, which must be one of the strings `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
    return value


def is_balls(array):
    """Whether these are numbers of interval arithmetic, which have a radius: they pass as they are.

    Their comparisons are True only when certain, so a bound refuses what certainly breaks it.
    """
    return array.dtype == object and any(hasattr(x, "rad") for x in array.flat) and all(
        hasattr(x, "rad") or type(x) in (int, float) for x in array.flat)


def floats(name, values, shape, dtype=None):
    """Return `values` as a contiguous array of finite numbers of this dtype, one of FLOATS; None is any."""
    array = asarray(name, values)
    if is_balls(array) or array.dtype == dtype == object:   # zeros of a memory of balls may be integers
        return shaped(name, array, shape)
    if array.dtype not in FLOATS or (dtype is not None and array.dtype != dtype):
        expected = "float64, float32 or complex128" if dtype is None else np.dtype(dtype)
        raise ValueError(f"{name}: expected dtype {expected}, got {array.dtype}")
    shaped(name, array, shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got {array[~np.isfinite(array)][0]} among them")
    return np.ascontiguousarray(array).reshape(array.shape)


def reals(name, values, shape=None, low=-np.inf, high=np.inf):
    """Return `values`, integers or reals, as contiguous finite float64 numbers in low..high."""
    array = asarray(name, values)
    if is_balls(array) and not any(x < low or x > high for x in array.flat):
        return array if shape is None else shaped(name, array, shape)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}")
    if shape is not None:
        shaped(name, array, shape)
    with np.errstate(over="ignore"):        # a longdouble may become infinite, and is refused
        array = np.ascontiguousarray(array, np.float64).reshape(array.shape)
    wrong = ~(np.isfinite(array) & (array >= low) & (array <= high))
    if wrong.any():
        raise ValueError(f"{name}: expected finite numbers in {low}..{high}, "
                         f"got {array[wrong][0]} among them")
    return array


def real_dtype(name, dtype):
    """Return the dtype, which must be float64 or float32, or that of balls."""
    if dtype not in (*FLOATS[:2], object):
        raise ValueError(f"{name}: expected float64 or float32, got {dtype}")
    return dtype


def one(array):
    """1 as a number of the kind that the array holds: of its dtype, or a ball."""
    return array.flat[0] * 0 + 1 if array.dtype == object else array.dtype.type(1)


def finite(arrays):
    """Whether every number in these arrays is finite."""
    return all(np.asarray(array).dtype == object or np.isfinite(array).all() for array in arrays)


def computed(results, params):
    """Return the arrays that were computed from params; raise Overflow unless all are finite."""
    if not finite(results):
        size, name = max((np.abs(w).max(initial=0), name) for name, w in zip(params._fields, params))
        raise Overflow(f"params: expected weights whose activations and gradients stay finite, got entries "
                       f"up to {size:.3g} in {name}")
    return results


def logarithms(name, values):
    """Return `values` as float64: finite reals, or −∞ for the logarithm of 0."""
    array = asarray(name, values)
    if is_balls(array):
        return array
    reals(name, array[array != -np.inf])
    return array.astype(np.float64)


def law(name, values, ndim, V=None):
    """Return `values` as float64 with ndim axes of size V, entries ≥ 0 and rows that sum to 1."""
    array = asarray(name, values)
    V = V or max(len(array) if array.ndim else 0, 1)
    array = floats(name, array, (V,) * ndim, np.float64)
    sums = array.sum(axis=-1)
    if array.min() < 0 or abs(sums - 1).max() > ROUNDING:
        raise ValueError(f"{name}: expected probabilities >= 0 that sum to 1, got rows that sum "
                         f"to {sums.min()}..{sums.max()}, minimum {array.min()}")
    return array


def mask(name, values, shape):
    """Return `values` as a boolean array of this shape with at least one True."""
    array = asarray(name, values)
    if array.dtype != np.bool_ or array.shape != shape:
        raise ValueError(f"{name}: expected dtype bool, shape {shape}, got {array.dtype}, {array.shape}")
    if not array.any():
        raise ValueError(f"{name}: expected at least one True, got none")
    return array


def memory(name, size):
    """Raise ValueError if `size` bytes are more than this machine's memory; where that is unknown, pass."""
    known = hasattr(os, "sysconf")      # not on Windows
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else np.inf
    if size > limit:
        raise ValueError(f"{name}: expected a size that fits into memory, {limit / 2 ** 30:.1f} GiB, "
                         f"got one that takes about {size / 2 ** 30:.1f} GiB")


# Declarations, such as @takes(u=weights("n+1"), v=weights("n"), R=whole(1), lam=positive()). A shape is a
# letter with a factor and an offset, such as "2n+1"; the first argument that has it fixes it (n >= 1),
# the others must agree. A bound may be an expression in these letters and in the integers declared before it,
# such as "(n+1)*R". tests/test_fuzz.py reads the same declarations.

class Kind(NamedTuple):
    """What an argument must be."""

    test: Callable          # (name, value, **bounds) -> value, a function of this file or like one
    shape: Any = None       # of arrays: a tuple of letters, ints and None; None is any
    bounds: dict = {}       # further arguments of `test`, numbers or expressions
    optional: bool = False  # None is passed on

    def accept(self, name, value, sizes):
        """Return the value as `test` does, and note in `sizes` the letters and integers that it fixes."""
        if value is None and self.optional:
            return None
        bounds = {key: eval(bound, {}, sizes) if isinstance(bound, str) else bound
                  for key, bound in self.bounds.items()}
        value = self.test(name, value, **bounds)
        if self.shape is not None:
            fit(name, value.shape, self.shape, sizes)
        if type(value) is int:
            sizes[name] = value
        return value


def takes(**kinds):
    """Decorate a formula: each argument is accepted by its Kind, in this order, before the body runs."""
    def decorate(formula):
        signature = inspect.signature(formula)
        names = set(signature.parameters)
        assert names == set(kinds), f"{formula.__name__}: declared {set(kinds)}, takes {names}"

        @functools.wraps(formula)
        def checked(*args, **kwargs):
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            sizes: dict = {}
            accepted = {name: kind.accept(name, given.arguments[name], sizes) for name, kind in kinds.items()}
            return formula(**accepted)
        vars(checked)["kinds"] = kinds
        return checked
    return decorate


def fit(name, found, shape, sizes):
    """Raise ValueError unless a shape is the declared one; fix the letters that are still free."""
    fixed, known = len(found) == len(shape), dict(sizes)
    for length, size in zip(found, shape) if fixed else ():
        if isinstance(size, str):
            (factor, letter, offset), = re.findall(r"^(\d*)([A-Za-z]+)([+-]\d+)?$", size)
            count, rest = divmod(length - int(offset or 0), int(factor or 1))
            fixed &= rest == 0 and count >= 1 and sizes.setdefault(letter, count) == count
        else:
            fixed &= size in (None, length)
    if not fixed:
        words = ", ".join("any" if size is None else str(size) for size in shape)
        letters = "".join(f", {letter} = {known[letter]}" if letter in known else f", {letter} >= 1"
                          for letter in dict.fromkeys(re.findall("[A-Za-z]+", words.replace("any", ""))))
        raise ValueError(f"{name}: expected shape ({words}{',' * (len(shape) == 1)}){letters}, got {found}")


def whole(low, high=LARGEST, optional=False):
    """An integer in low..high−1, as `integer` has it."""
    return Kind(integer, None, dict(low=low, high=high), optional)


def wholes(*shape, low=0, high=LARGEST):
    """Integers in low..high−1, as `integers` has them."""
    return Kind(integers, shape, dict(low=low, high=high))


def number(low=-np.inf, high=np.inf, optional=False):
    """A finite real in low..high."""
    return Kind(real, None, dict(low=low, high=high), optional)


def positive(high=np.inf, optional=False):
    """A finite real above 0, at most `high`."""
    return Kind(above_zero, None, dict(high=high), optional)


def numbers(*shape, low=-np.inf, high=np.inf):
    """Finite reals in low..high."""
    return Kind(reals, shape or None, dict(low=low, high=high))


def weights(*shape):
    """Attention weights, reals in 0..1."""
    return numbers(*shape, low=0, high=1)


def above_zero(name, value, high=np.inf):
    """Return `value` as a finite float above 0, at most `high`."""
    value = real(name, value, high=high)
    if value <= 0:
        raise ValueError(f"{name}: expected a number > 0, got {value}")
    return value
