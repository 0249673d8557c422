"""What the checker calls the mistakes of a port: a table of planted ones, and what it must not call them."""

import io
from contextlib import redirect_stdout

import numpy as np
import pytest

from refimpl import vectors
from refimpl.gradcheck import relative_error
from refimpl.__main__ import main
from refimpl.vectors import cases, equations, files, mistakes
from refimpl.vectors.compare import compare_arrays
from refimpl.vectors.diagnose import Memory
from tests import planted
from tests.port import port, steps
from tests.test_vectors import STORED, said

pytestmark = pytest.mark.jit    # hundreds of runs


@pytest.fixture(scope="module")
def stored():
    return {vector.name: vector for vector in vectors.read(STORED)}


def answers():
    """Yield the name of each planted mistake, its case, how to answer, and what a right name contains."""
    for name, (case, wrong, words) in planted.STRUCTURE.items():
        yield name, case, lambda case, wrong=wrong: port(case, wrong), words
    for name, (case, loss, words) in planted.LOSS.items():
        yield name, case, lambda case, loss=loss: port(case, loss=loss), words
    for name, (case, how, words) in planted.STEPS.items():
        yield name, case, lambda case, how=how: {**port(case), **steps(case, **how)}, words
    for name, (case, grads, words) in planted.GRADS.items():
        yield name, case, lambda case, grads=grads: port(case, grads=grads), words


ANSWERS = {name: rest for name, *rest in answers()}


def verdict(report, words):
    """Whether a mistake was named rightly, was said to be unknown, was named wrongly, or was not detected."""
    if report.passed:
        return "not detected"
    if all(alike[0].startswith("unknown") for alike in report.looks):
        return "unknown"
    words = (words,) if isinstance(words, str) else words
    return "right" if words and all(any(part in name for alike in report.looks for name in alike)
                                    for part in words) and len(report.looks) == len(words) else "wrong"


@pytest.mark.parametrize("traces", [True, False], ids=["traces", "logits alone"])
def test_planted_mistakes_are_detected_and_never_named_wrongly(stored, traces):
    """The table: printed by `python -m pytest -s`, one row for each planted mistake."""
    table, every = {}, 1 if traces else 2       # the search without traces takes longer: every other one
    for name, (case, answer, words) in list(ANSWERS.items())[::every]:
        arrays = answer(stored[case].case)
        arrays = {k: a for k, a in arrays.items()
                  if traces or not k.startswith("trace") or k == "trace.logits"}
        report = compare_arrays(stored[case], arrays, "float64")
        table[name] = verdict(report, words)
        print(f"{table[name]:12} {name}: {report.diagnosis}")
    count = {outcome: list(table.values()).count(outcome)
             for outcome in ("right", "unknown", "wrong", "not detected")}
    print(count)
    assert len(ANSWERS) >= 100 and len(planted.STRUCTURE) >= 60
    assert count["not detected"] == count["wrong"] == 0
    assert count["right"] >= (0.85 if traces else 0.6) * len(table)
    assert all(table[name] == "unknown" for name in table if ANSWERS[name][2] is None)


def test_the_ports_without_a_mistake_pass(stored):
    """Controls: the port of the tests, and the equations that mistakes are planted into."""
    for name, vector in stored.items():
        if "long" not in name and "constructed" not in name:
            vectors.compare(vector, {**port(vector.case), **(steps(vector.case) if "recall" in name else {})})
        ours = {k: a for k, a in vector.arrays.items() if not k.startswith(("input", "param"))}
        arrays = equations.run(vector.case)
        assert arrays.keys() == ours.keys()
        vectors.compare(vector, arrays)


def test_gradients_of_the_tape_are_those_of_complex_steps(stored):
    """Of mistaken models too, which have no reference."""
    for name in ("y with relu", "blocks", "LayerNorm"):
        case = stored["induction/random-relative"].case
        found = {"y with relu": "ReLU feed-forward", "blocks": "blocks that do not rescale",
                 "LayerNorm": "final normalisation"}[name]
        wrong = planted.STRUCTURE[found][1]
        words = {"y with relu": "y = x2 + relu(WF x2), not x2 + WF x2",
                 "blocks": "blocks of 4 keys that do not rescale their sums",
                 "LayerNorm": "logits = U LayerNorm(y), not U y"}[name]
        edit, = [edit for edit in mistakes.catalogue(case) if edit.words == words]
        theirs, ours = port(case, wrong), equations.run(case, [edit], "grad")
        for key in theirs:
            if name != "blocks" or not key.startswith("grad"):      # a running maximum has a gradient there
                assert relative_error(ours[key], theirs[key]) < 1e-12


