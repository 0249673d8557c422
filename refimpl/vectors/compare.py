"""Comparing a port's arrays with a case of the test vectors, and naming the mistake in words.

Some mistakes change one array (transposed, negated, a constant factor, shifted, permuted, future keys
let in). The others (`refimpl.vectors.mistakes`) are planted into the reference, and the array that it then
writes is compared with theirs.
"""

from typing import NamedTuple, Optional

import numpy as np

from refimpl import check
from refimpl.gradcheck import relative_error
from refimpl.vectors import cases, mistakes

FLOOR = 0.01
# Derived from honest runs: every case in PyTorch 30 to 100 times in each format, its dimensions permuted and
# its weights rounded up or down at random. Largest errors, in units of u, half the distance from 1 to the
# next number: trace 35, loss 17, grad and sgd1 650 (where all cancels, in float64; else 330), sgd3 2800.
# Allowed is four times that; in 16 bits, where such errors saturate, 1.3 to 2.3 times what was seen.
TOLERANCES = {
    "float64": {"input": 0.0, "param": 1e-14, "trace": 2e-14, "loss": 1e-14, "grad": 3e-13,
                "sgd1": 3e-13, "sgd3": 1.2e-12},
    "float32": {"input": 0.0, "param": 6e-8, "trace": 5e-6, "loss": 4e-6, "grad": 1e-4,
                "sgd1": 1e-4, "sgd3": 6e-4},
    "float16": {"input": 0.0, "param": 5e-4, "trace": 0.03, "loss": 0.01, "grad": 0.07,
                "sgd1": 0.07, "sgd3": 0.07},
    "bfloat16": {"input": 0.0, "param": 4e-3, "trace": 0.2, "loss": 0.08, "grad": 0.45,
                 "sgd1": 0.45, "sgd3": 0.45}}
REASON = ("rounding to u = 1.1e-16 (float64), 6.0e-8 (float32), 4.9e-4 (float16), 3.9e-3 (bfloat16), times "
          "the number and the condition of a case's sums: four times the largest error of honest runs of any "
          "case; in 16 bits 1.3 to 2.3 times, without logits near 1e3 and steps that lose 300 roundings")
UNKNOWN = "no mistake that is known here"
CLOSE = {"float64": 1e-8, "float32": 3e-3}      # an explanation must come this near


class Report(NamedTuple):
    """What the comparison of one case found."""

    name: str                           # <model>/<case>
    problems: list                      # lines: what could not be compared at all
    checked: int = 0                    # arrays compared
    missing: tuple = ()                 # names left out, beside those of inputs and parameters
    departing: tuple = ()               # names of those beyond tolerance, in order
    worst: float = 0.0                  # largest relative error of all
    worst_name: Optional[str] = None
    error: float = 0.0                  # of the first that departs
    where: Optional[tuple] = None       # the index where it is largest; None if the shapes differ
    detail: str = ""                    # their number and ours, or their shape and ours
    allowed: float = 0.0
    diagnosis: Optional[str] = None

    @property
    def passed(self):
        """Whether there is nothing to complain of; arrays left out are no complaint."""
        return not self.problems and not self.departing

    def __str__(self):
        lines = [f"{self.name:38} {'passed' if self.passed else 'FAILED':7} {self.checked:3} arrays"
                 + (f", worst {self.worst:.1e} ({self.worst_name})" if self.worst_name else "")
                 + (f", {len(self.missing)} not there: {summary(self.missing)}" if self.missing else "")]
        lines += [f"    {problem}" for problem in self.problems]
        if self.departing:
            at = "" if self.where is None else f" at {list(self.where)}"
            lines += [f"    first departs: {self.departing[0]}{at}, {self.detail}",
                      f"    error {self.error:.1e}, allowed {self.allowed:.0e}; "
                      f"{len(self.departing)} of {self.checked} arrays depart",
                      f"    looks like: {self.diagnosis or UNKNOWN}"]
        return "\n".join(lines)

    def as_json(self):
        """Plain values for JSON; infinite errors are null."""
        values = {**self._asdict(), "passed": self.passed}
        return {key: None if isinstance(value, float) and not np.isfinite(value) else value
                for key, value in values.items()}


