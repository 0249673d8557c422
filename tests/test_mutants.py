"""Attack on the checks: every mutant of every backward and every formula must fail the audit's claims.

A mutant that survives is either a hole in the claims or equivalent to the original; the latter are
listed with the reason, and nothing else may survive.
"""

import pathlib
import types

import numpy as np
import pytest

from refimpl import associative, claims, induction, ops, recall
from tests.mutants import mutants
from tests.test_claims import BUILTIN, TEXT


def instances(claim):
    """As many instances as the audit takes, small ones."""
    return [claims.draw(small(claim.space), np.random.default_rng(index), index)
            for index in range(claim.cases)]


def survives(names):
    """Whether every instance of these claims still passes."""
    return not any(claims.fails(BUILTIN[id], claims.evaluate(BUILTIN[id], instance, TEXT))
                   for id in names for instance in instances(BUILTIN[id]))


def small(space):
    """The space with integers up to 8 above their lowest: what is wrong is wrong there, and fast."""
    return {name: (values[0], min(values[1], values[0] + 8)) if isinstance(values[0], int) else values
            for name, values in space.items()}


def put(patch, module, wanted, namespace):
    """Let the wanted functions of a namespace stand in for the module's own."""
    for name, value in namespace.items():
        if isinstance(value, types.FunctionType) and value.__module__ == "mutant" and wanted(name):
            patch.setattr(module, name, value)
    for name in recall.model.ACTIVATIONS:
        patch.setitem(recall.model.ACTIVATIONS, name,
                      (getattr(ops, f"{name}_forward"), getattr(ops, f"{name}_backward")))


def users(monkeypatch, module, names):
    """Which of these claims call which functions of the module: {function: [id, …]}."""
    found: dict = {}

    def recorded(name, function, id):
        def call(*args, **kwargs):
            found.setdefault(name, dict.fromkeys([id]))[id] = None
            return function(*args, **kwargs)
        return call

    for id in names:
        with monkeypatch.context() as patch:
            for name, value in list(vars(module).items()):
                if callable(value) and not isinstance(value, type):
                    patch.setattr(module, name, recorded(name, value, id))
            put(patch, ops, lambda name: False, {})
            for instance in instances(BUILTIN[id])[:10]:
                claims.evaluate(BUILTIN[id], instance, TEXT)
    return found


def attack(monkeypatch, module, wanted, names, equivalent):
    """Put each mutant in the module's place: all are caught but those known to be equivalent."""
    source = pathlib.Path(module.__file__).read_text(encoding="utf-8")
    source = source.replace("from numba import njit", "def njit(cache):\n    return lambda kernel: kernel")
    called = users(monkeypatch, module, names)
    with monkeypatch.context() as patch:
        original = {"__name__": "mutant"}
        exec(compile(source, "original", "exec"), original)
        put(patch, module, wanted, original)
        assert survives(names), "the unchanged source must pass what catches the mutants"
    count, survivors = 0, set()
    for function, change, namespace in mutants(source, wanted):
        count += 1
        with monkeypatch.context() as patch:
            put(patch, module, wanted, namespace)
            if survives(called.get(function, ())):
                survivors.add((function, change))
    print(f"{module.__name__}: {count - len(survivors)} of {count} mutants caught, "
          f"{len(survivors)} equivalent")
    assert count > 10 and survivors == set(equivalent), sorted(survivors ^ set(equivalent))


SYSTEM_I = ("I1", "I2", "I3", "I4", "I5")
SYSTEM_R = ("R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "R10", "R14")
REFUSALS = ("indices", "pair_weights", "subject_weights", "position_logits", "size", "strength")
EQUIVALENT_OPS: dict = {}
EQUIVALENT_I: dict = {}
EQUIVALENT_R: dict = {}


@pytest.mark.jit
@pytest.mark.parametrize("module, wanted, names, equivalent", [
    (ops, lambda name: name.endswith("_backward"), ("IG", "RG"), EQUIVALENT_OPS),
    (induction.model, lambda name: name == "backward_pass", ("IG",), {}),
    (recall.model, lambda name: name == "backward_pass", ("RG",), {}),
    (associative, lambda name: name == "moments", ("M1", "M2"), {}),
    (induction.theory, lambda name: True, SYSTEM_I, EQUIVALENT_I),
    (recall.theory, lambda name: name not in REFUSALS, SYSTEM_R,
     EQUIVALENT_R)],
    ids=["ops", "induction.model", "recall.model", "associative", "induction.theory", "recall.theory"])
def test_every_mutant_is_caught(monkeypatch, module, wanted, names, equivalent):
    attack(monkeypatch, module, wanted, names, equivalent)
