"""The comparison of one case and what it says, on numbers made by hand."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest

from refimpl.vectors import Report, Vector, conclusion, load
from refimpl.vectors.compare import TOLERANCES, compare_arrays, least_digits
from tests.test_vectors_files import lay

INF, NAN = np.inf, np.nan
ARRAYS = {
    "input.tokens": np.array([0, 1, 2]), "input.mask": np.array([True, False]),
    "input.zero": np.array([0, 0]), "param.w": np.array([0.5, -2.0]),
    "trace.scores1": np.array([[1.0, 0.0], [2.0, -4.0]]), "trace.scores": np.array([1.0, 3.0]),
    "trace.zero": np.zeros(2), "trace.logits": np.array([0.5, -0.5]),
    "loss": np.array(0.0), "grad.w": np.array([1e-3, -2e-3]), "grad.zero": np.zeros(2),
    "sgd1.param.w": np.array([0.5, -2.0]), "sgd1.param.zero": np.zeros(2),
    "sgd1.momentum.w": np.array([1e-3, -3e-3]), "sgd1.momentum.zero": np.zeros(2)}
OURS = Vector({"model": "m", "case": "c"}, ARRAYS)
OUTPUTS = tuple(name for name in ARRAYS if not name.startswith(("input", "param")))
GIVEN = "other inputs or parameters than those that were given"
HEAD = "m/c" + 36 * " "
ROUNDED = "float32 precision only (passes with --precision float32)"


def compared(precision="float64", ours=OURS, problems=(), **theirs):
    """The report on our arrays, of which some are these; a name's dots are underlines here."""
    changed = {name.replace("_", "."): np.asarray(array) for name, array in theirs.items()}
    return compare_arrays(ours, {**ours.arrays, **changed}, precision, problems)


# Errors

def test_equal_arrays_pass_whatever_their_types():
    line = f"{HEAD}passed   15 arrays, worst 0.0e+00 (input.tokens)"
    for types in ({}, {"input_tokens": np.arange(3, dtype=np.int8), "trace_zero": np.zeros(2, ">f4")},
                  {"input_tokens": np.arange(3, dtype=np.uint64)}):
        report = compared(**types)
        assert report.passed and str(report) == line and report.checked == len(ARRAYS) and not report.missing


@pytest.mark.parametrize("name, change, error", [
    ("param.w", [1e-6, 0.0], 5e-7), ("param.w", [0.0, -3e-6], 1.5e-6),
    ("trace.scores1", [[0.0, 0.0], [0.0, 0.4]], 0.1), ("trace.zero", [0.0, 1e-9], 1e-7),
    ("loss", -1e-9, 1e-7), ("grad.w", [0.0, 1e-6], 5e-4), ("grad.zero", [1e-9, 0.0], 5e-5),
    ("sgd1.param.w", [1e-9, 0.0], 5e-10), ("sgd1.param.zero", [1e-9, 0.0], 5e-8),
    ("sgd1.momentum.zero", [1e-9, 0.0], 1e-9 / 3e-5), ("sgd1.momentum.w", [1e-9, 0.0], 1e-9 / 3e-3)])
def test_an_error_counts_against_the_largest_number_or_a_floor(name, change, error):
    """Which is 0.01 of traces; of the loss 0.01 of the largest logit, if that is > 1; else of the group."""
    report = compare_arrays(OURS, {**ARRAYS, name: ARRAYS[name] + change}, "bfloat16")
    assert f"worst {error:.1e} ({name})" in str(report) and report.passed


def test_a_loss_counts_against_the_largest_logit():
    large = Vector(OURS.manifest, {**ARRAYS, "trace.logits": np.array([3.0, -8.0])})
    assert "worst 5.0e-08 (loss)" in str(compared("float32", large, loss=4e-9))


def test_an_error_of_exactly_the_tolerance_passes():
    one = Vector(OURS.manifest, {**ARRAYS, "trace.x": np.array([0.0, 1.0])})
    for precision, allowed in TOLERANCES.items():
        report = compared(precision, one, trace_x=[allowed["trace"], 1.0])
        assert report.passed and f"worst {allowed['trace']:.1e} (trace.x)" in str(report)
    assert not compared("bfloat16", input_zero=[0, 1]).passed


