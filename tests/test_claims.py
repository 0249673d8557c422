"""Every claim as a property, and the audit itself: it must catch what is wrong."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl import claims
from refimpl.claims import claim
from tests import strategies

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune"
BUILTIN = {c.id: c for c in claims.builtin()}


def instances(space):
    """A hypothesis strategy for the instances of a space."""
    def values(low_high):
        if isinstance(low_high[0], int):
            return st.integers(*low_high)
        return st.floats(*low_high) if isinstance(low_high[0], float) else st.sampled_from(low_high)
    return st.fixed_dictionaries({**{n: values(v) for n, v in space.items()}, "seed": strategies.seeds})


@pytest.mark.parametrize("id", BUILTIN)
def test_claim_holds(id):
    # A trend is a statement about many instances: as often as the audit tries it.
    @settings(max_examples=20 if BUILTIN[id].exact else min(BUILTIN[id].cases, 5))
    @given(instances(BUILTIN[id].space))
    def holds(instance):
        outcome = claims.evaluate(BUILTIN[id], instance, TEXT)
        assert outcome.error <= BUILTIN[id].tolerance, outcome.message
    holds()


@pytest.mark.parametrize("id", BUILTIN)
def test_claim_passes_its_audit_and_its_control_fails(id):
    result = claims.audit(BUILTIN[id], TEXT, cases=min(8, BUILTIN[id].cases), seed=1)
    assert result.passed and result.control_failed, result


@pytest.mark.parametrize("id", BUILTIN)
def test_claim_is_described(id):
    c = BUILTIN[id]
    assert len(c.statement) <= 60 and c.source and c.control and c.reason and c.check.__doc__
    assert len(c.derivation.__doc__) > 60


def test_ids_are_distinct_and_complete():
    assert len(BUILTIN) == len(claims.builtin())
    wanted = ["M1", "M2", "M3", *(f"I{k}" for k in range(1, 10)), "I11", *(f"R{k}" for k in range(1, 11)),
              "R14", "IG", "RG"]
    assert set(wanted) <= set(BUILTIN)


def example(**changes):
    """A claim on sums of squares, true as it stands; the control has one term less."""
    arguments = {**dict(source="school", provenance="derived", control="one term less", n=(1, 50)),
                 **changes}

    @claim("X1", "squares add up", **arguments)
    def squares(case, n):
        """Σ_{i≤n} i² = n (n+1) (2n+1) / 6, by induction."""
        numbers = np.arange(1, n + (0 if case.control else 1))
        return n * (n + 1) * (2 * n + 1) / 6, float(np.sum(numbers ** 2))
    return squares


def wrong(check, **changes):
    """The same claim with another check."""
    return example(**changes)._replace(check=check)


def test_true_claim_passes():
    result = claims.audit(example(), TEXT)
    assert result.passed and result.worst == 0 and result.controls_failed == result.controls == 10


def test_false_claim_fails_with_its_smallest_instance():
    result = claims.audit(wrong(lambda case, n: (n, n + (n >= 7))), TEXT)
    assert not result.passed and result.failure == {"n": 7, "seed": 0}


def test_shrinking_works_on_reals_and_choices():
    check = lambda case, x, kind: (1, 1 + (x > 2.25) * (kind != "a"))     # noqa: E731
    result = claims.audit(wrong(check, n=(1, 1))._replace(space={"x": (0.0, 9.0), "kind": ("a", "b", "c")}),
                          TEXT)
    assert result.failure["kind"] == "b" and 2.25 < result.failure["x"] <= 2.4


def test_control_that_passes_fails_the_claim():
    result = claims.audit(wrong(lambda case, n: (n, n)), TEXT)
    assert result.failure is None and not result.control_failed and not result.passed


def test_control_that_raises_has_shown_nothing():
    def check(case, n):
        if case.control:
            raise RuntimeError("broken control")
        return n, n
    result = claims.audit(wrong(check), TEXT)
    assert not result.control_failed and "broken control" in result.control_message


@pytest.mark.parametrize("returned, message", [
    ((1.0, math.nan), "finite"), ((1.0, math.inf), "finite"), ((np.ones(2), np.ones(3)), "equal shapes"),
    (((1, 1), 1), "as many parts"), (1.0, "TypeError"), ((1, 1, 1, 1), "TypeError"), (("a", "b"), "numbers")])
def test_results_that_are_no_numbers_fail_the_claim(returned, message):
    result = claims.audit(wrong(lambda case, n: returned), TEXT, cases=3)
    assert result.failure is not None and message in result.message
    entry = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert entry["worst"] is None and entry["passed"] is False


def test_claim_that_raises_is_reported():
    result = claims.audit(wrong(lambda case, n: 1 / 0), TEXT, cases=2)
    assert not result.passed and result.message == "ZeroDivisionError: division by zero"


def test_asymptotic_claim_counts_in_units_of_what_it_allows():
    inexact = wrong(lambda case, n: (np.ones(2), np.ones(2) + [0.1, -0.2], 0.4), kind="limit")
    outcome = claims.evaluate(inexact, {"n": 1, "seed": 0}, TEXT)
    assert outcome.error == pytest.approx(0.5) and inexact.tolerance == 1
    assert not claims.fails(inexact, outcome)


def test_same_seed_draws_the_same_instances_whatever_else_runs():
    seen = []
    check = lambda case, n: (seen.append((n, case.rng.random())), (n, n))[1]     # noqa: E731
    for _ in range(2):
        claims.audit(wrong(check), TEXT, cases=4, seed=5)
    assert seen[:8] == seen[8:]


def test_instances_start_with_both_ends():
    assert [claims.draw({"n": (2, 9), "k": ("a", "b")}, np.random.default_rng(0), i)["n"]
            for i in range(2)] == [2, 9]


@pytest.mark.parametrize("changes", [dict(provenance="guess"), dict(n=(5, 1)), dict(n=(1, 2.0)),
                                     dict(n=3), dict(n=()), dict(n=("a", 1))])
def test_bad_declarations_are_refused(changes):
    with pytest.raises(ValueError):
        example(**changes)


def test_load_collects_the_claims_of_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    assert [c.id for c in claims.load(path)] == ["X1", "X2"]


MINE = '''
from refimpl.claims import claim

def square(x):
    return x * x

@claim("X1", "squares of sums", source="school", provenance="derived", control="no cross term",
       x=(0.5, 9.0), y=(0.5, 9.0))
def binomial(case, x, y):
    return square(x) + (0 if case.control else 2 * x * y) + square(y), square(x + y)

@claim("X2", "squares of sums, subtly wrong", source="school", provenance="derived",
       control="no cross term", n=(0, 40))
def wrong(case, n):
    return (0 if case.control else n * n + 2 * n) + 1, (n + 1) ** 2 + (n > 11)
'''


@pytest.mark.parametrize("content, message", [
    ("def f(:", "SyntaxError"), ("x = 1", "got none"), ("1 / 0", "ZeroDivisionError"),
    (MINE.replace("X2", "X1"), "distinct ids")])
def test_files_that_hold_no_claims_are_refused(tmp_path, content, message):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        claims.load(path)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="FileNotFoundError"):
        claims.load(tmp_path / "none.py")
