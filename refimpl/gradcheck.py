"""Derivatives without backpropagation, to hold gradients against.

x is an array or a NamedTuple of arrays, real and finite; the derivative has the same type. All functions
raise ValueError on other arguments, and if f is not callable or returns another type or shape.
"""

from collections.abc import Callable

import numpy as np

from refimpl import check

STEP = 1e-30                                    # complex step: its square is far below rounding
VANISHING = 1e-2                                # see relative_error
DIFFERENCE = np.finfo(np.float64).eps ** (1 / 3)


def complex_step(f, x):
    """Derivative of a real-analytic f by every coordinate: ∂f/∂x_i = Im f(x + i h e_i) / h.

    f(x + i h e) = f + i h f' − h² f''/2 − i h³ f'''/6 + …, so the imaginary part over h is f' up to
    h² f'''/6. Nothing is subtracted, so h can be 1e-30, and the remainder is below rounding: the result is
    as precise as f itself, about 1e-15 relative to the largest of the terms whose sum is f'.

    f takes x as complex128 and returns a complex scalar. It must not conjugate, and it may compare real
    parts only. Returns float64. Raises ValueError if f returns a real number: its imaginary part is lost.
    """
    return by_coordinate(f, x, np.complex128, lambda at, x_i: imaginary("f", at(x_i + 1j * STEP), ()) / STEP)


def central_difference(f, x, step=DIFFERENCE):
    """Derivative of f by every coordinate: (f(x + h e_i) − f(x − h e_i)) / 2h.

    The Taylor series leaves h² f'''/6, and the subtraction loses eps |f|/h to rounding. Their sum is
    smallest near h = (3 eps |f/f'''|)^(1/3). For numbers of order 1 the default eps^(1/3) ≈ 6e-6 gives
    about 10 digits: fewer than `complex_step`, but f may be any real function.

    f takes x as float64 and returns a finite real scalar. Raises ValueError if the step is not positive, or
    too small to move some x_i.
    """
    step = check.real("step", step, 0)

    def slope(at, x_i):
        above, below = x_i + step, x_i - step
        if below == above:
            raise ValueError(f"step: expected one that moves x = {x_i}, got {step}")
        # x ± h are rounded: divide by the step that was taken.
        return (check.reals("f", at(above), ()) - check.reals("f", at(below), ())) / (above - below)
    return by_coordinate(f, x, np.float64, slope)


def by_coordinate(f, x, dtype, slope):
    """slope(at, x_i) for every coordinate, in the type of x; at(v) is f where x_i is v."""
    check.instance("f", f, Callable, "a function")
    arrays = [array.astype(dtype) for array in real_fields(x)]
    derivative = [np.empty(array.shape) for array in arrays]
    for array, slopes in zip(arrays, derivative):
        for i in np.ndindex(array.shape):
            def at(value, array=array, i=i):
                array[i] = value
                return f(like(x, arrays))
            start = array[i]
            slopes[i] = slope(at, start)
            array[i] = start
    return like(x, derivative)


def adjoint_gap(forward, backward, x, rng):
    """How far ⟨J dx, dy⟩ is from ⟨dx, Jᵀ dy⟩, for one random direction and one random cotangent.

    J is the Jacobian matrix of forward at x. J dx = Im forward(x + i h dx)/h takes one call, whatever the
    size of x, and Jᵀ dy = backward(x, dy). A wrong entry anywhere in Jᵀ changes the second product, except
    for directions of probability zero: dx and dy are Gaussian.

    forward takes x as complex128 and returns a complex array or scalar; backward takes a real dy of that
    shape and returns something like x. Raises ValueError if they return a real result, or other shapes.

    Returns |gap| / max(|⟨J dx, dy⟩|, |Jᵀ dy|): 1e-15 to 1e-13 if the backward is right, about the relative
    error of Jᵀ dy if it is wrong, and inf if something is not finite.
    """
    for name, function in (("forward", forward), ("backward", backward)):
        check.instance(name, function, Callable, "a function")
    check.instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
    arrays = real_fields(x)
    dx = [rng.standard_normal(array.shape) for array in arrays]
    moved = like(x, [array + 1j * STEP * direction for array, direction in zip(arrays, dx)])
    J_dx = imaginary("forward", forward(moved)) / STEP
    dy = rng.standard_normal(J_dx.shape)
    JT_dy = fields(backward(x, dy))
    if [np.shape(a) for a in JT_dy] != [array.shape for array in arrays]:
        raise ValueError(f"backward: expected the shapes of x, got {[np.shape(a) for a in JT_dy]}")
    left = np.sum(J_dx * dy)
    right = sum(np.sum(a * b) for a, b in zip(dx, JT_dy, strict=True))
    size = max(abs(left), np.sqrt(sum(np.sum(np.square(a)) for a in JT_dy)))
    if not np.isfinite([left, right, size]).all():
        return np.inf
    return float(abs(left - right) / size) if size else 0.0


def relative_error(a, b):
    """max|a − b| / max(max|a|, max|b|); of NamedTuples, the largest of their fields' errors.

    A gradient may be exactly zero, and what is computed is then rounding. So a field counts as at least
    VANISHING times the largest number in all fields. The error is inf if the shapes differ or a number is not
    finite. Raises ValueError unless a and b are numbers.
    """
    a, b = numbers("a", a), numbers("b", b)
    if [x.shape for x in a] != [y.shape for y in b] or not all(np.isfinite(x).all() for x in a + b):
        return np.inf
    sizes = [max(np.abs(x).max(initial=0), np.abs(y).max(initial=0)) for x, y in zip(a, b)]
    gaps = [np.abs(x - y).max(initial=0) for x, y in zip(a, b)]
    floor = VANISHING * max(sizes, default=0)
    return max((float(gap / max(size, floor)) if gap else 0.0 for gap, size in zip(gaps, sizes)), default=0.0)


def fields(x):
    """The arrays in x."""
    return x if isinstance(x, tuple) else (x,)


def real_fields(x):
    """The arrays in x, as float64."""
    return [check.reals("x", array) for array in fields(x)]


def numbers(name, x):
    """The arrays in x as floats, since booleans have no difference, and that of unsigned integers wraps."""
    arrays = [check.asarray(name, array) for array in fields(x)]
    for array in arrays:
        if array.dtype.kind not in "biufc":
            raise ValueError(f"{name}: expected numbers, got dtype {array.dtype}")
    return [array + 0.0 for array in arrays]


def like(x, arrays):
    """`arrays` in the type of x."""
    return x._make(arrays) if hasattr(x, "_make") else arrays[0]


def imaginary(name, y, shape=None):
    """The imaginary part of what the function of this name returned."""
    y = check.asarray(name, y)
    if y.dtype.kind != "c":
        raise ValueError(f"{name}: expected complex numbers (did it drop the imaginary part?), got {y.dtype}")
    return (y if shape is None else check.shaped(name, y, shape)).imag
