"""The verdict in words on a gradient written by hand, of any function: `python -m refimpl gradcheck FILE.py`.

FILE.py defines `f`, from a point to a real number; `grad`, from a point to the gradient, shaped like it; and
`point`, an array, or a dict or NamedTuple of arrays, or `draw(rng)`, which returns such a point.

grad is held against the complex step, if f takes complex numbers and differences in one direction agree with
it; else against central differences, extrapolated to step 0 (Richardson). Where they part, the slopes on both
sides tell kinks and jumps from mistakes. A mistake is named only if it explains all that departs.
"""

import contextlib
import warnings
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from refimpl import check, gradcheck
from refimpl.terminal import run_file

RIGHT, SINGLE = 1e-9, 1e-4      # relative error allowed in float64 and float32; a lost eps gives about 1e-5
COARSE = 1e-10                  # f is rounded beyond this part of its size: not in float64
DRAWN, SIDES = 3, 1000          # points, where the file draws them; entries whose two slopes are looked at


class Function:
    """f at a point, as a function of the vector x of all numbers of the point."""

    def __init__(self, f, point):
        arrays, self.build = apart(point)
        self.f, self.arrays = f, {name: check.reals(name, array) for name, array in arrays.items()}
        sizes = [a.size for a in self.arrays.values()]
        if not sum(sizes):
            raise ValueError("point: expected numbers, got none")
        self.ends, self.x = np.cumsum(sizes), np.concatenate([a.ravel() for a in self.arrays.values()])
        # Steps are in units of an array's numbers, 1 at most.
        self.scale = np.repeat([min(1, np.abs(a).max(initial=0)) or 1 for a in self.arrays.values()], sizes)

    def split(self, x):
        """The vector as arrays: copies, which the file's functions may change."""
        parts = np.split(x.copy(), self.ends[:-1])
        return [part.reshape(a.shape) for part, a in zip(parts, self.arrays.values())]

    def __call__(self, x):
        return self.f(self.build(self.split(x)))

    def line(self, direction):
        """f along a direction, as a function of the step."""
        return lambda h: float(check.reals("f", self(self.x + h * self.scale * direction), ()))


def add_commands(commands):
    """Add `gradcheck`."""
    parser = commands.add_parser("gradcheck", help="what is wrong with a gradient of your own, in words",
                                 description="What FILE.py holds: python -m pydoc refimpl.gradient_verdict")
    parser.set_defaults(run=run_gradcheck)
    parser.add_argument("file", metavar="FILE.py")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="for draw(rng) (default 0)")


def run_gradcheck(args):
    """`gradcheck`: a verdict on each array, at the point where it is worst; 0 if all are right, else 1."""
    rng, module = np.random.default_rng(check.integer("--seed", args.seed, 0)), run_file(args.file)
    fixed = hasattr(module, "point")
    for name in ("f", "grad") if fixed else ("f", "grad", "draw"):
        if not callable(getattr(module, name, None)):
            raise ValueError(f"{args.file}: expected functions f, grad, and point or draw(rng); no {name}")
    try:
        judged = [judge(module.f, module.grad, module.point if fixed else module.draw(rng), rng)
                  for _ in range(1 if fixed else DRAWN)]
    except (Exception, SystemExit) as error:
        raise ValueError(f"{args.file}: {type(error).__name__}: {error}".partition("\n")[0]) from error
    verdicts, remark = max(judged, key=lambda judged: max(error for _, _, error, _ in judged[0]))
    print(*(f"{name:5} {str(shape):8} {words}" for name, shape, _, words in verdicts), remark, sep="\n")
    count = sum(words.startswith("right") for *_, words in verdicts)
    print(f"{count} of {len(verdicts)} arrays right")
    return int(count < len(verdicts))


