"""Enumerations: a part of each range, their controls, and wrong formulas that they must refute."""

import numpy as np
import pytest

from refimpl.claims import enumeration
from refimpl.claims.enumeration import ALL, find, points
from refimpl.recall.theory import logits


@pytest.fixture(autouse=True)
def nothing_remembered():
    enumeration.formula.cache_clear()
    yield
    enumeration.formula.cache_clear()


@pytest.mark.parametrize("name", ALL)
def test_a_part_of_each_range_holds_and_the_control_is_refuted(name):
    count, wrong = find(name, small=True)
    assert count >= 4 and wrong is None
    assert find(name, small=True, control=True)[1] is not None


def test_quadratic_forms_that_agree_at_all_points_agree_everywhere(rng):
    """The forms x_i x_j, i ≤ j, are a basis; their values at the points are a matrix without kernel."""
    for k in range(1, 7):
        values = np.array([[p[i] * p[j] for i in range(k) for j in range(i, k)] for p in points(k)])
        assert values.shape[0] == values.shape[1] and round(abs(np.linalg.det(values))) == 1


def wrong(formula, change):
    """A formula whose body is changed."""
    def changed(*args):
        return change(formula.__wrapped__(*args))
    changed.__wrapped__ = changed
    return changed


PLANTS = {
    "R2 off in the last bit": ("R2", "infer_logits", lambda L: L * (1 + 2.3e-16)),
    "R2 votes once, not twice": ("R2", "infer_logits", lambda L: L - 0.5 * (L - L.min())),
    "R3 another answer": ("R3", "recall_logits", lambda L: L[::-1]),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_wrong_formula_is_refuted(plant, monkeypatch):
    name, formula, change = PLANTS[plant]
    monkeypatch.setattr(enumeration, formula, wrong(getattr(logits, formula), change))
    assert find(name, small=True)[1] is not None


def test_another_moment_or_class_is_refuted(monkeypatch):
    right = enumeration.associative.moments
    monkeypatch.setattr(enumeration.associative, "moments",
                        lambda N, d: right(N, d)._replace(var_cross=right(N, d).var_cross + 1 / d ** 2))
    assert find("M1", small=True)[1] is None and find("M2", small=True)[1] is not None
    classes = enumeration.answer_classes
    monkeypatch.setattr(enumeration, "answer_classes",
                        lambda u, *rest: (classes(u, *rest)[0][::-1], classes(u, *rest)[1]))
    assert find("R4", small=True)[1] is not None


def test_the_counts_are_those_of_all_instances():
    """Counted by hand for N ≤ 3: representations for R1, facts and prompts for R2."""
    factorial = (1, 1, 2, 6)
    assert find("R1", small=True)[0] == sum(
        factorial[N] ** 2 * sum(factorial[N] // factorial[N - R] for R in range(1, N + 1)) for N in (1, 2, 3))
    assert len(enumeration.tables(3, 2, True)) == 6 * 2     # any answers to relation 0, and a shift of 1 or 2
    prompts = enumeration.all_prompts(next(iter(enumeration.tables(3, 2, True))), 1)
    assert len({*map(tuple, prompts.recall()[0])}) == len(prompts.subjects) == 3 * 2 * 2


def test_the_list_says_how_many_and_fails_with_a_counterexample(monkeypatch):
    lines: list = []
    monkeypatch.setattr(enumeration, "ALL", {name: ALL[name] for name in ("R2", "R20")})
    assert enumeration.enumerate_all(lines.append, small=True) == 0
    assert len(lines) == 3 and lines[-1].startswith("2 of 2 claims hold in all of 868 instances")
    monkeypatch.setattr(enumeration, "infer_logits", wrong(logits.infer_logits, lambda L: 2 * L))
    enumeration.formula.cache_clear()
    lines.clear()
    assert enumeration.enumerate_all(lines.append, small=True) == 1
    assert len(lines) == 4 and "counterexample: Facts(" in lines[1]


def test_a_control_without_counterexample_is_reported(monkeypatch):
    lines: list = []
    monkeypatch.setattr(enumeration, "ALL", {"X": ("all", "nothing", lambda small, control: iter(
        [("1", 1, [1], [1])]))})
    assert enumeration.enumerate_all(lines.append) == 1
    assert lines[1] == "     counterexample: the control has none: nothing"
