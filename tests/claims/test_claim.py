"""Declarations of claims: what is refused, how instances are drawn, and where claims are found again."""

import copy
import pickle
from collections import Counter

import numpy as np
import pytest

from refimpl import claims
from refimpl.claims.claim import find
from tests.claims.examples import MINE, TEXT, example, wrong


def test_instances_start_with_both_ends():
    space = {"n": (2, 9), "x": (0.5, 1.5), "kind": ("a", "b", "c")}
    low, high = (claims.draw(space, np.random.default_rng(0), i) for i in range(2))
    assert [low[name] for name in space] == [2, 0.5, "a"] and [high[name] for name in space] == [9, 1.5, "c"]


def shares(values, n=8000):
    """How often each value comes up: of so many names of a third instance, which all have this range."""
    space = {f"x{i}": values for i in range(n)}
    instance = claims.draw(space, np.random.default_rng(1), 2)
    return {value: count / n for value, count in Counter(instance[name] for name in space).items()}


def test_a_quarter_of_all_values_are_ends_and_the_rest_uniform():
    x = shares((0.0, 1.0))
    assert abs(x[0] - 1 / 8) < 0.01 and abs(x[1] - 1 / 8) < 0.01 and abs(x[0] + x[1] - 1 / 4) < 0.014
    inner = np.array([value for value in x if 0 < value < 1])
    assert abs(inner.mean() - 0.5) < 0.02 and abs(inner.var() - 1 / 12) < 0.005


@pytest.mark.parametrize("values, drawn", [((5, 7), (5, 6, 7)), (("a", "b", "c"), ("a", "b", "c"))])
def test_integers_and_strings_are_drawn_alike(values, drawn):
    """Each of three a quarter of the time, and each of the two ends an eighth more."""
    found = shares(values)
    assert sorted(found) == sorted(drawn)
    assert [found[value] for value in drawn] == pytest.approx([3 / 8, 1 / 4, 3 / 8], abs=0.02)


def test_seeds_are_drawn_below_two_to_the_31():
    rng = np.random.default_rng(1)
    seeds = [claims.draw({}, rng, i)["seed"] for i in range(4000)]
    assert len(set(seeds)) > 3990 and 2 ** 30 < max(seeds) < 2 ** 31


def test_a_range_may_be_one_value_and_strings_may_be_one():
    only = example(n=(3, 3))
    assert shares(only.space["n"], 99) == {3: 1} and shares(("only",), 99) == {"only": 1}
    assert claims.covers({"kind": ("only",)}, {"kind": "only", "seed": 0})
    with pytest.raises(ValueError, match="two ints"):
        example(n=(0, 2 ** 63))


def test_what_is_drawn_lies_in_its_space():
    space = {"n": (-3, 9), "x": (-0.5, 2.0), "kind": ("a", "b", "c")}
    drawn = [claims.draw(space, np.random.default_rng(i), i) for i in range(200)]
    assert all(claims.covers(space, instance) for instance in drawn)
    assert {instance["n"] for instance in drawn} == set(range(-3, 10))


def test_misfits_are_what_is_missing_and_what_is_out_of_range():
    space = {"n": (1, 5), "x": (0.5, 2.0), "kind": ("a", "b")}
    assert claims.misfits(space, {}) == {**space, "seed": claims.SEEDS}
    assert claims.misfits(space, {"n": 1, "x": 2.0, "kind": "b", "seed": 0}) == {}
    assert claims.misfits(space, {"n": 6, "x": 2, "kind": "c", "seed": -1}) == {**space, "seed": claims.SEEDS}
    assert claims.misfits(space, {"n": 5, "x": 0.4, "kind": "a"}) == {"x": (0.5, 2.0), "seed": claims.SEEDS}


def test_tolerance_and_derivation_are_those_given_or_the_usual():
    claim = example()
    assert claim.tolerance == 1e-12 and claim.derivation is claim.check and claim.exact
    assert example(tolerance=1e-3).tolerance == 1e-3 and example(tolerance=0).tolerance == 0
    limit = example(kind="limit", derivation=str)
    assert limit.tolerance == 1.0 and limit.derivation is str and not limit.exact


def test_a_rotation_is_orthogonal_and_drawn_by_the_seed():
    first, again, other = (claims.Case(np.random.default_rng(seed), False, TEXT).rotation(4)
                           for seed in (1, 1, 2))
    assert np.allclose(first @ first.T, np.eye(4), rtol=0, atol=1e-14)
    assert (first == again).all() and not np.allclose(first, other)


