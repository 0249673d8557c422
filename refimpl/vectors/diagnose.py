"""Naming the mistakes of a port, as many as there are, from the arrays that it wrote.

As far as there are traces, equation by equation: where an equation does not give the port's output from the
port's own inputs, the catalogue is searched for one that does. So each mistake is seen where it is made. What
has no trace is searched together: the equations between two given arrays, the loss with its gradients, the
steps. A name that explains no more than half of what departs is not given.
"""

from itertools import product

import numpy as np

from refimpl.vectors import equations
from refimpl.vectors.arrays import changed, summary
from refimpl.vectors.equations import Edit, evaluated, expression, parse, run, sums_of, text_of
from refimpl.vectors.mistakes import ACTIVATIONS, PLACES, STEPS, catalogue, variations
from refimpl.vectors.tape import Node

UNKNOWN = "unknown"
FLOOR = 0.01
MISFIT = (ValueError, IndexError, KeyError)     # shapes that do not go together, what is not there yet
PAIRS, SHORT = 2, 32        # pairs take seconds: they are searched in vain so often, in cases so short


class Memory:
    """What was found in the cases before: tried first in the next."""

    def __init__(self):
        self.found, self.in_vain = [], 0


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
        for names in self.memory.found:
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
        found = [e for e in self.catalogue if e.case and not e.rule and self.explained([e], departing)]
        return alternatives([(e,) for e in found])

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
            self.memory.found += [names for names in product(*(alike[:4] for alike in self.looks))
                                  if names not in self.memory.found]
        if rest and (self.unknown or not known):
            self.looks.append((f"{UNKNOWN} (from {(self.unknown or rest)[0]} on)",))
        elif rest:
            self.looks.append((f"{UNKNOWN} ({summary(rest)})",))
        return self.looks

    # Whether arrays agree

    def run(self, edits, last=None):
        """The arrays of a port with these mistakes; none if they do not go together."""
        try:
            return run(self.case, edits, last)
        except MISFIT:
            return {}

    def error(self, name, value):
        """Largest error of their array against a value, relative to the larger of both."""
        theirs = self.given[name]
        if value is None or value.shape != theirs.shape or not np.isfinite(value).all():
            return np.inf
        apart = np.abs(value - theirs).max(initial=0)
        return apart / max(np.abs(value).max(initial=0), self.floors[name]) if apart else 0.0

    def fits(self, name, value):
        """Whether their array is this value."""
        return self.error(name, value) <= self.close

    def agreement(self, edits, last="grad", names=None):
        """How many of their arrays are those of a port with these mistakes."""
        arrays = self.run(edits, last)
        return sum(self.fits(name, arrays[name]) for name in names or self.given if name in arrays)

    # Forward, equation by equation

    def forward(self):
        """Name what is wrong before the loss; whether all of it was named."""
        right = equations.right(self.case)
        theirs, ours = (equations.state(self.case, first=True) for _ in range(2))
        pending: dict = {}
        for name, equation in list(right.items())[:-1]:
            pending[name], trace = equation, f"trace.{name}"
            if trace in self.given:
                values = [evaluated(s, {**pending, **self.changes(pending)}) for s in (theirs, ours)]
                if not any(self.fits(trace, vars(s)[name].value[0]) for s in values):
                    self.settle(trace, self.search(theirs, pending, name), vars(values[0])[name].value[0])
                ours = evaluated(ours, {**pending, **self.changes(pending)})
                theirs = evaluated(theirs, {**pending, **self.changes(pending)})
                if self.given[trace].shape == vars(theirs)[name].value.shape[1:]:
                    setattr(theirs, name, Node(self.given[trace][None]))
                pending = {}
        return not self.unknown

    def changes(self, names):
        """What the mistakes named so far change of these equations."""
        return {name: f for edit in self.edits for name, f in edit.changes.items() if name in names}

    def search(self, s, pending, name):
        """The mistakes in the pending equations that give their array of this name, alone or in pairs."""
        order, before = list(pending), [s]
        for k in order:
            before.append(evaluated(before[-1], {k: pending[k]}))

        def later(edits, place):
            """The pending equations from a place on, with these mistakes."""
            return {k: next((e.changes[k] for e in edits if k in e.changes), pending[k])
                    for k in order[place:]}

        placed = [(min(map(order.index, here)), edit) for edit in self.catalogue
                  if (here := [k for k in edit.changes if k in pending])]
        found: list[tuple] = [(e,) for place, e in placed
                              if self.gives(name, before[place], later([e], place))]
        pairs = len(pending) > 1 and self.memory.in_vain < PAIRS and self.case.tokens.shape[1] <= SHORT
        if not found and pairs:
            for start, first in ((start, e) for start, e in placed if e.likely):
                for place in range(start + 1, len(order)):
                    upper = {k: f for k, f in later([first], start).items() if k not in order[place:]}
                    seconds = [e for other, e in placed if other == place and e.likely]
                    try:
                        s = evaluated(before[start], upper)
                    except MISFIT:
                        break
                    found += [(first, e) for e in seconds if self.gives(name, s, later([first, e], place))]
            self.memory.in_vain += not found
        if not found and name in (sums := sums_of(self.case)):
            known = ACTIVATIONS[self.case.model]
            known = PLACES if name == "x0" else known[:known.index(name)]
            found = [(edit,) for edit in twice(name, sums[name], known)
                     if self.gives(name, before[0], pending | edit.changes)]
        return found

    def gives(self, name, s, pending):
        """Whether these equations give their array of this name from the state s."""
        try:
            return self.fits(f"trace.{name}", vars(evaluated(s, pending))[name].value[0])
        except MISFIT:
            return False

    def settle(self, trace, found, right):
        """Take of the alternatives those that agree with most of what else was given."""
        words = {edit.words for edit in self.edits}
        if any({edit.words for edit in edits} <= words for edits in found):
            return
        if found and self.take(found):
            return
        # Nothing else feels it: it may only have been written so.
        change = None if self.unknown else changed(self.case, trace, right, self.given[trace], self.close)
        if change:
            self.looks.append((f"{change} (in {trace})",))
        elif found:
            self.looks += alternatives(found)
        (self.written.add if change or found else self.unknown.append)(trace)

    def take(self, found):
        """Take the best alternative, a tuple of edits, if it explains more; whether it does."""
        scores = [self.agreement([*self.edits, *edits]) for edits in found]
        best = [edits for edits, score in zip(found, scores) if score == max(scores)]
        better = max(scores) > self.agreement(self.edits)
        if better:
            self.looks += alternatives(best)
            self.edits += best[0]
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
        found = self.best([(e,) for e in fitting], names, wrong)
        if not found and "trace.logits" in self.given:      # one of the loss, one that only gradients show
            late = [e for e in fitting if "loss" in e.changes]
            found = self.best(product(late, [e for e in fitting if e not in late]), names, wrong)
        if not found or not self.take(found):
            self.by_array(wrong, predicted)
        return not self.unknown

    def gives_loss(self, edit, traces, so_far):
        """Whether a port with this mistake, too, has their loss, and as many of their traces."""
        arrays = self.run([*self.edits, edit], "loss")
        return "loss" in arrays and ("loss" not in self.given or self.fits("loss", arrays["loss"])) and sum(
            self.fits(name, arrays[name]) for name in traces) >= so_far

    def best(self, candidates, names, wrong):
        """The candidates that explain the most of the wrong arrays, and more than half."""
        best: list[tuple] = []
        most = len(names) - len(wrong) + len(wrong) // 2 + 1
        for edits in candidates:
            count = self.agreement([*self.edits, *edits], "grad", names)
            best, most = [] if count > most else best, max(count, most)
            if count == most:
                best.append(edits)
        return best

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

    # The steps

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
        candidates = [(edit,) for edit in STEPS]
        if not fields >= set(case.sgd["trained"]):
            only = ", ".join(f for f in case.params._fields if f in fields)
            candidates += [(e._replace(fields=fields, words=f"{e.words} ({only} alone)"),)
                           for e in STEPS if e.rule]
        counts = [len(left(edits)) for edits in candidates]
        if 2 * min(counts) < len(wrong):
            best = [edits for edits, n in zip(candidates, counts) if n == min(counts)]
            self.looks += alternatives(best)
            self.edits += best[0]
            self.written |= set() if known else set(wrong) - set(left(best[0]))
        else:
            self.by_array(wrong, equations.steps(case, right, [], first, last))


def alternatives(found):
    """The names of the first mistakes of each alternative, of the second …, without repetition."""
    return [tuple(dict.fromkeys(edit.words for edit in alike)) for alike in zip(*found)]


def twice(out, text, known):
    """Every sum with two changes."""
    for terms, wrap, _ in list(variations(parse(text), known)):
        for new, outer, _ in variations(terms, known) if not wrap else ():
            yield Edit(f"{out} = {text_of(new, outer)}, not {text}", {out: expression(new, outer)})