def summary(names):
    """Array names, a whole group by its prefix."""
    groups = dict.fromkeys(name.rpartition(".")[0] + ".*" if "." in name else name for name in names)
    return ", ".join(names if len(names) <= 3 else groups)


# Comparing

def compare_arrays(ours, theirs, precision, problems=()):
    """The Report on one case."""
    tolerances = TOLERANCES[check.choice("precision", precision, tuple(TOLERANCES))]
    problems = list(problems)
    problems += [f"{name}: no such array" for name in theirs if name not in ours.arrays]
    floors = floors_of(ours.arrays)
    found = {}
    for name, array in ours.arrays.items():
        if name in theirs:
            problem = dtype_problem(array, theirs[name])
            if problem:
                problems.append(f"{name}: {problem}")
            else:
                found[name] = gap(array, theirs[name], floors[name])
    if not found and not problems:
        problems.append("no arrays to compare")
    departing = tuple(name for name in found if found[name][0] > tolerances[group(name)])
    worst = max(found, key=lambda name: found[name][0], default=None)
    missing = tuple(name for name in ours.arrays
                    if name not in theirs and group(name) not in ("input", "param"))
    report = Report(ours.name, problems, len(found), missing, departing,
                    found[worst][0] if worst else 0.0, worst)
    if not departing:
        return report
    first = departing[0]
    (error, index), a, b = found[first], ours.arrays[first], theirs[first]
    detail = (f"shape {b.shape}, expected {a.shape}" if index is None else
              f"{b[index]:.17g}, expected {a[index]:.17g}")
    return report._replace(error=error, where=index, detail=detail, allowed=tolerances[group(first)],
                           diagnosis=explain(ours, theirs, found, departing))


def explain(ours, theirs, found, departing):
    """The diagnosis: of the first array beyond float32's tolerance, or else of the first, or float32."""
    beyond = [name for name in departing if found[name][0] > TOLERANCES["float32"][group(name)]]
    name = (beyond or departing)[0]
    words = None
    if beyond or theirs[name].dtype.itemsize == 8:
        words = diagnose(ours.case, name, ours.arrays, theirs)
    if not beyond:
        words = words or "float32 precision only (passes with --precision float32)"
    return words if words is None or name == departing[0] else f"{words} (in {name})"


def gap(ours, theirs, floor):
    """Largest error relative to max(max|ours|, floor), and its index: inf and None if shapes differ."""
    if ours.shape != theirs.shape:
        return np.inf, None
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(theirs + 0.0 - ours)
    apart = np.where(np.isfinite(apart), apart, np.inf)
    index = np.unravel_index(apart.argmax(), apart.shape)
    error = apart[index] / max(np.abs(ours).max(), floor) if apart[index] else 0.0
    return float(error), tuple(map(int, index))


def floors_of(arrays):
    """The smallest size that the error of each array counts against. The loss is a difference of logits."""
    largest: dict[str, float] = {}
    for name, array in arrays.items():
        prefix = name.rpartition(".")[0]
        largest[prefix] = max(largest.get(prefix, 0.0), float(np.abs(array).max()))
    sizes = {"trace": 1.0, "input": 1.0, "loss": max(1.0, float(np.abs(arrays["trace.logits"]).max()))}
    return {name: FLOOR * sizes.get(group(name), largest[name.rpartition(".")[0]]) for name in arrays}


def group(name):
    """The first part of a name: input, param, trace, loss, grad, sgd1, sgd3."""
    return name.partition(".")[0]


def dtype_problem(ours, theirs):
    """What is wrong with a dtype, or None."""
    kind, size = theirs.dtype.kind, theirs.dtype.itemsize
    fits = {"f": kind == "f" and size in (4, 8), "i": kind in "iu", "b": kind == "b"}[ours.dtype.kind]
    expected = {"f": "float64 or float32", "i": "integers", "b": "bool"}[ours.dtype.kind]
    return None if fits else f"dtype {theirs.dtype}, expected {expected}"


# Diagnosing

