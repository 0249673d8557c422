"""The audit of a claim: it catches what is wrong, and is not fooled into passing."""

import json
import math
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest

from refimpl import claims
from refimpl.claims import claim
from tests.claims.examples import MINE, TEXT, example, wrong


def test_true_claim_passes():
    result = claims.audit(example(), TEXT)
    assert result.passed and result.worst == 0 and result.controls_failed == result.controls == 10
    assert result.instances == result.numbers == 25 and result.failure is result.control_passed is None


def test_false_claim_fails_with_its_smallest_instance():
    result = claims.audit(wrong(lambda case, n: (n, n + (n >= 7))), TEXT)
    assert not result.passed and result.failure == {"n": 7, "seed": 0}


def test_shrinking_works_on_reals_and_choices():
    check = lambda case, x, kind: (1, 1 + (x > 2.25) * (kind != "a"))     # noqa: E731
    space = {"x": (0.0, 9.0), "kind": ("a", "b", "c")}
    result = claims.audit(wrong(check)._replace(space=space, control_space=space), TEXT)
    assert result.failure["kind"] == "b" and 2.25 < result.failure["x"] <= 2.4


def test_shrinking_halves_and_ends():
    """It goes by halves, then by ones; where ones take long it stops after its 300 evaluations."""
    seen: list = []
    bound = 1000

    def check(case, n, kind):
        seen.append(n)
        return n, n + (n > bound)
    big = wrong(check)._replace(space={"n": (0, 2 ** 20), "kind": ("a", "b")})
    largest = {"n": 2 ** 20, "kind": "b", "seed": 5}
    assert claims.shrink(big, largest, TEXT) == {"n": 1001, "kind": "a", "seed": 0} and len(seen) < 120
    seen.clear()
    bound = 600000
    assert bound < claims.shrink(big, largest, TEXT)["n"] < 2 ** 20 and len(seen) == 300
    seen.clear()
    x = wrong(lambda case, x: (seen.append(x), (1.0, 1.0 + (x > 3)))[1])._replace(space={"x": (0.0, 1e6)})
    assert 3 < claims.shrink(x, {"x": 987654.3, "seed": 0}, TEXT)["x"] <= 3.1 and len(seen) < 120


@pytest.mark.parametrize("values, value, simpler", [
    ((3, 50), 22, [3, 12, 21]), ((3, 50), 3, []), ((1.0, 9.0), 7.33, [1.0, 4.165, 7.0, 6.33, 7.2]),
    ((1.0, 9.0), 1.0, []), (("a", "b", "c"), "c", ["a", "b"])])
def test_shrinking_tries_what_is_simpler_than_the_value(values, value, simpler):
    """Lower end, middle, one less; of reals the integer below and one decimal less, too."""
    seen: list = []

    def check(case, n):
        seen.append(n)
        return 1, 1 + (n == value)
    claims.shrink(wrong(check)._replace(space={"n": values}), {"n": value, "seed": 0}, TEXT)
    assert seen == pytest.approx(simpler) if isinstance(value, float) else seen == simpler


def test_one_instance_and_one_control_are_enough():
    result = claims.audit(example(), TEXT, cases=1)
    assert result.passed and result.control_failed and result.controls == 1 and 0 <= result.seconds < 60


@pytest.mark.parametrize("broken, message", [
    (lambda n: (n, n), ""), (lambda n: (n, n) if n == 50 else (n, n + 1), ""),
    (lambda n: (math.nan, math.nan), "finite"), (lambda n: (1.0, math.nan), "finite"),
    (lambda n: (1.0, math.inf), "finite"), (lambda n: (np.ones(3), np.ones((7, 3))), "equal shapes"),
    (lambda n: ((1, 1), 2), "as many parts"), (lambda n: (np.ones(0), np.ones(0)), "at least one number"),
    (lambda n: None, "NoneType"), (lambda n: 1 / 0, "ZeroDivisionError"), (lambda n: exit(0), "SystemExit")])
def test_controls_that_do_not_fail_finitely_fail_the_claim(broken, message):
    result = claims.audit(wrong(lambda case, n: broken(n) if case.control else (n, n)), TEXT)
    assert result.failure is None and not result.control_failed and not result.passed
    assert result.controls_failed < result.controls == 10
    assert message in result.control_message and set(result.control_passed) == {"n", "seed"}


def test_a_control_that_raises_in_one_instance_of_ten_fails_the_claim():
    def check(case, n):
        if case.control and n == 50:
            raise RuntimeError("nothing to break")
        return n, n + case.control
    result = claims.audit(wrong(check), TEXT)
    assert 0 < result.controls_failed < 10 and not result.passed
    assert result.control_passed["n"] == 50 and "nothing to break" in result.control_message