def apart(point):
    """The arrays of a point or a gradient by name, and the function that puts arrays together again."""
    if isinstance(point, Mapping):
        return dict(point), lambda arrays: dict(zip(point, arrays))
    if hasattr(point, "_fields"):
        return point._asdict(), point._make
    return {"x": point}, lambda arrays: arrays[0]


def judge(f, grad, point, rng):
    """(name, shape, error, words) of each array of grad at a point, and what it was held against."""
    function = Function(f, point)
    truth, doubts, noise, remark = derivative(function, rng)
    found, given = [], apart(grad(function.build(function.split(function.x))))[0]
    for (name, x), end, a, doubt in zip(function.arrays.items(), function.ends,
                                        *map(function.split, (truth, doubts))):
        b = check.asarray(f"grad: {name}", given.get(name))
        if b.dtype.kind not in "iufb":
            raise ValueError(f"grad: {name}: expected real numbers, got {b.dtype}")
        size = max(np.abs(a).max(initial=0), gradcheck.VANISHING * np.abs(truth).max()) or 1.0
        small = size * (SINGLE if noise > COARSE or b.dtype == np.float32 else RIGHT)

        def slopes(chosen, start=end - x.size):
            """Whether f has a kink where these entries all rise, and its slopes on both sides."""
            at = start + np.flatnonzero(chosen)
            kink, low, high = sides(function.line(np.isin(np.arange(len(truth)), at)), noise)
            return kink, low / function.scale[start], high / function.scale[start]
        found.append((name, x.shape, *verdict(a, b + 0.0, x, doubt, size, small, slopes)))
    return found, remark


def derivative(function, rng):
    """The gradient of f, bounds on its errors, by what part of its size f is rounded, and the method."""
    n = len(function.x)
    direction = rng.choice([-1.0, 1.0], n) / np.sqrt(n)
    line = function.line(direction)
    if line(0) != line(0):
        raise ValueError("f: expected the same number at the same point (does it draw random numbers?)")
    # Fourth differences over steps of 1e-4 keep 1e-16 of the fourth derivative, and √70 times the rounding.
    noise = np.median(np.abs(np.diff([line(k * 1e-4) for k in range(1, 17)], 4))) / np.sqrt(70)
    slope, doubt = richardson(line, noise)
    truth, doubts, method = complex_derivative(function), np.zeros(n), "held against the complex step"
    if truth is None or max(abs(truth @ (function.scale * direction) - slope) - 10 * doubt, doubt / 1000) > \
            1e-6 * np.linalg.norm(truth * function.scale * direction):
        axes = (function.line(np.arange(n) == i) for i in range(n))
        truth, doubts = np.transpose([richardson(axis, noise) for axis in axes]) / function.scale
        method = "held against central differences, extrapolated to step 0"
    noise /= max(abs(line(0)), abs(slope)) or 1
    return truth, doubts, noise, method + (curve(line, slope, noise) if noise > COARSE else "")


def verdict(a, b, x, doubt, size, small, slopes):
    """Error and words on the array b, if a is the gradient at x up to `doubt`."""
    if b.shape != a.shape or not np.isfinite(b).all():
        return np.inf, f"WRONG: {mistake(a, b, x, small)}"
    kinks, outside = np.zeros(x.shape, bool), []
    for i in map(tuple, np.argwhere((abs(a - b) > small) | (doubt > small))[:SIDES].tolist()):
        chosen = np.zeros(x.shape, bool)
        chosen[i] = True
        kink, low, high = slopes(chosen)
        if kink == np.inf:
            return np.inf, f"WRONG: not differentiable at {list(i)}: f jumps there, or its slope has no end"
        kinks[i] = kink
        outside += [list(i)] * (kink and not low - 1e-3 * size <= b[i] <= high + 1e-3 * size)
    if kinks.any() and not outside:
        # Each entry may be right and all together not, as where a tie is counted twice.
        _, low, high = slopes(kinks)
        if not low - 1e-3 * size <= b[kinks].sum() <= high + 1e-3 * size:
            outside = np.argwhere(kinks).tolist()
    b, doubt = np.where(kinks, a, b), np.where(kinks, 0, doubt).max(initial=0)
    error = float(np.abs(a - b).max(initial=0) / size)
    if error * size > max(small, 10 * doubt):
        return error, f"WRONG: {mistake(a, b, x, small)}"
    if 10 * doubt > size / 10:
        return np.inf, "WRONG or right: f is rounded too coarsely to tell"
    if outside:
        return np.inf, f"WRONG only at kinks or ties, as at {outside[0]}: the slopes of f are others"
    at_kinks = f"; at {kinks.sum()} kinks between the slopes on both sides" if kinks.any() else ""
    return error, f"right to {min(15, int(-np.log10(max(error, 1e-16))))} digits{at_kinks}"


