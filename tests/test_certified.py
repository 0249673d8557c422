"""The stored vectors and both models' passes against enclosures: proofs about instances, not measurements.

Needs python-flint, the extra [digits]; without it these tests say so and are skipped.
"""

import gc
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from refimpl import ops, vectors
from refimpl.induction import model as induction_model
from refimpl.recall import model as recall_model
from refimpl.vectors import cases
from refimpl.vectors.compare import group, least_digits

flint = pytest.importorskip("flint", reason="needs python-flint: pip install 'refimpl[digits]'")
from flint import arb, ctx  # noqa: E402 (flint is optional)

from tests import oracle    # noqa: E402 (it needs flint)

STORED = Path(__file__).parent / "vectors"
# Long sequences take 15 s each: with REFIMPL_LONG=1 only, as in .ci/run.
NAMES = [pytest.param(v.name, marks=pytest.mark.skipif(
    v.case.model == "induction" and v.case.tokens.shape[1] > 32 and "REFIMPL_LONG" not in os.environ,
    reason="takes long; set REFIMPL_LONG=1")) for v in vectors.read(STORED)]
MODELS = {"induction": induction_model, "recall": recall_model}
# Digits of the reference itself, as the checker counts them, a little below the measured ones: trace 14.6,
# loss 15.4, grad and sgd1 14.3, sgd3 13.2, where gradients of attention cancel.
KNOWN = {"trace": 14.3, "loss": 15.0, "grad": 13.9, "sgd1": 13.9, "sgd3": 12.8}
WIDEST, NEAREST = 1e-40, 0.5 + 1e-9     # radius; units in the last place


@pytest.fixture(autouse=True)
def many_bits():
    """Differences of balls are taken with as many bits as the balls have.

    A tape has no cycles: to look for them among a million numbers takes longer than to make it.
    """
    gc.disable()
    with ctx.workprec(oracle.PRECISION):
        yield
    gc.enable()


@pytest.fixture
def plain(monkeypatch):
    """The kernels as plain Python, which takes numbers of any kind."""
    kernels = {name: f.py_func for name, f in vars(ops).items() if hasattr(f, "py_func")}
    for name, f in kernels.items():
        monkeypatch.setattr(ops, name, f)
    monkeypatch.setattr(recall_model, "ACTIVATIONS", {
        "square": (ops.square_forward, ops.square_backward), "relu": (ops.relu_forward, ops.relu_backward)})


def load(name):
    return vectors.load(STORED, *name.split("/"))


@cache
def enclosures_of(name):
    return oracle.enclosures(load(name).case)


def distances(arrays, enclosures):
    """How far each entry is from its ball at most, in units of its last place, for each array."""
    return {name: oracle.distance(array, enclosures[name]) for name, array in arrays.items()}


# What is stored

@pytest.mark.parametrize("name", NAMES)
def test_every_stored_number_is_the_double_next_to_the_true_one(name):
    """Where balls are too wide to tell, as of numbers that all but vanish, more bits are taken."""
    vector, enclosures = load(name), enclosures_of(name)
    assert {*enclosures} == {name for name in vector.arrays if group(name) not in ("input", "param")}
    stored = {name: vector.arrays[name] for name in enclosures}
    assert all(ball.rad() <= WIDEST for balls in enclosures.values() for ball in balls.ravel())
    open_ones = {name for name, far in distances(stored, enclosures).items() if not (far <= NEAREST).all()}
    if open_ones:
        with ctx.workprec(oracle.HIGHEST):
            exact = oracle.enclosures(vector.case, oracle.HIGHEST)
            assert all((oracle.distance(stored[name], exact[name]) <= NEAREST).all() for name in open_ones)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_has_as_many_digits_as_is_said(name):
    vector = load(name)
    least = least_digits(vector.arrays, cases.arrays(vector.case))
    assert least.keys() == KNOWN.keys() and min(vector.manifest["digits"]["float32"].values()) < 8
    for digits in least, vector.manifest["digits"]["reference"]:
        assert all(digits[group] >= known for group, known in KNOWN.items()), digits


@pytest.mark.parametrize("name", ["induction/causal", "recall/relu-at-zero", "recall/repeated-tokens"])
def test_one_entry_moved_by_two_units_in_the_last_place_leaves_its_ball(name, rng):
    """Correctly rounded, every number is within half a unit of its ball. Moved by two, it is not."""
    case = load(name).case
    arrays = oracle.rounded(case)
    with ctx.workprec(oracle.HIGHEST):
        enclosures = oracle.enclosures(case, oracle.HIGHEST)
        assert all((far <= 0.5).all() for far in distances(arrays, enclosures).values())
        for name, array in arrays.items():
            moved = array.copy()
            where = tuple(rng.integers(0, size) for size in array.shape)
            moved[where] += rng.choice([-2, 2]) * np.spacing(np.abs(moved[where]))
            far = oracle.distance(moved, enclosures[name])
            assert (far > 0.5).sum() == 1 and far[where] > 0.5