@pytest.mark.parametrize("returned", [(1.0, math.nan), (math.nan, math.nan), None, ((1, 1), 1)])
def test_results_that_are_no_numbers_fail_the_claim_and_are_null_in_json(returned):
    result = claims.audit(wrong(lambda case, n: returned), TEXT, cases=3)
    assert result.failure is not None and result.message and result.numbers == 0
    entry = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert entry["worst"] is None and entry["passed"] is False


def test_results_without_instances_do_not_pass_and_times_are_rounded():
    result = claims.audit(example(), TEXT, cases=2)
    assert result.passed and not result._replace(instances=0).passed
    assert result._replace(seconds=1.23456).as_json()["seconds"] == 1.235


def test_claim_that_raises_is_reported():
    result = claims.audit(wrong(lambda case, n: 1 / 0), TEXT, cases=2)
    assert not result.passed and result.message == "ZeroDivisionError: division by zero"


def test_an_inequality_reports_its_smallest_margin_and_where():
    check = lambda case, n: (n, 50) if not case.control else (n, 0)     # noqa: E731
    result = claims.audit(wrong(check, kind="inequality", n=(1, 49)), TEXT)
    assert result.passed and result.margin == pytest.approx(1 / 50) and result.margin_at["n"] == 49
    assert result.worst == 0 and result.as_json()["margin_at"] == result.margin_at


def test_a_limit_reports_what_no_instance_rejects():
    def check(case, n):
        return 2.0, 2.0 + (99 if case.control else 0.1 * (n == 50)), 0.5
    result = claims.audit(wrong(check, kind="limit"), TEXT)
    assert result.passed and result.accepted[0] == pytest.approx((-0.4, 0.5))
    # What it says is so: predictions that are that far off are rejected, nearer ones are not.
    for off, fails in ((-0.41, True), (-0.39, False), (0.49, False), (0.51, True)):
        moved = wrong(lambda case, n: (2.0 + off, *check(case, n)[1:]), kind="limit")
        assert (claims.audit(moved, TEXT).failure is not None) == fails


def test_degenerate_draws_are_not_drawn_for_controls():
    check = lambda case, n: (0.0, float(case.control and n > 1))     # noqa: E731
    assert not claims.audit(wrong(check), TEXT).passed
    assert claims.audit(wrong(check, control_space=dict(n=(2, 50))), TEXT).passed


def test_a_given_instance_in_which_nothing_can_break_has_no_control():
    check = lambda case, n: (0.0, float(case.control and n > 1))     # noqa: E731
    narrow = wrong(check, control_space=dict(n=(2, 50)))
    result = claims.audit(narrow, TEXT, instance={"n": 1, "seed": 0})
    assert result.passed and result.controls == 0 and not result.control_failed
    assert claims.audit(narrow, TEXT, instance={"n": 2, "seed": 0}).controls_failed == 1
    assert not claims.audit(wrong(check), TEXT, instance={"n": 1, "seed": 0}).passed


@pytest.mark.parametrize("arguments", [
    dict(cases=0), dict(cases=-3), dict(cases=1.5), dict(cases=math.nan), dict(cases="many"), dict(seed=-1),
    dict(seed=0.5), dict(seed=2 ** 63), dict(instance={}), dict(instance={"n": 3}),
    dict(instance={"seed": 3}),
    dict(instance={"n": 3.0, "seed": 0}), dict(instance={"n": 51, "seed": 0}),
    dict(instance={"n": True, "seed": 0}), dict(instance={"n": math.nan, "seed": 0}),
    dict(instance={"n": 3, "seed": -1}), dict(instance={"n": 3, "seed": 0, "m": 1})])
def test_arguments_that_mean_nothing_are_refused(arguments):
    with pytest.raises(ValueError, match="instance|cases|seed"):
        claims.audit(example(), TEXT, **arguments)


def recording(seen):
    """A true claim that records its instances and first random numbers."""
    def check(case, n):
        seen.append((case.control, n, case.rng.random()))
        return n, n + case.control
    return wrong(check)


def test_the_seed_decides_what_is_drawn_whatever_else_runs():
    seen: list = []
    for seed in (5, 5, 6):
        claims.audit(recording(seen), TEXT, cases=4, seed=seed)
        claims.audit(example(), TEXT, cases=1, seed=1)
    first, again, other = seen[:8], seen[8:16], seen[16:]
    assert first == again and not {x for *_, x in first} & {x for *_, x in other}
    assert len({x for *_, x in first}) == 8 and [control for control, *_ in first] == [False] * 4 + [True] * 4


