"""Attack on the checks: every mutant of every backward and every formula must fail the audit's claims.

So must every mutant of what draws an instance or gives a verdict fail the tests in instruments.py. Of these
every eighth is tried, and all of them if the environment has CI set. A mutant that survives is either a hole
in the claims or equivalent to the original; the latter are listed with the reason, and nothing else may
survive.
"""

import importlib
import os
import pathlib
import sys
import types

import numpy as np
import pytest

from refimpl import associative, claims, induction, ops, recall
from tests import instruments
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
    """Let the wanted functions of a namespace stand in for the module's own, wherever they are handed on.

    They return the module's own types, as the verdict compares types; wanted methods are put into them.
    """
    for name, value in list(namespace.items()):
        if getattr(value, "__module__", "") != "mutant":
            continue
        if isinstance(value, types.FunctionType) and wanted(name):
            replace(patch, module, name, value)
        elif isinstance(value, type):
            namespace[name] = getattr(module, name)
            for method, body in vars(value).items():
                function = getattr(body, "__func__", getattr(body, "fget", body))
                if isinstance(function, types.FunctionType) and wanted(f"{name}.{method}") and \
                        function.__code__.co_filename == "mutant":      # not one that a NamedTuple makes
                    patch.setattr(namespace[name], method, body)
    for name in recall.model.ACTIVATIONS:
        patch.setitem(recall.model.ACTIVATIONS, name,
                      (getattr(ops, f"{name}_forward"), getattr(ops, f"{name}_backward")))


def replace(patch, module, name, value):
    """Replace a function in its module, and in every module of ours, tests too, that got it from there."""
    original = getattr(module, name)
    for other in [other for key, other in sys.modules.items()
                  if key.partition(".")[0] in ("refimpl", "tests")]:
        if vars(other).get(name) is original:
            patch.setattr(other, name, value)


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
                    replace(patch, module, name, recorded(name, value, id))
            put(patch, ops, lambda name: False, {})
            for instance in instances(BUILTIN[id])[:10]:
                claims.evaluate(BUILTIN[id], instance, TEXT)
    return found


def source_of(module):
    """The source of a module, its kernels left to Python."""
    source = pathlib.Path(module.__file__).read_text(encoding="utf-8")
    return source.replace("from numba import njit", "def njit(cache):\n    return lambda kernel: kernel")


def run(source):
    """The namespace of a source."""
    namespace = {"__name__": "mutant"}
    exec(compile(source, "mutant", "exec"), namespace)
    return namespace


def attack(monkeypatch, module, wanted, survives, equivalent, every=1):
    """Put each mutant in the module's place: all are caught but those known to be equivalent.

    survives(function) judges what stands there; with function None, all of it.
    """
    source = source_of(module)
    with monkeypatch.context() as patch:
        put(patch, module, wanted, run(source))
        assert survives(None), "the unchanged source must pass what catches the mutants"
    tried, survivors = [], []
    for function, change, namespace in mutants(source, wanted, REFUSALS, every):
        tried.append((function, change))
        with monkeypatch.context() as patch:
            put(patch, module, wanted, namespace)
            if survives(function):
                survivors.append((function, change))
    assert len(tried) * every > 10 and sorted(set(survivors) - set(equivalent)) == []
    # One line may hold two places of one name, of which one is equivalent: a sample may miss it.
    assert every > 1 or set(survivors) == set(equivalent)
    return (f"{module.__name__}: {len(tried) - len(survivors)} of {len(tried)} mutants caught, "
            f"{len(survivors)} equivalent")


induction_logits, limits, embeddings, induction_dynamics, recall_logits, recall_dynamics, *recall_others = (
    importlib.import_module(f"refimpl.{name}") for name in (
        *(f"induction.theory.{name}" for name in ("logits", "limits", "embeddings", "dynamics")),
        *(f"recall.theory.{name}" for name in ("logits", "dynamics", "samples", "convergence", "noise"))))
