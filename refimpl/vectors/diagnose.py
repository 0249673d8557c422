"""Naming the mistakes of a port, as many as there are, from the arrays that it wrote.

As far as there are traces, equation by equation: where an equation does not give the port's output from the
port's own inputs, the catalogue is searched for one that does. So each mistake is seen where it is made. What
has no trace is searched together: the equations between two given arrays, the loss with its gradients, the
steps. A name that explains no more than half of what departs is not given.
"""

from itertools import product

import numpy as np

from refimpl.gradcheck import relative_error
from refimpl.vectors import cases, equations
from refimpl.vectors.equations import evaluated, run
from refimpl.vectors.mistakes import STEPS, catalogue
from refimpl.vectors.tape import Node

UNKNOWN = "unknown"
FLOOR = 0.01
MISFIT = (ValueError, IndexError, KeyError)     # shapes that do not go together, what is not there yet


class Memory(list):
    """The names that were found in the cases before: tried first in the next."""


def diagnose(case, theirs, departing, close, memory):
    """For each mistake that was found a tuple of names, which explain it alike; [] if nothing is known.

    theirs : dict of their arrays that can be compared; departing : names; close : the error of an explanation
    """
    search = Search(case, theirs, close, memory)
    with np.errstate(all="ignore"):
        return search.remembered(departing) or search.inputs(departing) or search.everything(departing)


