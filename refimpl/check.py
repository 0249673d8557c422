"""Refuse bad input with a ValueError that names the argument, what was expected and what came.

Numba checks no bounds, so every public function passes its arguments through here before a kernel
sees them.
"""

import os
import sys

import numpy as np

FLOATS = (np.float64, np.float32, np.complex128)
LARGEST = 2 ** 31       # no size or number of things in this project comes near it
ROUNDING = 1e-9         # how far from 1 the sum of given probabilities may be


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
    """Raise ValueError unless the shapes of these arguments broadcast."""
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        raise ValueError(f"{', '.join(shapes)}: expected shapes that broadcast, "
                         f"got {', '.join(map(str, shapes.values()))}") from None


def integers(name, values, low, high, ndim=None, shape=None):
    """Return `values` as a contiguous int64 array (a copy if need be); each is in low..high−1.

    `ndim`, if given, is the number of axes expected; `shape` as in `shaped`. An array without entries
    is refused.
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
        raise ValueError(f"{name}: expected values in {low}..{high - 1}, "
                         f"got {array.min()}..{array.max()}")
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
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise ValueError(f"{name}: expected a real number, got {value!r}")
    # Not by np.isfinite, which takes no integer from 2^64 on.
    if not (low <= value <= high and abs(value) <= sys.float_info.max):
        bound = "" if low == -np.inf else f" that is at least {low}"
        bound += "" if high == np.inf else f" and at most {high}"
        raise ValueError(f"{name}: expected a finite number{bound}, got {value}")
    return float(value)


def choice(name, value, allowed):
    """Return `value`, which must be one of the strings `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
    return value


def floats(name, values, shape, dtype=None):
    """Return `values` as a contiguous array of finite numbers; None in `shape` leaves a size free.

    The dtype is one of float64, float32, complex128, and equal to `dtype` if that is given.
    """
    array = asarray(name, values)
    if array.dtype not in FLOATS or (dtype is not None and array.dtype != dtype):
        expected = "float64, float32 or complex128" if dtype is None else np.dtype(dtype)
        raise ValueError(f"{name}: expected dtype {expected}, got {array.dtype}")
    shaped(name, array, shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got "
                         f"{array[~np.isfinite(array)][0]} among them")
    return np.ascontiguousarray(array).reshape(array.shape)


def reals(name, values, shape=None, low=-np.inf, high=np.inf):
    """Return `values`, integers or reals, as contiguous finite float64 numbers in low..high.

    `shape` as in `shaped`; None is any.
    """
    array = asarray(name, values)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}")
    if shape is not None:
        shaped(name, array, shape)
    array = np.ascontiguousarray(array, np.float64).reshape(array.shape)
    wrong = ~(np.isfinite(array) & (array >= low) & (array <= high))
    if wrong.any():
        raise ValueError(f"{name}: expected finite numbers in {low}..{high}, "
                         f"got {array[wrong][0]} among them")
    return array


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
        raise ValueError(f"{name}: expected dtype bool and shape {shape}, "
                         f"got {array.dtype} and {array.shape}")
    if not array.any():
        raise ValueError(f"{name}: expected at least one True, got none")
    return array


def memory(name, size):
    """Raise ValueError if `size` bytes are more than this machine's memory; where that is unknown, pass."""
    if not hasattr(os, "sysconf"):      # not on Windows
        return
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > limit:
        raise ValueError(f"{name}: expected a size that fits into memory, {limit / 2 ** 30:.1f} GiB, "
                         f"got one that takes about {size / 2 ** 30:.1f} GiB")