def test_blocks_that_do_not_rescale_are_caught_by_the_stored_set(stored):
    """Of every size up to 128 keys, whatever is not rescaled, and in float32, too."""
    for size in mistakes.BLOCKS:
        for what in ("their sums", "their values", "their total"):
            words = f"blocks of {size} keys that do not rescale {what}"
            for model in ("induction", "recall"):
                assert any(not compare_quickly(vector, arrays) for vector in stored.values()
                           if vector.name.startswith(model) and "long" in vector.name
                           for arrays in mistakes.planted(words, vector.case)), (words, model)


def compare_quickly(vector, arrays):
    """Whether all arrays are within tolerance, without a diagnosis."""
    floors = files.floors_of(vector.arrays)
    allowed = files.TOLERANCES["float32"]
    return all(files.gap(vector.arrays[name], a, floors[name])[0] <= allowed[files.group(name)]
               for name, a in arrays.items())


# What is not named

@pytest.mark.parametrize("given", [["loss"], ["loss", "input.tokens"]])
def test_a_scalar_loss_alone_names_nothing(stored, given):
    vector = stored["induction/causal"]
    wrong = {**vector.arrays, **port(vector.case, planted.STRUCTURE["residual of layer 2 missing"][1])}
    assert said(vector, {name: wrong[name] for name in given}).endswith("looks like: unknown (from loss on)")
    assert said(vector, {"loss": vector.arrays["loss"] / 2}).endswith("looks like: unknown (from loss on)")


def test_what_nobody_knows_is_said_so(stored):
    vector = stored["induction/causal"]
    x2 = vector.arrays["trace.x2"]
    message = said(vector, {"trace.x2": x2 + np.where(np.indices(x2.shape).sum(0) == 5, 0.5, 0)})
    assert message.endswith("looks like: unknown (from trace.x2 on)")
    assert "1 of 1 arrays depart" in message and "first departs: trace.x2 at [" in message


def test_what_is_named_and_what_is_not_stand_side_by_side(stored):
    """One equation is named, another one is not: both are said."""
    vector = stored["induction/causal"]
    wrong = port(vector.case, {"h2": lambda s: s.attention2 @ s.x0, "y": lambda s: s.x2 + np.sin(s.x2.real)})
    message = said(vector, wrong)
    assert "looks like: h2 = A2 x0, not A2 x1; unknown (from trace.y on)" in message


def test_scores_of_minus_infinity_above_the_diagonal_are_explained(stored):
    vector = stored["induction/causal"]
    scores = np.where(np.tri(8, dtype=bool), vector.arrays["trace.scores1"], -np.inf)
    message = said(vector, {"trace.scores1": scores})
    assert "28 of 64 entries, all above the diagonal, where 0 is expected" in message


# Over all cases

def folder(tmp_path, stored, answer, names):
    """Answers to these cases."""
    for name in names:
        (tmp_path / "v1" / name).mkdir(parents=True)
        np.savez(tmp_path / "v1" / name / "arrays.npz", **answer(stored[name].case))
    return tmp_path


def test_the_headline_names_what_the_cases_share(stored, tmp_path):
    """Where one case has several explanations, that of the others is taken."""
    names = ["induction/one-position", "induction/one-sequence", "induction/several-sequences"]
    wrong = planted.STRUCTURE["residual of layer 1 missing"][1]
    theirs = folder(tmp_path, stored, lambda case: port(case, wrong), names)
    alone = compare_arrays(stored[names[0]], port(stored[names[0]].case, wrong), "float64", memory=Memory())
    reports = vectors.check_folder(STORED, theirs, only="induction/*-*s*")
    by_name = {report.name: report for report in reports}
    assert by_name[names[0]].diagnosis == "x1 = Phi h1, not x0 + Phi h1" and alone.looks[0]
    line = vectors.conclusion([by_name[name] for name in names])
    assert line == "0 of 3 cases passed; 3 of 3 failures look like: x1 = Phi h1, not x0 + Phi h1"


def test_the_headline_counts_what_is_unknown(stored, tmp_path):
    names = ["induction/causal", "induction/random-relative", "induction/random-absolute"]

    def answer(case):
        if case.name == "causal":
            return port(case, planted.STRUCTURE["WO and WV exchanged"][1])
        return {"trace.x2": cases.arrays(case, "trace.x2")["trace.x2"] + np.arange(7) ** 2 % 5}

    theirs = folder(tmp_path, stored, answer, names)
    output = io.StringIO()
    with redirect_stdout(output):
        assert main(["vectors", "check", str(STORED), str(theirs), "--only", "induction/*ndom-*"]) == 1
        assert main(["vectors", "check", str(STORED), str(theirs), "--only", "induction/causal"]) == 1
    first, second = [line for line in output.getvalue().splitlines() if "cases passed" in line]
    assert first == "0 of 2 cases passed; 2 unknown; 56 left out"
    assert second == ("0 of 1 cases passed; 1 of 1 failures look like: "
                      "x2 = x1 + WV WO h2, not x1 + WO WV h2; 57 left out")