def test_what_departs_is_told_of_the_first_and_counted():
    report = compared(param_w=[0.5, -2.0001], input_tokens=[0, 4, 2], input_zero=[1, 0])
    assert report.departing == ("input.tokens", "input.zero", "param.w") and not report.problems
    assert report.diagnosis == GIVEN and not report.passed and str(report).split("\n") == [
        f"{HEAD}FAILED   15 arrays, worst 1.0e+02 (input.zero)",
        "    first departs: input.tokens at [1], 4, expected 1",
        "    error 1.5e+00, allowed 0e+00; 3 of 15 arrays depart", f"    looks like: {GIVEN}"]


def test_another_shape_is_an_infinite_error_at_no_place():
    report = compared(param_w=[0.5, -2.0, 0.0])
    assert report.departing == ("param.w",) and str(report).split("\n")[1:3] == [
        "    first departs: param.w, shape (3,), expected (2,)",
        "    error inf, allowed 1e-14; 1 of 15 arrays depart"]


# What is not compared

@pytest.mark.parametrize("name, array, message", [
    ("loss", np.float16(0), "dtype float16, expected float64 or float32"),
    ("loss", np.complex64(0), "dtype complex64, expected float64 or float32"),
    ("loss", np.complex128(0), "dtype complex128, expected float64 or float32"),
    ("loss", np.int64(0), "dtype int64, expected float64 or float32"),
    ("input.tokens", np.arange(3.0), "dtype float64, expected integers"),
    ("input.tokens", np.arange(3) > 0, "dtype bool, expected integers"),
    ("input.mask", np.int64([1, 0]), "dtype int64, expected bool"),
    ("grad.x", 0.0, "no such array")])
def test_arrays_of_another_type_or_name_are_problems(name, array, message):
    report = compare_arrays(OURS, {**ARRAYS, name: np.asarray(array)}, "float64", ["said before"])
    assert report.problems == ["said before", f"{name}: {message}"] and not report.departing
    assert not report.passed and report.checked == len(ARRAYS) - (name in ARRAYS)


def test_outputs_that_are_not_there_are_listed():
    given = {name: a for name, a in ARRAYS.items() if name not in ("loss", "param.w", "grad.w")}
    report = compare_arrays(OURS, given, "float64")
    assert report.passed and report.missing == ("loss", "grad.w") and report.checked == len(given)


@pytest.mark.parametrize("names", [[], ["input.tokens"], ["input.mask", "param.w"]])
def test_inputs_alone_are_a_problem_unless_there_is_another(names):
    given = {name: ARRAYS[name] for name in names}
    report = compare_arrays(OURS, given, "float64")
    assert report.problems == ["nothing but inputs to compare: expected some of trace.*, loss, grad.*, "
                               "sgd1.param.*, sgd1.momentum.*"]
    assert report.missing == OUTPUTS and not report.passed
    assert str(report).startswith(f"{HEAD}FAILED    {len(names)} arrays" + (
        f", worst 0.0e+00 ({names[0]}), 11 not there: " if names else ", 11 not there: "))
    assert compare_arrays(OURS, given, "float64", ["unreadable"]).problems == ["unreadable"]
    assert compare_arrays(OURS, {**given, "loss": ARRAYS["loss"]}, "float64").passed


# What it looks like, as far as no equation is asked

@pytest.mark.parametrize("theirs, words", [
    (dict(input_tokens=np.int32([0, 1, 1])), GIVEN), (dict(input_mask=[True, True]), GIVEN),
    (dict(param_w=[0.5, -2.0 - 1e-9]), GIVEN), (dict(param_w=np.float32([0.5, -2.0001])), GIVEN),
    (dict(trace_zero=np.float32([0, 1e-9])), ROUNDED), (dict(loss=np.float32(1e-9)), ROUNDED),
    (dict(trace_scores1=[[1.0, -INF], [2.0, -4.0]]),
     "not finite: 1 of 4 entries, all above the diagonal, where 0 is expected"),
    (dict(trace_scores1=[[1.0, -INF], [2.0, NAN]]), "not finite: 2 of 4 entries"),
    (dict(trace_scores=[1.0, INF]), "not finite: 1 of 2 entries"),
    (dict(loss=NAN), "not finite: 1 of 1 entries"),
    # Of what is within float32's tolerance and what is beyond it the latter is told.
    (dict(param_w=[0.5, -2.0 - 1e-9], grad_w=[NAN, 1.0]), "not finite: 1 of 2 entries")])