def complex_derivative(function):
    """The complex step's derivative, or None if f does not take complex numbers."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        return gradcheck.complex_step(function, function.x)


def richardson(line, noise):
    """The derivative at 0 of a function of one number, rounded by about `noise`, and a bound on its error.

    Differences over 2h have an error in even powers of h. With the step halved each time they are
    extrapolated to h = 0 in all orders (Neville); the number nearest to its neighbours is taken.
    """
    best, above = (np.nan, np.inf), np.zeros(0)
    for h in 0.5 ** np.arange(3, 17):
        row = [(line(h) - line(-h)) / (2 * h)]
        for order, coarser in enumerate(above, start=1):
            row.append(row[-1] + (row[-1] - coarser) / (4 ** order - 1))
            bound = max(abs(row[-1] - row[-2]), abs(row[-1] - coarser), noise / h)
            best = min(best, (row[-1], bound), key=lambda found: found[1])
        above = np.array(row)
    return best


def sides(line, noise):
    """0, 1 at a kink, ∞ at a jump; the smaller and the larger slope on both sides of 0.

    Of a smooth f their difference shrinks with the step, at a kink it stays, at a jump it grows.
    """
    h = max(1e-6, np.sqrt(noise))
    near, far = (((line(0) - line(-k)) / k, (line(k) - line(0)) / k) for k in (h, 30 * h))
    apart, wide, rounding = np.ptp(near), np.ptp(far), 20 * max(noise, 1e-16) * abs(line(0)) / h
    kink = 0 if apart <= max(0.3 * wide, rounding) else 1 if apart < 3 * wide else np.inf
    return kink, min(near), max(near)


def curve(line, slope, noise):
    """The error of difference quotients against the step: the step squared, then rounding over the step."""
    rows = f"\nf is rounded to {noise:.0e} of its size, as in float32; difference quotients by step:"
    for h in 10.0 ** -np.arange(1, 9):
        rows += f"\n  step {h:.0e}  error {abs((line(h) - line(-h)) / (2 * h) / (slope or 1) - 1):.0e}"
    return rows


def mistake(a, b, x, small):
    """What turns the gradient a into b, in words; x is the point, and `small` no difference."""
    if a.shape != b.shape:
        likely = {"transposed, ": b.T, "not summed over its first axis, ": b.sum(axis=0) if b.ndim else b}
        words = (words for words, c in likely.items() if c.shape == a.shape and np.abs(a - c).max() <= small)
        return f"{next(words, '')}shape {b.shape}, expected {a.shape}"
    if not np.isfinite(b).all():
        return f"not finite in {np.count_nonzero(~np.isfinite(b))} of {b.size} entries"
    if not b.any():
        return "all zero"
    if np.abs(a).max() <= small:
        return "f does not move with it: is it left out, or lost in rounding or an argmax?"
    far, c = np.abs(a - b), float((a * b).sum() / (a * a).sum())

    def same(p, q):
        """Near enough to explain what departs."""
        return p.shape == q.shape and np.abs(p - q).max() <= max(small, min(10 * small, far.max() / 10))

    if a.ndim == 2 and same(a.T, b):
        return "transposed"
    close = small / np.abs(a).max()
    if c and same(c * a, b):
        # Of a single number some fraction is always near.
        return ratio(c, close, 64 if close < 1e-6 else 8 if a.size > 1 else 2)
    i = np.unravel_index(far.argmax(), a.shape)
    return part(a, b, far > small, small) or term(a, b, x, same) or \
        f"{b[i]:.6g} at {list(map(int, i))}, expected {a[i]:.6g}; like no mistake that is known here"


def ratio(c, close, limit):
    """A constant factor, and what it may stand for if it is a fraction, or its root, up to a limit."""
    if c < 0:
        return "negated" if abs(c + 1) <= 10 * close else f"negated, and {ratio(-c, close, limit)}"
    for power in (1, 2):
        q = Fraction(c ** power).limit_denominator(limit)
        n, m = q.numerator, q.denominator
        if n and abs(q / c ** power - 1) <= 20 * close and min(n, m) <= limit:
            if power == 2:
                return f"√({q}) times the gradient: is a scale, such as 1/√{max(n, m)}, forgotten?"
            meaning = f"a sum over {n} in place of a mean" if m == 1 else \
                f"a mean over {m} in place of {'a sum' if n == 1 else f'one over {n}'}"
            return f"{q} times the gradient: {meaning}{', or the 2 of a square' * (n * m == 2)}?"
    return f"{c:.6g} times the gradient"


def part(a, b, off, small):
    """What is wrong with some rows, columns or entries alone, or None."""
    if a.ndim == 2 and min(a.shape) > 1 and (off.sum(axis=1) == 1).all():
        return "wrong in one entry of each row: is the target's term left out?"
    for axis, what in enumerate(("row", "column") if a.ndim > 1 else ("entry",) * a.ndim):
        lines = np.flatnonzero(np.moveaxis(off, axis, 0).reshape(a.shape[axis], -1).any(axis=1))
        if len(lines) < a.shape[axis]:
            where = f"{what} {', '.join(map(str, lines[:6]))}{', …' * (len(lines) > 6)}"
            if np.abs(a.take(lines, axis)).max() <= small:
                return f"not 0 in {where}, where f does not move: is a mask left out?"
            return f"wrong in {where} alone: is a term left out there, or overwritten by another?" \
                if b.take(lines, axis).any() else f"0 in {where}: left out?"
    return None


def term(a, b, x, same):
    """The term that is missing, or None: along each row the same few vectors, made of the point's row."""
    if not a.ndim:
        return None
    c = (x * (a - b)).sum() / ((x * x).sum() or 1)
    if same(c * x, a - b):
        return f"lacks the term c x, as of a penalty c/2 |x|², c = {c:.6g}"
    lacks, rows = ((a - b).reshape(-1, a.shape[-1]), x.reshape(-1, a.shape[-1]))
    one, powers = np.ones_like(rows), np.exp(rows - rows.max(axis=1, keepdims=True))
    for words, *basis in (("a constant, as the mean that a norm subtracts", one),
                          ("a multiple of x, as of a norm", rows),
                          ("a constant and a multiple of x, as of layer norm", one, rows),
                          ("a multiple of softmax(x), as of a softmax", powers)):
        fit = [B @ np.linalg.lstsq(B, row, rcond=None)[0] for B, row in zip(np.stack(basis, axis=-1), lacks)]
        if a.shape[-1] >= len(basis) + 2 and same(np.array(fit), lacks):
            return f"lacks in each row {words}"
    c = (a * b).sum(axis=-1, keepdims=True) / ((a * a).sum(axis=-1, keepdims=True) + 1e-300)
    if a.ndim > 1 and a.shape[-1] > 2 and same(c * a, b):
        return f"in each row another factor, {', '.join(f'{factor:.6g}' for factor in c.ravel()[:3])}, …"
    return None