class Search:
    """The search in one case: `edits` explain, so far, `looks` with other names."""

    def __init__(self, case, theirs, close, memory):
        self.case, self.close, self.memory = case, close, memory
        self.given = {name: a + 0.0 for name, a in theirs.items() if not name.startswith(("input", "param"))}
        self.edits, self.looks, self.written, self.unknown = [], [], set(), []
        sizes: dict = {}
        for name, a in self.given.items():
            prefix = name.rpartition(".")[0]
            sizes[prefix] = max(sizes.get(prefix, 0), np.abs(a[np.isfinite(a)]).max(initial=0))
        self.floors = {name: FLOOR * sizes[name.rpartition(".")[0]] for name in self.given}
        self.catalogue = catalogue(case)

    def remembered(self, departing):
        """Names that were found before, if they explain all that departs here."""
        looks: list = []
        for names in self.memory:
            for edits in product(*([e for e in self.catalogue if e.words == words] for words in names)):
                if self.explained(edits, departing):
                    needed = [e for e in edits
                              if not self.explained([x for x in edits if x is not e], departing)]
                    looks.append([e.words for e in needed or edits])
        if not looks:
            return []
        shortest = min(map(len, looks))
        return [tuple(dict.fromkeys(alike)) for alike in zip(*(n for n in looks if len(n) == shortest))]

    def inputs(self, departing):
        """Other inputs, which change all at once, shapes included."""
        return words_of(e for e in self.catalogue if e.case and self.explained([e], departing))

    def explained(self, edits, departing):
        """Whether these mistakes explain all that departs."""
        arrays = self.run(edits)
        return all(self.fits(name, arrays.get(name)) for name in departing)

    def everything(self, departing):
        """Search forward, loss and gradients, steps."""
        known = self.forward() and self.backward()
        self.steps(known)
        predicted = self.run(self.edits)
        rest = [name for name in departing
                if name not in self.written and not self.fits(name, predicted.get(name))]
        if 2 * len(rest) > len(departing) and not self.unknown:
            return []
        if not rest and not self.written:
            self.memory += [names for names in product(*(alike[:4] for alike in self.looks))
                            if names not in self.memory]
        if rest and (self.unknown or not known):
            self.looks.append((f"{UNKNOWN} (from {(self.unknown or rest)[0]} on)",))
        elif rest:
            self.looks.append((f"{UNKNOWN} ({summary(rest)})",))
        return self.looks

    def run(self, edits, last=None):
        """The arrays of a port with these mistakes; none if they do not go together."""
        try:
            return run(self.case, edits, last)
        except MISFIT:
            return {}

    def fits(self, name, value):
        """Whether their array is this value."""
        theirs = self.given[name]
        if value is None or value.shape != theirs.shape or not np.isfinite(value).all():
            return False
        size = max(np.abs(value).max(initial=0), self.floors[name])
        return np.abs(value - theirs).max(initial=0) <= self.close * size

    def agreement(self, edits, last="grad", names=None):
        """How many of their arrays are those of a port with these mistakes."""
        arrays = self.run(edits, last)
        return sum(self.fits(name, arrays[name]) for name in names or self.given if name in arrays)

    def forward(self):
        """Name what is wrong before the loss; whether all of it was named."""
        right = equations.right(self.case)
        theirs, ours = (equations.state(self.case, first=True) for _ in range(2))
        pending: dict = {}
        for name, equation in list(right.items())[:-1]:
            pending[name], trace = equation, f"trace.{name}"
            if trace in self.given:
                values = [vars(self.evaluated(s, pending))[name].value[0] for s in (theirs, ours)]
                if not any(self.fits(trace, value) for value in values):
                    found = [edit for edit in self.catalogue if edit.changes.keys() & pending.keys()
                             and self.gives(name, theirs, pending, edit)]
                    self.settle(trace, found, values[0])
                theirs, ours = (self.evaluated(s, pending) for s in (theirs, ours))
                if self.given[trace].shape == vars(theirs)[name].value.shape[1:]:
                    setattr(theirs, name, Node(self.given[trace][None]))
                pending = {}
        return not self.unknown

    def evaluated(self, s, pending):
        """The state after these equations, with the mistakes named so far."""
        changes = {name: f for edit in self.edits for name, f in edit.changes.items()}
        return evaluated(s, {name: changes.get(name, f) for name, f in pending.items()})

    def gives(self, name, s, pending, edit):
        """Whether these equations with this mistake give their array of this name from the state s."""
        try:
            s = evaluated(s, {k: edit.changes.get(k, f) for k, f in pending.items()})
            return self.fits(f"trace.{name}", vars(s)[name].value[0])
        except MISFIT:
            return False

    def settle(self, trace, found, right):
        """Take of the alternatives those that agree with most of what else was given."""
        if {edit.words for edit in self.edits} & {edit.words for edit in found} or self.take(found):
            return
        # Nothing else feels it: it may only have been written so.
        change = None if self.unknown else changed(self.case, trace, right, self.given[trace], self.close)
        if change:
            self.looks.append((f"{change} (in {trace})",))
        else:
            self.looks += words_of(found)
        (self.written.add if change or found else self.unknown.append)(trace)

    def take(self, found):
        """Take the best alternative if it explains more; whether it does."""
        scores = [self.agreement([*self.edits, edit]) for edit in found]
        better = max(scores, default=0) > self.agreement(self.edits)
        if better:
            best = [edit for edit, score in zip(found, scores) if score == max(scores)]
            self.looks += words_of(best)
            self.edits.append(best[0])
        return better

    # Loss and gradients, which are searched together: a scalar alone names nothing

    def backward(self):
        """Name what is wrong in the loss and the gradients; whether they are explained."""
        names = [name for name in self.given if name == "loss" or name.startswith("grad")]
        predicted = self.run(self.edits, "grad")
        wrong = [name for name in names if not self.fits(name, predicted[name])]
        if wrong in ([], ["loss"]):
            self.unknown += wrong
            return not wrong
        traces = [name for name in self.given if name.startswith("trace")]
        so_far = self.agreement(self.edits, "loss", traces)
        fitting = [e for e in self.catalogue if e.changes and self.gives_loss(e, traces, so_far)]
        counts = [self.agreement([*self.edits, e], "grad", names) for e in fitting]
        enough = max(counts, default=0) > len(names) - len(wrong) + len(wrong) // 2      # more than half
        if not enough or not self.take([e for e, n in zip(fitting, counts) if n == max(counts)]):
            self.by_array(wrong, predicted)
        return not self.unknown

    def gives_loss(self, edit, traces, so_far):
        """Whether a port with this mistake, too, has their loss, and as many of their traces."""
        arrays = self.run([*self.edits, edit], "loss")
        return "loss" in arrays and ("loss" not in self.given or self.fits("loss", arrays["loss"])) and sum(
            self.fits(name, arrays[name]) for name in traces) >= so_far

    def by_array(self, wrong, predicted):
        """Name what was done to single arrays."""
        words: dict = {}
        for name in wrong:
            change = changed(self.case, name, predicted[name], self.given[name], self.close)
            if change is None:
                self.unknown.append(name)
            else:
                words.setdefault(change, []).append(name)
                self.written.add(name)
        self.looks += [(f"{change} (in {summary(names)})",) for change, names in words.items()]

    def steps(self, known):
        """Name what is wrong in the steps, from their own gradients where they are given."""
        case, right = equations.edited(self.case, self.edits)
        predicted = self.run(self.edits, "grad") if known else {}
        first = [self.given.get(f"grad.{field}", predicted.get(f"grad.{field}"))
                 for field in case.params._fields]
        names = [name for name in self.given if name.startswith("sgd1" if not known else "sgd")]
        if not names or any(g is None or g.shape != w.shape for g, w in zip(first, case.params)):
            return

        last = 3 if known else 1

        def left(edits):
            arrays = equations.steps(equations.edited(case, edits)[0], right, edits, first, last)
            return [name for name in names if not self.fits(name, arrays[name])]

        wrong = left([])
        if not wrong:
            return
        early = [name for name in wrong if name.startswith("sgd1")]       # later, all fields feel it
        fields = frozenset(name.rpartition(".")[2] for name in early or wrong)
        candidates = list(STEPS)
        if not fields >= set(case.sgd["trained"]):
            only = ", ".join(f for f in case.params._fields if f in fields)
            candidates += [e._replace(fields=fields, words=f"{e.words} ({only} alone)")
                           for e in STEPS if e.rule]
        counts = [len(left([edit])) for edit in candidates]
        if 2 * min(counts) < len(wrong):
            best = [edit for edit, n in zip(candidates, counts) if n == min(counts)]
            self.looks += words_of(best)
            self.edits.append(best[0])
            self.written |= set() if known else set(wrong) - set(left(best[:1]))
        else:
            self.by_array(wrong, equations.steps(case, right, [], first, last))