def test_inputs_rounding_and_what_is_not_finite_are_named(theirs, words):
    report = compared(**theirs)
    assert report.diagnosis == words and not report.passed


def test_parameters_rounded_to_float32_are_no_other_inputs():
    """Rounding of parameters to float32 is no other input."""
    third = Vector(OURS.manifest, {**ARRAYS, "param.w": np.array([1 / 3, 1.0])})
    assert compared(ours=third, param_w=np.float32([1 / 3, 1.0])).diagnosis == ROUNDED
    assert compared("float32", third, param_w=np.float32([1 / 3, 1.0])).passed


# What a report says

def failed(*looks):
    """The report on a case in which the loss departs, for which there are these names."""
    return Report("m/c", [], departing=("loss",), looks=looks)


def test_a_report_passes_without_problems_and_departing_arrays():
    passed = Report("m/c", [])
    assert passed.passed and not failed().passed
    assert not passed._replace(problems=["one"]).passed and not failed()._replace(problems=["one"]).passed


@pytest.mark.parametrize("names, words", [
    (1, "1"), (2, "1 or 2"), (3, "1 or 2 or 3"), (4, "1 or 2 or 3 or 1 more"), (6, "1 or 2 or 3 or 3 more")])
def test_a_diagnosis_has_three_names_for_each_mistake(names, words):
    alike = tuple(str(i) for i in range(1, names + 1))
    assert failed(alike).diagnosis == words and failed(alike, ("x",)).diagnosis == f"{words}; x"
    assert failed().diagnosis is None


@pytest.mark.parametrize("count", [0, 10, 11, 13])
def test_a_report_shows_ten_problems_and_what_departs(count):
    problems = [f"p{i}\r" for i in range(count)]
    lines = str(compared(problems=problems, param_w=[0.5, 2.0])).split("\n")
    more = [f"    and {count - 10} more"] if count > 10 else []
    assert lines[1:-3] == [f"    p{i}\\r" for i in range(min(count, 10))] + more
    assert lines[-3] == "    first departs: param.w at [1], 2, expected -2"


def test_a_report_says_what_is_not_there():
    assert str(compare_arrays(OURS, {"loss": ARRAYS["loss"]}, "float64")) == (
        f"{HEAD}passed    1 arrays, worst 0.0e+00 (loss), "
        "10 not there: trace.*, grad.*, sgd1.param.*, sgd1.momentum.*")
    given = {name: a for name, a in ARRAYS.items() if name != "loss"}
    assert str(compare_arrays(OURS, given, "float64")).endswith("(input.tokens), 1 not there: loss")


def test_a_report_in_json_says_null_where_a_number_is_not_finite():
    found = compared(param_w=[0.5, -2.0, 0.0]).as_json()
    assert found == {
        "name": "m/c", "problems": [], "checked": 15, "missing": (), "departing": ("param.w",), "worst": None,
        "worst_name": "param.w", "error": None, "where": None, "detail": "shape (3,), expected (2,)",
        "allowed": 1e-14, "diagnosis": GIVEN, "passed": False,
        "digits": {"array": "trace.scores1", "yours": 16.0}}
    found = compare_arrays(OURS, {}, "float64").as_json()
    assert found["worst"] == found["error"] == 0 and found["worst_name"] is None


def test_digits_are_those_of_the_worst_output_and_of_what_the_manifest_names():
    said = {"reference": {"grad": 14.1, "loss": 15.0}, "float32": {"loss": 6.5}}
    known = Vector({**OURS.manifest, "digits": said}, ARRAYS)
    for size, digits in ((3e-9, 5.8), (1.0, 0.0), (NAN, 0.0)):
        found = compared(ours=known, grad_w=ARRAYS["grad.w"] + [0, size], param_w=[0.5, 9.0]).digits
        assert found == {"array": "grad.w", "yours": digits, "reference": 14.1}
    assert compared(ours=known, param_w=[0.5, 9.0]).digits == {"array": "trace.scores1", "yours": 16.0}
    assert compared(ours=known, loss=1e-9, param_w=[0.5, 9.0]).digits == {
        "array": "loss", "yours": 7.0, "reference": 15.0, "float32": 6.5}
    assert compare_arrays(OURS, {"param.w": ARRAYS["param.w"]}, "float64").digits == {}


