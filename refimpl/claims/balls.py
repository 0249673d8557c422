"""Claims on balls: an instance enclosed to so many digits, in place of one that is rounded.

A ball of interval arithmetic (python-flint's `arb`) encloses a number that is known to lie in it, and every
operation encloses its result. If the ball of predicted − observed contains 0 and is 1e-40 wide, the two
differ by at most 1e-40: a theorem about this instance. If it excludes 0 they differ, as a control must show.
Trusted are CPython, FLINT and the equations as the code writes them.

The claims run unchanged, since passes and formulas take any numbers, with NUMBA_DISABLE_JIT=1. Instances are
made of exact numbers: floats as the fractions that they are, and rational orthonormal frames.
"""

import math
import sys
from fractions import Fraction

import numba
import numpy as np

try:
    import flint
except ImportError:
    raise ValueError("digits: expected python-flint, which is not installed; "
                     'pip install "refimpl[digits]"') from None

from refimpl.claims.audit import draw_all
from refimpl.claims.claim import Case
from refimpl.claims.verdict import Outcome, parts, unpack
from refimpl.gradcheck import fields

ATTEMPTS = 4            # each with twice the bits
SIZE = 4                # integers of an instance reach this far above their lowest


def number(x):
    """x, an array, a NamedTuple of arrays or a number, as balls of radius 0; balls stay as they are."""
    if hasattr(x, "_fields"):
        return x._make(map(number, x))
    if isinstance(x, np.ndarray):
        return np.vectorize(number, otypes=[object])(x.astype(object))
    return x if isinstance(x, flint.arb) else flint.arb(float(x))


def rotation(d, rng):
    """A rational orthogonal matrix (d, d): two reflections I − 2 v vᵀ / vᵀv with integers v."""
    Q = np.array([[Fraction(i == j) for j in range(d)] for i in range(d)], object)
    for _ in range(2):
        v = np.array([Fraction(int(n)) for n in rng.integers(1, 10, d)], object)
        Q = Q - 2 * np.outer(Q @ v, v) / (v @ v)
    return np.vectorize(lambda q: flint.arb(q.numerator) / q.denominator, otypes=[object])(Q)


