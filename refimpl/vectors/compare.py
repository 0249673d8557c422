"""Comparing a port's arrays with a case of the vectors: what departs, by how much, what it looks like."""

from collections import Counter
from typing import NamedTuple, Optional

import numpy as np

from refimpl import check
from refimpl.vectors.diagnose import UNKNOWN, Memory, diagnose, summary

FLOOR = 0.01
# From honest runs: every case in PyTorch 30 to 100 times in each format, dimensions permuted, weights rounded
# up or down at random. Largest errors, in units u of REASON: trace 35, loss 17, grad and sgd1 650, sgd3 2800.
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
CLOSE = {8: 1e-8, 4: 1e-3}      # how near an explanation must come, by the size of their numbers
SHOWN = 10                      # problems of one case


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
    looks: tuple = ()                   # for each mistake, a tuple of names that explain it alike
    digits: dict = {}                   # of the worst output: yours, and what the manifest says of others

    @property
    def passed(self):
        """Whether there is nothing to complain of; arrays left out are no complaint, if some are there."""
        return not self.problems and not self.departing

    @property
    def diagnosis(self):
        """The mistakes in words, or None."""
        return "; ".join(" or ".join(alike[:3]) + f" or {len(alike) - 3} more" * (len(alike) > 3)
                         for alike in self.looks) or None

    def __str__(self):
        lines = [f"{self.name:38} {'passed' if self.passed else 'FAILED':7} {self.checked:3} arrays"
                 + (f", worst {self.worst:.1e} ({self.worst_name})" if self.worst_name else "")
                 + (f", {len(self.missing)} not there: {summary(self.missing)}" if self.missing else "")]
        lines += [f"    {problem}" for problem in self.problems[:SHOWN]]
        lines += [f"    and {len(self.problems) - SHOWN} more"] * (len(self.problems) > SHOWN)
        if self.departing:
            at = "" if self.where is None else f" at {list(self.where)}"
            lines += [f"    first departs: {self.departing[0]}{at}, {self.detail}",
                      f"    error {self.error:.1e}, allowed {self.allowed:.0e}; "
                      f"{len(self.departing)} of {self.checked} arrays depart",
                      f"    looks like: {self.diagnosis or UNKNOWN}"]
        # Names come from files that anyone may have written: control characters are escaped.
        return "\n".join("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
                         for line in lines)

    def as_json(self):
        """Plain values for JSON; infinite errors are null."""
        values = {**self._asdict(), "diagnosis": self.diagnosis, "passed": self.passed}
        return {key: None if isinstance(value, float) and not np.isfinite(value) else value
                for key, value in values.items() if key != "looks"}


def compare_arrays(ours, theirs, precision, problems=(), memory=None):
    """The Report on one case; `memory` holds what was found in other cases of the same port."""
    memory = Memory() if memory is None else memory
    tolerances = TOLERANCES[check.choice("precision", precision, tuple(TOLERANCES))]
    problems = [*problems, *(f"{name}: no such array" for name in theirs if name not in ours.arrays)]
    outputs = [name for name in ours.arrays if group(name) not in ("input", "param")]
    floors, found = floors_of(ours.arrays), {}
    for name, array in ours.arrays.items():
        if name in theirs:
            kind, size = theirs[name].dtype.kind, theirs[name].dtype.itemsize
            expected, fits = {"f": ("float64 or float32", kind == "f" and size in (4, 8)),
                              "i": ("integers", kind in "iu"), "b": ("bool", kind == "b")}[array.dtype.kind]
            if fits:
                found[name] = gap(array, theirs[name], floors[name])
            else:
                problems.append(f"{name}: dtype {theirs[name].dtype}, expected {expected}")
    if not problems and not found.keys() & set(outputs):
        problems.append("nothing but inputs to compare: expected some of " + summary(outputs))
    departing = tuple(name for name in found if found[name][0] > tolerances[group(name)])
    worst = max(found, key=lambda name: found[name][0], default=None)
    lead = max((name for name in outputs if name in found), key=lambda name: found[name][0], default=None)
    known = ours.manifest.get("digits", {}).items()
    digits = {} if lead is None else {"array": lead, "yours": digits_of(found[lead][0]), **{
        who: least[group(lead)] for who, least in known if group(lead) in least}}
    report = Report(ours.name, problems, len(found), tuple(name for name in outputs if name not in theirs),
                    departing, found[worst][0] if worst else 0.0, worst, digits=digits)
    if not departing:
        return report
    first = departing[0]
    (error, index), a, b = found[first], ours.arrays[first], theirs[first]
    detail = (f"shape {b.shape}, expected {a.shape}" if index is None else
              f"{b[index]:.17g}, expected {a[index]:.17g}")
    return report._replace(error=error, where=index, detail=detail, allowed=tolerances[group(first)],
                           looks=explain(ours, theirs, found, departing, memory))


def explain(ours, theirs, found, departing, memory):
    """The names of the mistakes; those of float32's rounding, if it alone departs."""
    beyond = [name for name in departing if found[name][0] > TOLERANCES["float32"][group(name)]]
    name = (beyond or departing)[0]
    b = theirs[name]
    wrong = ~np.isfinite(b + 0.0)
    if wrong.any():
        above = name.startswith("trace.scores") and b.ndim == 2 and not np.tril(wrong).any()
        return ((f"not finite: {np.count_nonzero(wrong)} of {b.size} entries"
                 + ", all above the diagonal, where 0 is expected" * above,),)
    looks = []
    if name.startswith(("input", "param")) and (beyond or b.dtype.itemsize == 8):
        looks = [("other inputs or parameters than those that were given",)]
    elif beyond or b.dtype.itemsize == 8:
        whole = {k: theirs[k] for k in found if np.isfinite(theirs[k] + 0.0).all()}
        close = min(CLOSE[b.dtype.itemsize], 0.1 * found[name][0])
        looks = diagnose(ours.case, whole, [k for k in beyond or departing if k in whole], close, memory)
    if not beyond and all(alike[0].startswith(UNKNOWN) for alike in looks):
        looks = [("float32 precision only (passes with --precision float32)",)]
    return tuple(looks) or ((UNKNOWN,),)


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


def digits_of(error):
    """−log10 of an error, from 0 to 16: the log relative error of NIST."""
    return float(np.round(np.log10(1 / np.clip(error, 1e-16, 1)), 1))


def least_digits(arrays, others):
    """{group: digits} of the worst array of each group of outputs, others held against arrays."""
    floors = floors_of(arrays)
    least: dict[str, float] = {}
    for name in arrays:
        if group(name) not in ("input", "param"):
            digits = digits_of(gap(arrays[name], others[name], floors[name])[0])
            least[group(name)] = min(digits, least.get(group(name), digits))
    return least


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


def conclusion(reports, left_out=0):
    """One line on all cases, with the diagnoses that most of those that failed share."""
    failed = [report for report in reports if not report.passed]
    line = f"{len(reports) - len(failed)} of {len(reports)} cases passed"
    counts = Counter(words for report in failed if report.departing for alike in report.looks
                     for words in {" or ".join(alike[:3]) if not alike[0].startswith(UNKNOWN) else UNKNOWN})
    unknown = counts.pop(UNKNOWN, 0)
    named = [f"{n} of {len(failed)} failures look like: {words}" for words, n in counts.most_common(3)]
    rest = sum(n for _, n in counts.most_common()[3:])
    named += [f"{rest} like something else"] * (rest > 0) + [f"{unknown} {UNKNOWN}"] * (unknown > 0)
    return "; ".join([line, *named]) + f"; {left_out} left out" * (left_out > 0)
