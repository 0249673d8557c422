"""A claim: a statement, where its instances come from, and the check of one instance.

The check draws an instance and returns (predicted, observed): predicted by a closed form, observed in the
model. One control goes with it: the same check with one assumption broken. It must fail, or the check
could not have failed either. README.md has an example; `python -m refimpl audit --from FILE.py` audits yours.
"""

import importlib
import math
import os
import pickle
from typing import Any, Callable, NamedTuple

import numpy as np

from refimpl import check
from refimpl.gradcheck import complex_step
from refimpl.terminal import run_file

OURS: dict = dict(source="this project", provenance="derived")
PROVENANCE = ("paper", "formalised", "derived")
KINDS = ("exact", "inequality", "limit")
TOLERANCE = 1e-12
SEEDS = (0, 2 ** 63 - 1)
LOADED: dict = {}       # absolute path -> the claims of that file


class Case(NamedTuple):
    """What a claim gets beside its instance."""

    rng: np.random.Generator    # seeded by the instance
    control: bool               # break the assumption that the claim names
    text: str                   # real text, for claims about text
    full: bool = False          # take the time for the whole range, where a claim measures a trend
    show: Callable = lambda title, words: None      # tell the reader of `explain` about the instance
    balls: Any = None           # the module balls.py where numbers are to be balls, which enclose them

    def number(self, x):
        """x, a number, an array or a NamedTuple of arrays: as it is, or as balls that hold it exactly."""
        return self.balls.number(x) if self.balls else x

    def rotation(self, d):
        """A random orthogonal matrix (d, d); of balls, a rational one."""
        if self.balls:
            return self.balls.rotation(d, self.rng)
        return np.linalg.qr(self.rng.normal(size=(d, d)))[0]

    def derivative(self, f, x):
        """The derivative of f by every coordinate of x, without backpropagation."""
        return self.balls.quotients(f, x) if self.balls else complex_step(f, x)

    def around(self, x):
        """x; of balls, those that hold all points at which `derivative` may have been taken."""
        return self.balls.around(x) if self.balls else x


class Claim(NamedTuple):
    """A statement, the space of its instances, and the check of one instance."""

    id: str
    statement: str
    source: str
    provenance: str             # paper, formalised or derived
    kind: str                   # exact, inequality or limit
    tolerance: float
    reason: str                 # why this tolerance
    control: str                # which assumption the control breaks
    cases: int                  # instances by default
    derivation: Any             # what holds the derivation as its docstring
    space: dict                 # name -> (low, high) of int or of float, or a tuple of strings
    control_space: dict         # the same for instances of the control
    check: Callable             # (case, **instance) -> predicted, observed[, scale]
    parts: tuple                # names of the parts of what is returned, for `explain`

    @property
    def exact(self):
        """Whether it holds without a limit."""
        return self.kind != "limit"

    def __reduce__(self):
        """Pickle where it is to be found: in a file that was loaded, or in a module."""
        home = next((path for path, claims in LOADED.items() if any(c is self for c in claims)),
                    getattr(self.check, "__module__", None))
        if find(home, self.id) is not self:
            raise pickle.PicklingError(f"claim {self.id}: expected one at the top of a module or of a "
                                       "file of claims, which other processes can load")
        return find, (home, self.id)