def test_least_digits_are_those_of_the_worst_array_of_each_group_of_outputs():
    others = {**ARRAYS, "grad.w": ARRAYS["grad.w"] + [0, 2e-9], "grad.zero": np.array([2e-12, 0]),
              "loss": np.array(1e-8), "param.w": np.zeros(2)}
    assert least_digits(ARRAYS, others) == {"trace": 16.0, "loss": 6.0, "grad": 6.0, "sgd1": 16.0}


# Over all cases

def test_the_conclusion_counts_the_names_that_most_failures_share():
    good, unknown = Report("m/c", []), failed(("unknown (from loss on)",))
    assert conclusion([good, good]) == "2 of 2 cases passed"
    assert conclusion([good, unknown, Report("m/c", ["x"])]) == "1 of 3 cases passed; 1 unknown"
    four = failed(("a", "b", "c", "d"))
    assert conclusion([four, unknown, four, unknown, good]) == (
        "1 of 5 cases passed; 2 of 4 failures look like: a or b or c; 2 unknown")
    assert conclusion([failed((name,)) for name in "aaaabbbcc"]) == (
        "0 of 9 cases passed; 4 of 9 failures look like: a; 3 of 9 failures look like: b; "
        "2 of 9 failures look like: c")
    assert "like: d" not in conclusion([failed((name,)) for name in "aaaabbbccd"])


def test_the_conclusion_says_how_many_were_left_out():
    assert conclusion([Report("m/c", [])] * 2, 1) == "2 of 2 cases passed; 1 left out"
    assert conclusion([failed(("unknown",))], 3) == "0 of 1 cases passed; 1 unknown; 3 left out"


def test_the_conclusion_counts_what_fewer_failures_share():
    named = [failed((name,)) for name in "aaaabbbcc"]
    assert conclusion([*named, failed(("d",))]).endswith(": c; 1 like something else")
    several = failed(("a",), ("e",), ("f",), ("unknown",))
    assert conclusion([*named, several]).endswith(": c; 2 like something else; 1 unknown")


# What it looks like to those who ask the equations

@functools.cache
def small():
    """The small case of recall."""
    with tempfile.TemporaryDirectory() as place:
        return load(lay(Path(place)), "recall", "small")


def said(precision="float64", dtype=float, **theirs):
    """What an answer of four arrays looks like, which is right but for these functions of them."""
    answer = {}
    for name in ("trace.hidden", "trace.y", "trace.logits", "loss"):
        change = theirs.get(name.removeprefix("trace."), lambda array: array)
        answer[name] = change(small().arrays[name].astype(dtype))
    return compare_arrays(small(), answer, precision).diagnosis


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_mistake_is_named_in_both_precisions(dtype):
    for precision in ("float64", "float32"):
        assert said(precision, dtype, y=np.negative) == "negated (in trace.y)"


def test_a_mistake_is_named_whatever_else_is_not_finite_or_rounded():
    assert said(y=np.negative, loss=lambda a: a * NAN) == "negated (in trace.y)"
    assert said(y=np.negative, loss=lambda a: a * (1 + 1e-9)) == "negated (in trace.y)"


def test_a_mistake_too_small_for_float32_is_named_in_float64():
    nearly = dict(hidden=lambda a: a * (1 + 3e-9), y=lambda a: a * (1 + 2e-9))
    assert said(**nearly) == "constant factor 1 (in trace.hidden); constant factor 1 (in trace.y)"
    assert said("float32", **nearly) is None


def test_what_no_equation_explains_is_unknown_or_rounding():
    for dtype in (np.float64, np.float32):
        assert said(dtype=dtype, y=lambda a: a + dtype([0.5, 0.0])) == "unknown (from trace.y on)"
    assert said(y=lambda a: a + [1e-9, 0.0]) == ROUNDED


def test_an_error_of_exactly_the_tolerance_of_float32_is_rounding():
    one = Vector(small().manifest, {**small().arrays, "trace.y": np.array([0.0, 1.0])})
    allowed = TOLERANCES["float32"]["trace"]
    for error, words in ((allowed, ROUNDED), (1.01 * allowed, "unknown (from trace.y on)")):
        assert compare_arrays(one, {"trace.y": np.array([error, 1.0])}, "float64").diagnosis == words