recall_samples, recall_convergence, recall_noise = recall_others
SYSTEM_R = ("R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "R10", "R14")
REFUSALS = ("joint", "table", "takes", "fit")
EVERY = 1 if os.environ.get("CI") else 8
SYMMETRIC = "an inner product is symmetric"
# (function, the line: the code: the change) -> why the mutant computes the same.
EQUIVALENT_OPS = {
    ("causal_softmax_backward", "for t in range(A.shape[0]):: 0: one more"): "A is square",
    ("relative_scores_backward", "T = dS.shape[0]: 0: one more"): "dS is square",
    ("causal_softmax_backward", "dS[t, :t + 1] = softmax_backward(A[t, :t + 1], dA[t, :t + 1]): "
     "1: one more"): "of dA: softmax_backward reads no entry after the last of A",
    ("relu_backward", "elif not x[i] <= 0:: 0: one more"): "what is above 0 does not come here",
    ("softmax_backward", "mean = p[0] * 0: 0: one more"): "p[1] * 0 is the same zero",
    ("softmax_backward", "mean = p[0] * 0: p[0] * 0: left side dropped"): "0, of another type",
}
K_STAR = "k_star = np.where(tokens_per_repetition > 0, T / tokens_per_repetition, np.inf): "
WEIGHTS = ("weights = np.exp(scores - scores.max(axis=-1, keepdims=True)): "
           "scores - scores.max(axis=-1, keepdims=True): ")
SHIFTED = "softmax is the same for shifted scores, as long as nothing overflows"
ZERO = "0, of another type"
EQUIVALENT_I = {
    ("attention", "scores = {v: (b2 if v in Q else 0 * b2) * match(z, v, b1, L0) for v in {*z.tolist()}}: "
     "0 * b2: right side dropped"): ZERO,
    ("match", "equal = one_key(0 * b1, s)[1]       # 1 / (s + 1), as with strength 0: nothing is stored: "
     "0 * b1: right side dropped"): ZERO,
    ("previous_token_attention", "previous, other = one_key(b1 if 0 < t < L0 else 0 * b1, t): "
     "0 * b1: right side dropped"): ZERO,
    ("match", "count, previous = np.cumsum(is_q), np.concatenate([[0.0], is_q[:-1]]): 0.0: one more"):
    "position 0 has no previous token: its entry is replaced below",
    ("softmax", WEIGHTS + "operator swapped"): SHIFTED, ("softmax", WEIGHTS + "right side dropped"): SHIFTED,
    ("without_positions", "A1 = np.tril(other[:, None] * np.ones(T)): "
     "other[:, None] * np.ones(T): operator swapped"): "divided by ones",
}
TIE = "they differ at a tie, where rounding decides"
EQUIVALENT_LIMITS = {
    ("hijack", "return Hijack(T < T_star, T_star, gap / bo * (C + np.exp(-b2) * (T - C))): T < T_star: "
     "comparison swapped"): TIE,
    ("hijack", "return Hijack(T < T_star, T_star, k_star): T < T_star: comparison swapped"): TIE,
    ("hijack", K_STAR + "tokens_per_repetition > 0: comparison swapped"): "T / 0 is infinite too",
}
CONSTANT = (
    ("return (1 + 2 * bo * L[z] * h + bo ** 2 * l2 * (h @ h) + c @ c + y @ y + y ** 2: ",
     ("h @ h", "c @ c", "y @ y")),
    ("+ 2 * bo ** 2 * (h @ h + h ** 2) + l2 + L[z] ** 2 + 2 * bo * (is_z * (h @ L) + h[z] * own): ",
     ("h @ h",)),
    ("+ 2 * bo ** 2 * (g @ g) + l2 * (c @ c) + 2 * bo * own * (g @ c)): ", ("g @ g", "c @ c", "g @ c")))
EQUIVALENT_GAPS = {("gap_constant", f"{line}{product}: factors exchanged"): SYMMETRIC
                   for line, products in CONSTANT for product in products}
# An inequality holds for looser bounds too: tests/induction holds these to numbers worked out by hand.
BOUNDS = ("hard_remainder", "sharp_bounds", "sharp_strengths")
Y = "y is symmetric: 1[o = k] − 1/V"
EQUIVALENT_I7 = {
    ("first_gradient", "A = y.T @ single.mean(axis=1): y.T: transposition dropped"): Y,
    ("first_gradient", 'B = y.T @ np.einsum("s,osj->oj", averaging(T).mean(axis=0), single): '
     "y.T: transposition dropped"): Y,
    ("first_gradient", "return FirstGradient(A, B, np.outer(y.T @ posterior, is_q), A): "
     "y.T @ posterior: factors exchanged"): Y,
    ("first_gradient", "return FirstGradient(A, B, np.outer(y.T @ posterior, is_q), A): "
     "y.T: transposition dropped"): Y,
    ("third_gradient_by_values", "gain = gain + averaging(T).mean(axis=0) * (P @ P - 1 / V): P @ P: "
     "factors exchanged"): SYMMETRIC,
}
SHIFT, SHIFTED = "a shift of all logits changes nothing but overflow", "logits - peak(logits): "
PEAK = "return 0 if logits.dtype == object else logits.max(): "
VOTES = "return lam * (u @ u + v @ v + 2 * votes): "
EQUIVALENT_R = {
    ("softmax", "weights = count * np.exp(logits - peak(logits)): " + SHIFTED + "operator swapped"): SHIFT,
    ("softmax", "weights = count * np.exp(logits - peak(logits)): " + SHIFTED + "right side dropped"): SHIFT,
    ("peak", PEAK + "logits.dtype == object: comparison swapped"): SHIFT,
    ("peak", PEAK + "0: one more"): SHIFT,
    ("infer_logits", VOTES + "u @ u: factors exchanged"): SYMMETRIC,
    ("infer_logits", VOTES + "v @ v: factors exchanged"): SYMMETRIC,
    ("infer_loss", "return np.log1p((R - 1) * np.exp(-2 * lam * (u[:-1] @ v))): "
     "u[:-1] @ v: factors exchanged"): SYMMETRIC,
    ("infer_margin", "m = 2 * lam * (u[:-1] @ v): u[:-1] @ v: factors exchanged"): SYMMETRIC,
}
TRAJECTORY = "error, at = 1e-12 * max(1, times[-1] / 1e8), np.log1p(times): "
EXACT = "the solver's error stays far below what the claim allows"
EQUIVALENT_FLOW = {
    ("trajectory", TRAJECTORY + "1e-12 * max(1, times[-1] / 100000000.0): operator swapped"): EXACT,
    ("trajectory", TRAJECTORY + "1e-12 * max(1, times[-1] / 100000000.0): right side dropped"): EXACT,
    ("trajectory", TRAJECTORY + "1: one more"): EXACT,
    ("trajectory", TRAJECTORY + "100000000.0: one more"): EXACT,
    ("recall_flow", "G[-1] = 2 * lam * (e @ u): e @ u: factors exchanged"): SYMMETRIC,
    ("recall_flow", "return -alpha * (G - alpha @ G): alpha @ G: factors exchanged"): SYMMETRIC,
    ("flow", "partner[0:-1:2], partner[1::2] = v, u[:-1]: 1: one more"):
    "partner[0:-2:2]: of an odd number of entries the same ones",
    ("recall_end_point", "return brentq(end_residual, 0.5, 1.0, (N, R, lam), xtol=4e-16): 1.0: one more"):
    "a wider bracket, the same root",
}

EQUIVALENT_R11 = {
    ("score_factors", "return np.full(2 * n + 1, 1 + 3 / M): 2 * n + 1: left side dropped"):
    "one factor instead of 2n+1 equal ones: it broadcasts",
    ("drift_law", "c_s, c_r = score_factors(n, M, k)[[0, -1]]: 0: one more"): "c_1 = c_0",
}

# A bound that a mutant makes looser still holds: tests/recall/test_samples.py pins these.
TRAP = ("return Trap((R + rest) / (2 * lam * rest * (2 * n + 1)), -2 * n / (2 * n + 1), -(2 * n + 1)): "
        "2 * n: ")
ONE_PAIR = "of the escape, which is timed at n = 1 alone; tests/recall/test_samples.py pins it"
EQUIVALENT_TRAP = {("trap_law", TRAP + "operator swapped"): ONE_PAIR,
                   ("trap_law", TRAP + "right side dropped"): ONE_PAIR}
QUAD = ("return quad(integrand, np.log(start), np.log(end), epsabs=0, epsrel=1e-12, limit=200)[0] / "
        "(2 * lam): ")
EQUIVALENT_TRAP.update({("way_back", QUAD + change): "smooth: no more nodes are needed"
                        for change in ("0: one more", "200: one more")})
RECALL_BOUNDS = ("pairs", "leading_pair", "leader_bounds", "decided_loss", "leader_loss_bound",
                 "context_bounds", "noisy_accuracy", "population_bounds", "second_order")
EQUIVALENT_R20 = {
    ("noisy_loss", "return chance @ np.log1p((R - 1) * np.exp(-2 * lam * right @ (u[:-1] * v))): "
     "chance @ np.log1p((R - 1) * np.exp(-2 * lam * right @ (u[:-1] * v))): factors exchanged"): SYMMETRIC,
}


@pytest.mark.jit
@pytest.mark.parametrize("module, wanted, names, equivalent", [
    (ops, lambda name: name.endswith("_backward"), ("IG", "RG"), EQUIVALENT_OPS),
    (induction.model, lambda name: name == "backward_pass", ("IG",), {}),
    (recall.model, lambda name: name == "backward_pass", ("RG",), {}),
    (associative, lambda name: name == "moments", ("M1", "M2"), {}),
    (induction_logits, lambda name: name not in REFUSALS + BOUNDS, ("I1", "I2", "I3", "I11"), EQUIVALENT_I),
    (limits, lambda name: name not in REFUSALS + BOUNDS, ("I4", "I5"), EQUIVALENT_LIMITS),
    (embeddings, lambda name: name == "gap_constant", ("I12",), EQUIVALENT_GAPS),
    (induction_dynamics, lambda name: name not in REFUSALS, ("I7", "I7b", "I7c", "I7d"), EQUIVALENT_I7),
    (recall_logits, lambda name: name not in REFUSALS, (*SYSTEM_R, "R13"), EQUIVALENT_R),
    (recall_dynamics, lambda name: name not in REFUSALS, (*SYSTEM_R, "R16c"), EQUIVALENT_FLOW),
    (recall_samples, lambda name: name != "recall_floor", ("R11", "R16", "R16a", "R16b", "R16c"),
     EQUIVALENT_R11),
    (recall_convergence, lambda name: name not in REFUSALS + RECALL_BOUNDS, ("R13b", "R18b"),
     EQUIVALENT_TRAP),
    (recall_noise, lambda name: name not in REFUSALS + RECALL_BOUNDS, ("R19b", "R20", "R20b"),
     EQUIVALENT_R20)],
    ids=lambda value: getattr(value, "__name__", None))
def test_every_mutant_of_a_formula_is_caught(monkeypatch, record_property, module, wanted, names, equivalent):
    assert survives(names)      # and all kernels are compiled before they can meet a stand-in
    called = users(monkeypatch, module, names)
    record_property("say", attack(
        monkeypatch, module, wanted,
        lambda function: survives(names if function is None else called.get(function, ())), equivalent))


@pytest.mark.jit
@pytest.mark.parametrize("module", instruments.INSTRUMENTS, ids=lambda module: module.__name__)
def test_every_mutant_of_an_instrument_is_caught(monkeypatch, record_property, module):
    killers, equivalent = instruments.INSTRUMENTS[module]
    for killer in killers:      # without a limit of time: kernels are compiled here
        killer()
    put(monkeypatch, ops, lambda name: True, run(source_of(ops)))       # a compiled one checks no index
    record_property("say", attack(monkeypatch, module, lambda name: True,
                                  lambda function: instruments.survives(killers), equivalent, EVERY))