def claim(id, statement, *, source, provenance, control, kind="exact", tolerance=None,
          reason="rounding of a few hundred operations", cases=25, derivation=None, control_space=None,
          parts=(), **space):
    """Make a Claim of the function below.

    The function takes a Case and the names of `space`. What it returns depends on the kind:

    exact        predicted, observed: numbers, arrays, or tuples of them, of the same shapes. Each
                 |predicted − observed| is at most `tolerance` (1e-12) times the largest entry of the two.
                 A third item, `scale`, is the least size that counts, for numbers that may vanish.
    inequality   smaller, larger: each smaller ≤ larger, up to `tolerance` times the largest entry, or the
                 third item, `scale`. The audit reports the smallest margin, (larger − smaller) over that.
    limit        predicted, observed, allowed: each |predicted − observed| ≤ allowed, which the check
                 derives. For single numbers the audit reports which values it would have rejected.

    The third item is one number for all parts, or a tuple with one item for each part. `parts` names the
    parts for `explain`; `case.show("prompt", "a b a")` adds a line there.

    Every other keyword is a range: two ints, two floats (both ends included) or several strings.
    `control_space` narrows ranges for the control to instances in which there is something to break: it must
    fail in all of them. Raises ValueError on arguments that are none of these.
    """
    check.choice("provenance", provenance, PROVENANCE)
    check.choice("kind", kind, KINDS)
    for name, words in (("id", id), ("statement", statement), ("source", source), ("control", control),
                        *(("parts", part) for part in check.instance("parts", parts, tuple, "a tuple"))):
        if not check.instance(name, words, str, "a string").isprintable():
            raise ValueError(f"{name}: expected printable characters, got {words!r}")
    if kind == "limit" and tolerance is not None:
        raise ValueError(f"tolerance: expected none for a limit, whose check returns it, got {tolerance}")
    tolerance = 1.0 if kind == "limit" else check.real(
        "tolerance", TOLERANCE if tolerance is None else tolerance, 0)
    cases = check.integer("cases", cases, 1)
    narrow = check.instance("control_space", control_space or {}, dict, "a dict")
    for name, values in [*space.items(), *narrow.items()]:
        if not name.isidentifier() or name in ("case", "seed"):
            raise ValueError(f"expected an argument's name other than case and seed, got {name!r}")
        if not is_range(values):
            raise ValueError(f"{name}: expected (low, high) of two ints or two finite floats, or a tuple of "
                             f"strings, got {values!r}")
    for name, values in narrow.items():
        if name not in space or not all(is_in(space[name], value) for value in values):
            raise ValueError(f"control_space: expected ranges within {space}, got {name} = {values}")

    def decorate(function):
        return Claim(id, statement, source, provenance, kind, tolerance, reason, control, cases,
                     derivation or function, space, {**space, **narrow}, function, parts)
    return decorate


def is_range(values):
    """Whether these are different strings, or (low, high) of one type between which numbers can be drawn."""
    kinds = {type(v) for v in values} if isinstance(values, tuple) else set()
    if kinds == {str}:
        return len(set(values)) == len(values)
    return (kinds in ({int}, {float}) and len(values) == 2 and values[0] <= values[1]
            and (max(map(abs, values)) < 2 ** 63 if kinds == {int} else math.isfinite(values[1] - values[0])))


def is_in(values, value):
    """Whether a value is in a range: one of its strings, or a number of its type between its ends."""
    return value in values if isinstance(values[0], str) else (
        type(value) is type(values[0]) and values[0] <= value <= values[1])


def covers(space, instance):
    """Whether an instance has a seed and a value in range for each name of the space, and nothing else."""
    return set(instance) == {*space, "seed"} and not misfits(space, instance)


def misfits(space, instance):
    """For each name of the space, and seed, whose value is not there or not in range: its range."""
    return {name: values for name, values in {**space, "seed": SEEDS}.items()
            if name not in instance or not is_in(values, instance[name])}


def draw(space, rng, index):
    """Draw an instance: all lows first, all highs second, then at random with a quarter at the ends."""
    instance = {}
    for name, values in space.items():
        end = index if index < 2 else int(rng.integers(8))
        if end < 2:
            instance[name] = values[-end]
        elif isinstance(values[0], int):
            instance[name] = int(rng.integers(values[0], values[1] + 1))
        elif isinstance(values[0], float):
            instance[name] = float(rng.uniform(*values))
        else:
            instance[name] = values[rng.integers(len(values))]
    instance["seed"] = int(rng.integers(2 ** 31))
    return instance


def collect(module):
    """The claims of a module, in the order in which they were written."""
    return [value for value in vars(module).values() if isinstance(value, Claim)]


def load(path):
    """The claims of a Python file. Raises ValueError if it does not run, or holds none, or an id twice."""
    claims = collect(run_file(path))
    ids = [c.id for c in claims]
    if not claims:
        raise ValueError(f"{path}: expected claims (functions under @claim), got none")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path}: expected distinct ids, got {', '.join(ids)}")
    LOADED[os.path.abspath(path)] = claims
    return claims


def find(home, id):
    """The claim of this id in a file or in a module, by its name; None if it is not there."""
    if home in LOADED or os.path.isabs(str(home)):
        claims = LOADED.get(home) or load(home)
    else:
        claims = collect(importlib.import_module(home)) if isinstance(home, str) else []
    return next((c for c in claims if c.id == id), None)