def test_claims_of_other_ids_draw_other_instances():
    seen: list = []
    for id in ("X1", "X2"):
        claims.audit(recording(seen)._replace(id=id), TEXT, cases=4)
    assert not {x for *_, x in seen[:8]} & {x for *_, x in seen[8:]}


def counting(kind, seen):
    """A true claim that records whether it is to take its time."""
    result = (1.0,) if kind == "limit" else ()

    @claim("X", "x", source="", provenance="derived", control="", kind=kind, cases=3, n=(1, 9))
    def check(case, n):
        seen.append((case.control, case.full))
        return (0.0, -float(case.control) * 9, *result)
    return check


@pytest.mark.parametrize("kind, instances", [("exact", 30), ("inequality", 30), ("limit", 3)])
def test_full_multiplies_the_instances_of_claims_without_a_limit(kind, instances):
    seen: list = []
    result = claims.audit(counting(kind, seen), "", full=True)
    assert result.passed and result.instances == instances == sum(not control for control, _ in seen)
    assert all(full for _, full in seen)
    assert claims.audit(counting(kind, seen), "").instances == 3 and seen[-1] == (True, False)
    assert claims.audit(counting(kind, seen), "", cases=2, full=True).instances == 2


def test_trends_are_not_shrunk_with_full():
    seen = []

    @claim("X", "x", source="", provenance="derived", control="", kind="limit", cases=1, n=(1, 9))
    def false(case, n):
        seen.append(n)
        return 0.0, 9.0, 1.0
    result = claims.audit(false, "", full=True)
    assert not result.passed and result.failure["n"] == 1 and len(seen) <= 3


def test_only_what_was_drawn_is_shrunk():
    """Claims without a limit with `full`, too, and limits without it."""
    false = wrong(lambda case, n: (0.0, 1.0 + n), n=(3, 50))
    assert claims.audit(false, TEXT, instance={"n": 50, "seed": 7}).failure == {"n": 50, "seed": 7}
    limit = wrong(lambda case, n: (0.0, 1.0 + n, 1.0), kind="limit", n=(3, 50))
    for wide, full in ((false, False), (false, True), (limit, False)):
        assert claims.audit(wide, TEXT, cases=1, full=full).failure == {"n": 3, "seed": 0}


def test_progress_counts_instances_and_controls():
    seen: list = []
    claims.audit(example(), TEXT, cases=3, progress=lambda *done: seen.append(done))
    assert seen == [(k, 6) for k in range(1, 7)]


def but_seconds(results):
    """JSON of results without their times."""
    return json.dumps([{**result.as_json(), "seconds": None} for result in results])


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return claims.load(path)


BUILTIN = {c.id: c for c in claims.builtin()}


def test_any_executor_gives_the_same_result(mine):
    chosen = [*mine, BUILTIN["R1"]]
    serial = [claims.audit(c, TEXT, cases=6) for c in chosen]
    with ThreadPoolExecutor(2) as threads:
        assert but_seconds(claims.audit(c, TEXT, cases=6, executor=threads) for c in chosen) == (
            but_seconds(serial))
        many = claims.audit(mine[0], TEXT, cases=1000, executor=threads)
    assert but_seconds([many]) == but_seconds([claims.audit(mine[0], TEXT, cases=1000)])


class Inline(Executor):
    """An executor that runs everything at once."""

    def submit(self, function, /, *args, **kwargs):
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


@pytest.mark.parametrize("cases, step", [(3, 1), (600, 2)])
def test_an_executor_gets_few_instances_one_by_one_and_many_in_chunks(cases, step):
    seen: list = []
    claim = wrong(lambda case, n: (n, n + (n == 50) + case.control))
    result = claims.audit(claim, TEXT, cases, progress=lambda *done: seen.append(done), executor=Inline())
    total = cases + min(cases, 10)
    assert seen == [(done, total) for done in range(step, total + 1, step)]
    assert but_seconds([result]) == but_seconds([claims.audit(claim, TEXT, cases)])


def test_a_cluster_gives_the_same_result(mine):
    distributed = pytest.importorskip("distributed")
    chosen = [*mine, BUILTIN["I3"]]
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, \
            distributed.Client(cluster) as client:
        executor = client.get_executor()
        found = [claims.audit(c, TEXT, cases=6, executor=executor) for c in chosen]
    assert but_seconds(found) == but_seconds(claims.audit(c, TEXT, cases=6) for c in chosen)


def test_errors_of_the_machine_come_back_from_an_executor():
    def check(case, n):
        raise OSError(28, "no room")
    with ThreadPoolExecutor(2) as threads, pytest.raises(OSError, match="no room"):
        claims.audit(wrong(check), TEXT, executor=threads)
