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


def survives(names):
    """Whether every instance of these claims still passes."""
    for name in names:
        claim = BUILTIN[name]
        for index in range(claim.cases):
            instance = claims.draw(small(claim.space), np.random.default_rng(index), index)
            if claims.fails(claim, claims.evaluate(claim, instance, TEXT)):
                return False
    return True


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


def attack(monkeypatch, module, wanted, names, equivalent):
    """Put each mutant in the module's place: all are caught but those known to be equivalent."""
    source = pathlib.Path(module.__file__).read_text(encoding="utf-8")
    source = source.replace("from numba import njit", "def njit(cache):\n    return lambda kernel: kernel")
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
            if survives(names):
                survivors.add((function, change))
    print(f"{module.__name__}: {count - len(survivors)} of {count} mutants caught, "
          f"{len(survivors)} equivalent")
    assert count > 10 and survivors == set(equivalent), (survivors ^ set(equivalent))


SYSTEM_I = ("I1", "I2", "I3", "I4", "I5")
SYSTEM_R = ("R2", "R3", "R4")
EQUIVALENT_OPS = {
    ("relative_scores_backward", "0: one more"): "dS.shape[1] for dS.shape[0]: dS is square",
    ("causal_softmax_backward", "0: one more"): "A.shape[1] for A.shape[0]: A is square",
    ("causal_softmax_backward", "1: one more"): "dA[t, :t + 2]: the entry after the last is not read",
    ("softmax_backward", "p[0] * 0: left side dropped"): "0 for p[0] * 0, the zero of the same type",
}
EQUIVALENT_I = {
    ("match", "0.0: one more"): "position 0 has no previous token: its entry is replaced below",
    ("hijack", "T < T_star: comparison swapped"): "a tie, where rounding decides",
    ("hijack", "tokens_per_repetition > 0: comparison swapped"): "T / 0 is infinite too",
    ("hijack", "0: one more"): "up to 1 token a repetition k* is T or more, and k is less",
}
EQUIVALENT_R = {
    ("infer_logits", "1: one more"): "-2 … for low = -1: only a check of the arguments",
    ("infer_logits", "u @ u: factors exchanged"): "the same product",
    ("infer_logits", "v @ v: factors exchanged"): "the same product",
    ("infer_loss", "u[:-1] @ v: factors exchanged"): "an inner product is symmetric",
}


@pytest.mark.jit
@pytest.mark.parametrize("module, wanted, names, equivalent", [
    (ops, lambda name: name.endswith("_backward"), ("IG", "RG"), EQUIVALENT_OPS),
    (induction.model, lambda name: name == "backward_pass", ("IG",), {}),
    (recall.model, lambda name: name == "backward_pass", ("RG",), {}),
    (associative, lambda name: name == "moments", ("M1", "M2"), {}),
    (induction.theory, lambda name: True, SYSTEM_I, EQUIVALENT_I),
    (recall.theory, lambda name: name not in ("indices", "pair_weights", "subject_weights"), SYSTEM_R,
     EQUIVALENT_R)],
    ids=["ops", "induction.model", "recall.model", "associative", "induction.theory", "recall.theory"])
def test_every_mutant_is_caught(monkeypatch, module, wanted, names, equivalent):
    attack(monkeypatch, module, wanted, names, equivalent)