def quotients(f, x):
    """(f(x + h e_i) − f(x)) / h by every coordinate of x, a NamedTuple, h = 2^(−half the bits).

    By the mean value theorem it is the derivative of f at a point between x and x + h e_i. `around` has all
    these points, so that the ball of a gradient there holds it.
    """
    x, h = number(x), flint.arb(2) ** (-flint.ctx.prec // 2)
    start, slopes = f(x), x._make(map(np.empty_like, x))
    for array, slope in zip(x, slopes):
        for i, value in np.ndenumerate(array):
            array[i] = value + h
            slope[i] = (f(x) - start) / h
            array[i] = value
    return slopes


def around(x):
    """Balls of radius 2^(−half the bits) about the numbers of a NamedTuple of arrays."""
    return x._make(array + flint.arb(0, 2.0 ** (-flint.ctx.prec // 2)) for array in number(x))


def root(f, low, high):
    """A ball that holds a root of f, where certainly f(low) < 0 < f(high): halved while signs are certain."""
    low, high = number(low), number(high)
    if not (f(low) < 0 < f(high)):
        raise ValueError(f"expected a change of sign, from - to +, between {low} and {high}")
    while True:
        middle = ((low + high) / 2).mid()
        value = f(middle)
        if not (value < 0 or value > 0):
            return low.union(high)
        low, high = (middle, high) if value < 0 else (low, middle)


def enclose(claim, instance, text, digits, control=False, **more):
    """The Outcome of one instance on balls; the precision doubles until the radii are small enough.

    `more` are fields of its Case. Raises ValueError if Numba compiles: only plain Python takes balls.
    """
    if not getattr(numba.config, "DISABLE_JIT"):
        raise ValueError("digits: expected NUMBA_DISABLE_JIT=1, set before Numba is loaded")
    values = {name: number(value) if isinstance(value, float) else value
              for name, value in instance.items() if name != "seed"}
    before = flint.ctx.prec
    try:
        for attempt in range(ATTEMPTS):
            flint.ctx.prec = math.ceil((digits + 20) * math.log2(10)) << attempt
            rng = np.random.default_rng(instance["seed"])
            case = Case(rng, control, text, balls=sys.modules[__name__], **more)
            sides = unpack(claim.kind, claim.check(case, **values))[:2]
            outcome = compare(*sides)._replace(predicted=sides[0], observed=sides[1])
            if outcome.error or outcome.margin <= 10.0 ** -digits:
                return outcome
        raise ValueError(f"{claim.id}: expected radii of at most 1e-{digits}, got {outcome.margin:.0e} with "
                         f"{flint.ctx.prec} bits")
    finally:
        flint.ctx.prec = before


def small(space):
    """The space with integers up to SIZE above their lowest: arithmetic on balls is slow."""
    return {name: (values[0], min(values[1], values[0] + SIZE)) if isinstance(values[0], int) else values
            for name, values in space.items()}


def run(chosen, text, digits, cases, seed):
    """Print a row for each claim, and return 0 if all are enclosed and all controls exclude 0, else 1."""
    print(f"{'id':4} {'claim':60} {'instances':>9} {'differences':>11} {'radius':>7} {'control':>7} verdict")
    failed = 0
    for claim in chosen:
        instances, controls = (draw_all(small(space), claim.id + end, seed, cases) for space, end in (
            (claim.space, ""), (claim.control_space, " control")))
        outcomes = [enclose(claim, each, text, digits) for each in instances]
        excluded = sum(enclose(claim, each, text, digits, True).error > 0 for each in controls)
        wrong = [each for each, outcome in zip(instances, outcomes) if outcome.error]
        failed += bool(wrong) or excluded < len(controls)
        print(f"{claim.id:4} {claim.statement:60} {len(outcomes):9} {sum(o.numbers for o in outcomes):11} "
              f"{max(o.margin for o in outcomes):7.0e} {f'{excluded}/{len(controls)}':>7} "
              f"{'FAILED' if wrong or excluded < len(controls) else 'enclosed'}", flush=True)
        for each in wrong[:1]:
            print(f"     the difference excludes 0 at {', '.join(f'{k}={v!r}' for k, v in each.items())}")
    print(f"{len(chosen) - failed} of {len(chosen)} claims: every difference contains 0 and is at most "
          f"1e-{digits} wide, and every control excludes 0")
    return int(failed > 0)


def compare(predicted, observed):
    """The Outcome of two values on balls: error 0 if all differences contain 0; margin, the largest radius.

    If one excludes 0, the error is the largest distance from it. Raises ValueError where they do not compare.
    """
    left, right = ([field for part in parts(side) for field in fields(part)]
                   for side in (predicted, observed))
    if len(left) != len(right) or not left:
        raise ValueError(f"expected as many parts observed as predicted, got {len(right)}, {len(left)}")
    apart, radius, count = 0.0, 0.0, 0
    for a, b in zip(left, right):
        a, b = np.asarray(a, object), np.asarray(b, object)
        if a.shape != b.shape or a.size == 0:
            raise ValueError(f"expected equal shapes, not empty, got {a.shape} and {b.shape}")
        for x, y in zip(a.flat, b.flat):
            if not any(isinstance(value, flint.arb) or value % 1 == 0 for value in (x, y)):
                raise ValueError(f"expected balls or whole numbers, got {x!r} and {y!r}, rounded before")
            difference = flint.arb(x) - flint.arb(y)
            if not difference.is_finite():
                raise ValueError("expected finite balls, got others")
            if not difference.contains(0):
                apart = max(apart, float(abs(difference).lower()))
            radius, count = max(radius, float(difference.rad())), count + 1
    return Outcome(apart, numbers=count, margin=radius)