# Both passes of both models

def passes(case):
    """Trace of the first sequence, loss and gradients by the reference's own passes, on balls."""
    model, p = MODELS[case.model], case.params._make(oracle.exact(w) for w in case.params)
    start, stop = case.setting.get("slot") or (0, len(p.E))
    setting = case.setting.get("encoding") or case.setting["activation"]
    grads, loss, first = [oracle.exact(np.zeros(w.shape)) for w in p], arb(0), None
    for z, label in zip(case.tokens, case.labels):
        if case.model == "induction":
            z, target, weight = z[:-1], z[1:], oracle.exact(label) / int(case.labels.sum())
        else:
            target, weight = np.array([label]), oracle.exact(np.ones(1)) / len(case.labels)
        trace, *kept = model.forward_pass(p, z, setting)
        first = first or trace
        logits = np.reshape(trace.logits, (len(target), -1))
        loss += weight @ ops.cross_entropy_forward(logits, target, start, stop)
        dlogits = ops.cross_entropy_backward(logits, target, start, stop, weight).reshape(trace.logits.shape)
        grads = [a + b for a, b in zip(grads, model.backward_pass(p, z, setting, trace, *kept, dlogits))]
    return {**{f"trace.{name}": a for name, a in first._asdict().items()}, "loss": np.array(loss),
            **{f"grad.{name}": a for name, a in p._make(grads)._asdict().items()}}


def differences(ours, theirs):
    """The balls ours − theirs, all entries in one row."""
    return [a - b for a, b in zip(np.ravel(ours), np.ravel(theirs))]


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward_pass_agree_with_the_tape_to_40_digits(name, plain):
    """Each difference contains 0 and is at most 1e-40 wide, coordinate by coordinate."""
    enclosures, found = enclosures_of(name), passes(load(name).case)
    assert {*found} == {name for name in enclosures if not name.startswith("sgd")}
    for name, array in found.items():
        gaps = differences(array, enclosures[name])
        assert len(gaps) == enclosures[name].size
        assert all(gap == 0 or gap.contains(0) and 2 * gap.rad() <= WIDEST for gap in gaps), name


MISTAKES = {
    "a factor of 1 + 1e-16": lambda g: g._replace(WK1=g.WK1 * (1 + arb("1e-16"))),
    "one entry off by 1e-30": lambda g: g._replace(WV=g.WV + 1e-30 * np.eye(len(g.WV))),
    "transposed": lambda g: g._replace(WK2=g.WK2.T),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_gradient_wrong_in_the_16th_digit_is_certainly_wrong(mistake, plain, monkeypatch):
    """Control: some difference excludes 0, where float64 sees nothing."""
    case, right = load("induction/causal").case, induction_model.backward_pass
    monkeypatch.setattr(induction_model, "backward_pass", lambda *args: MISTAKES[mistake](right(*args)))
    enclosures, found = oracle.enclosures(case), passes(case)
    wrong = {name for name in found if not all(gap == 0 or gap.contains(0) for gap in
                                               differences(found[name], enclosures[name]))}
    assert len(wrong) == 1 and wrong < {"grad.WK1", "grad.WV", "grad.WK2"}


# The tape

def test_the_tape_differentiates_every_operation():
    """At a point whose derivatives are known by hand; a number that is used twice adds up both uses."""
    x, y = (oracle.Number(arb(value)) for value in (2, 3))
    root = (x * y - x / y + (x - y).exp() + y.log1p() * y).relu()
    oracle.backpropagate(root)
    expected = {x: 3 - 1 / arb(3) + arb(-1).exp(),
                y: 2 + arb(2) / 9 - arb(-1).exp() + arb(4).log() + arb(3) / 4}
    for number, derivative in expected.items():
        assert (number.grad - derivative).contains(0) and (number.grad - derivative).rad() < 1e-70


def test_relu_has_derivative_0_at_0_and_does_not_guess_a_sign():
    for value, derivative in ((arb(0), 0), (arb(-1), 0), (arb("1e-300"), 1)):
        x = oracle.Number(value)
        oracle.backpropagate(x.relu())
        assert x.grad == derivative
    with pytest.raises(ArithmeticError, match="its sign is not known at 256 bits"):
        oracle.Number(arb(0, 1e-60)).relu()


def test_double_rounds_to_nearest_ties_to_even():
    for numerator, exponent, expected in ((2 ** 53 + 1, 0, 2.0 ** 53), (2 ** 53 + 3, 0, 2.0 ** 53 + 4),
                                          (3, -1075, 2 * 2.0 ** -1074), (1, -1075, 0.0), (-5, 3, -40.0)):
        assert oracle.double(arb(numerator) * arb(2) ** exponent) == expected