def diagnose(case, name, ours, theirs):
    """The mistake that turns ours[name] into theirs[name], or None if none known does.

    ours, theirs are dicts of arrays; where several explain the array, the one that explains the
    most of theirs is named.
    """
    a, b = ours[name] + 0.0, theirs[name] + 0.0
    if not np.isfinite(b).all():
        return f"not finite: {np.count_nonzero(~np.isfinite(b))} of {b.size} entries"
    close = CLOSE["float32" if theirs[name].dtype == np.float32 else "float64"]
    close = min(close, 0.1 * relative_error(a, b))      # it must explain most of what departs
    if name.startswith("sgd"):
        words = planted(case, name, theirs, close) or changed(case, name, a, b, close)
    else:
        words = changed(case, name, a, b, close) or planted(case, name, theirs, close)
    return words or (None if b.any() else "all zero")


def planted(case, name, theirs, close):
    """The mistake in the reference that gives their array."""
    explained = {}
    for mistake in mistakes.MISTAKES:
        if mistake in mistakes.STEPS and not name.startswith("sgd"):
            continue
        for wrong in mistakes.run(mistake, case, last=name):
            if name in wrong and relative_error(wrong[name], theirs[name]) <= close:
                explained[mistake] = 0
    if len(explained) > 1:
        for mistake in explained:
            explained[mistake] = max(sum(relative_error(wrong[k], theirs[k]) <= close
                                         for k in wrong.keys() & theirs.keys())
                                     for wrong in mistakes.run(mistake, case))
    return max(explained, key=explained.__getitem__, default=None)


def changed(case, name, a, b, close):
    """The change of one array: a is ours, b theirs."""
    def same(x, y):
        return x.size > 0 and relative_error(x, y) <= close

    if a.ndim == 2 and a.shape != (1, 1) and same(a.T, b):
        return "transposed"
    if a.shape != b.shape:
        return None
    factor = (a * b).sum() / (a * a).sum() if a.any() else 0.0
    if factor and same(factor * a, b):
        if a.ndim or factor_meaning(case, factor):
            return factor_words(case, factor)
        return None
    if name.startswith(("trace.scores", "trace.attention")) and a.ndim == 2 and sees_future(a, b, same):
        return "mask includes the future"
    for axis in range(a.ndim):
        if shifted(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0), same):
            return "shifted by one position"
    for axis, what in zip(range(a.ndim), ("rows", "columns")):
        if same(ordered(np.moveaxis(a, axis, 0)), ordered(np.moveaxis(b, axis, 0))):
            return f"{what} permuted"
    return None


def sees_future(a, b, same):
    """Whether only keys after the query were added: as scores, or as weights that share the 1."""
    if not np.triu(b, 1).any():
        return False
    seen = np.tril(b)
    total = seen.sum(axis=1, keepdims=True)
    return same(a, seen) or (total.all() and same(a, seen / total))


def shifted(a, b, same):
    """Whether all rows but one have moved by one (and the rows differ, so that one can tell)."""
    if len(a) < 3 or same(a[1:], a[:-1]):
        return False
    return same(a[1:], b[:-1]) or same(a[:-1], b[1:])


def ordered(a):
    """The rows in an order that depends on their contents alone."""
    rows = a.reshape(len(a), -1)
    return a[(rows @ np.sqrt(1 + np.arange(rows.shape[1]))).argsort()]


def factor_words(case, factor):
    """A constant factor in words."""
    if factor == -1 or abs(factor + 1) < 1e-6:
        return "negated"
    meaning = factor_meaning(case, factor)
    return f"constant factor {factor:.6g}" + (f": {meaning}" if meaning else "")


def factor_meaning(case, factor):
    """What a factor may stand for in this case; several where its sizes coincide."""
    B, T, d = len(case.tokens), len(cases.first_sequence(case)), case.params.E.shape[1]
    count = int(case.labels.sum()) if case.model == "induction" else B
    known = {"a sum in place of the mean": count, "the mean taken twice": 1 / count,
             "a 2 missing": 0.5, "a 2 too many": 2.0, "1/√d": d ** -0.5, "√d": d ** 0.5,
             "1/T": 1 / T, "T": T, "1/B": 1 / B, "B": B, "the learning rate": case.sgd["lr"]}
    if case.model == "induction":
        known["mean over all positions, not the mask"] = count / (B * T)
    else:
        width = len(case.params.WKQ)
        known.update({"1/√(d+dp)": width ** -0.5, "√(d+dp)": width ** 0.5})
    return " or ".join(words for words, value in known.items()
                       if value != 1 and abs(factor - value) <= 1e-5 * value)