def words_of(found):
    """The names of mistakes that explain the same, as one entry of `looks`; no entry if there are none."""
    words = tuple(dict.fromkeys(edit.words for edit in found))
    return [words] if words else []


def summary(names):
    """Array names, a whole group by its prefix."""
    groups = dict.fromkeys(name.rpartition(".")[0] + ".*" if "." in name else name for name in names)
    return ", ".join(names if len(names) <= 3 else groups)


def changed(case, name, a, b, close):
    """The change that makes b, theirs, of the array a; None if none known does."""
    if a.shape == b.shape:
        close = min(close, 0.1 * relative_error(a, b))      # it must explain most of what departs

    def same(x, y):
        return x.size > 0 and relative_error(x, y) <= close

    if a.ndim == 2 and a.shape != (1, 1) and same(a.T, b):
        return "transposed"
    if a.shape != b.shape:
        return None
    factor = (a * b).sum() / (a * a).sum() if a.any() else 0.0
    if factor and same(factor * a, b):
        if a.ndim == 0:         # a scalar is a multiple of any other
            return None
        meaning = factor_meaning(case, factor)
        words = f"constant factor {factor:.6g}" + (f": {meaning}" if meaning else "")
        return "negated" if abs(factor + 1) < 1e-6 else words
    axes = [(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)) for axis in range(a.ndim)]
    if any(len(x) > 2 and not same(x[1:], x[:-1]) and (same(x[1:], y[:-1]) or same(x[:-1], y[1:]))
           for x, y in axes):           # rows differ, so that one can tell
        return "shifted by one position"
    for (x, y), what in zip(axes, ("rows", "columns")):
        if same(ordered(x), ordered(y)):
            return f"{what} permuted"
    return None


def ordered(a):
    """The rows in an order that depends on their contents alone."""
    rows = a.reshape(len(a), -1)
    return a[(rows @ np.sqrt(1 + np.arange(rows.shape[1]))).argsort()]


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