INFINITE, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("changes, message", [
    (dict(provenance="guess"), "provenance"), (dict(kind="trend"), "kind"), (dict(n=(5, 1)), "n: expected"),
    (dict(n=(1, 2.0)), "n: expected"), (dict(n=3), "n: expected"), (dict(n=()), "n: expected"),
    (dict(n=("a", 1)), "n: expected"), (dict(n=("a", "a")), "n: expected"), (dict(n=[1, 2]), "n: expected"),
    (dict(n=(0.0, INFINITE)), "two finite floats"), (dict(n=(-INFINITE, 0.0)), "two finite floats"),
    (dict(n=(NAN, 1.0)), "two finite floats"), (dict(n=(0.0, NAN)), "two finite floats"),
    (dict(n=(-1.7e308, 1.7e308)), "two finite floats"), (dict(n=(0, 2 ** 64)), "n: expected"),
    (dict(n=(True, False)), "n: expected"),
    (dict(cases=-3), "cases: expected an integer at least 1"), (dict(cases=0), "cases"),
    (dict(cases=2.5), "cases"), (dict(cases=True), "cases"),
    (dict(tolerance=INFINITE), "tolerance: expected a finite"), (dict(tolerance=NAN), "tolerance"),
    (dict(tolerance=-1e-12), "tolerance"), (dict(tolerance="small"), "tolerance"),
    (dict(kind="limit", tolerance=1e9), "tolerance: expected none for a limit"),
    (dict(control_space=dict(m=(1, 2))), "control_space"),
    (dict(control_space=dict(n=(0, 5))), "control_space"),
    (dict(control_space=dict(n=(1.0, 5.0))), "control_space"), (dict(control_space=[1]), "control_space"),
    (dict(seed=(1, 2)), "other than case and seed"), (dict(case=(1, 2)), "other than case and seed"),
    (dict(source=None), "source"), (dict(control="two\nlines"), "printable"),
    (dict(parts=("one", 2)), "parts"), (dict(parts="one"), "parts")])
def test_bad_declarations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        example(**changes)


def test_control_space_narrows_the_control_alone():
    seen = []
    check = lambda case, n: (seen.append((case.control, n)), (n, n + case.control))[1]     # noqa: E731
    assert claims.audit(example(control_space=dict(n=(40, 50)))._replace(check=check), TEXT).passed
    assert min(n for control, n in seen if control) == 40
    assert min(n for control, n in seen if not control) == 1


def test_load_collects_the_claims_of_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    assert [c.id for c in claims.load(path)] == ["X1", "X2"]


@pytest.mark.parametrize("content, message", [
    ("def f(:", "SyntaxError"), ("x = 1", "got none"), ("1 / 0", "ZeroDivisionError"),
    ("import sys; sys.exit(0)", "SystemExit: 0"), ("raise BaseException('stop')", "BaseException: stop"),
    ("raise GeneratorExit", "GeneratorExit"), ("raise OSError(28, 'full')", "full"),
    ("class E(Exception):\n    def __str__(self):\n        raise SystemExit(0)\nraise E", "E, whose message"),
    ("raise ValueError('\\x1b[2J')", r"\\x1b\[2J"), (MINE.replace("X2", "X1"), "distinct ids")])
def test_files_that_hold_no_claims_are_refused(tmp_path, content, message):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        claims.load(path)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="FileNotFoundError"):
        claims.load(tmp_path / "none.py")


def test_an_interrupt_while_a_file_loads_is_one(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        claims.load(path)


def test_claims_of_a_file_pickle_by_the_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    first, _ = claims.load(path)
    assert pickle.loads(pickle.dumps(first)) is first


def test_claims_are_found_where_they_are_from(tmp_path):
    """A file of one claim, one of two, a module; copy.copy asks for the same as pickle."""
    for name, content in (("one", MINE.partition('@claim("X2"')[0]), ("two", MINE)):
        (tmp_path / name).with_suffix(".py").write_text(content)
        for claim in claims.load(tmp_path / f"{name}.py"):
            assert copy.copy(claim) is claim
    for claim in claims.builtin():
        assert copy.copy(claim) is claim


def test_claims_are_found_where_no_file_was_loaded_before(tmp_path):
    """As in another process."""
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    found = find(str(path), "X2")
    assert found.id == "X2" and find(str(path), "X2") is found
    assert find(str(path), "X3") is find("tests.claims.examples", "X1") is find(None, "X1") is None


@pytest.mark.parametrize("lost", [example(), wrong(lambda case, n: (n, n))])
def test_claims_that_no_process_could_load_do_not_pickle(lost):
    with pytest.raises(pickle.PicklingError, match="claim X1"):
        pickle.dumps(lost)
