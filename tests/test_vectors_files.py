"""Vectors folders, of two small cases: written whole, read as listed, and refused in one line."""

import ctypes
import functools
import io
import json
import os
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from refimpl import vectors
from refimpl.vectors import cases, files

INDUCTION, RECALL = "induction/small", "recall/small"


@functools.cache
def drawn(model, seed=1):
    """One small case."""
    sizes = {"induction": dict(V=2, d=2, T=2, B=1), "recall": dict(N=3, R=2, n=1, d=2, dp=2, m=2, B=1)}
    return cases.yours(model, seed, **sizes[model])._replace(name="small")


@functools.cache
def content():
    """The files of a vectors folder of both: {path: bytes}."""
    with tempfile.TemporaryDirectory() as place:
        vectors.write(place, [drawn("induction"), drawn("recall")])
        return {path.relative_to(place): path.read_bytes() for path in Path(place).rglob("*")
                if path.is_file()}


def lay(folder, *names):
    """Lay these files there, by default all; return the folder."""
    for path, each in content().items():
        if not names or path.as_posix() in names:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(each)
    return folder


def sign(folder):
    """Write SHA256SUMS anew: what was changed before is taken for intended."""
    paths = sorted(path for path in (folder / "v1").glob("*/*/*"))
    lines = [f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder / 'v1').as_posix()}\n"
             for path in paths]
    (folder / "v1" / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def pair(place, *names):
    """A vectors folder, and a port's folder with right answers to it, or with these files of them."""
    return lay(place / "V"), lay(place / "theirs", *(names or (f"v1/{name}/arrays.npz"
                                                               for name in (INDUCTION, RECALL))))


def held(folder):
    """The seed of each case of a folder, which must be whole."""
    return {vector.name: vector.manifest["seed"] for vector in vectors.read(folder)}


def refusal(folder, model="recall"):
    """What `load` says of a case that it refuses."""
    with pytest.raises(ValueError) as error:
        vectors.load(folder, model, "small")
    return str(error.value)


# Written

def test_write_counts_what_it_writes_and_what_is_read_is_what_was_drawn(tmp_path):
    count, size = vectors.write(tmp_path / "V", iter([drawn("induction"), drawn("recall", 7)]))
    written = {path.relative_to(tmp_path / "V" / "v1").as_posix(): path.read_bytes()
               for path in (tmp_path / "V").rglob("*") if path.is_file()}
    assert count == 2 and size == sum(map(len, written.values())) - len(written["SHA256SUMS"])
    assert sorted(written) == ["SHA256SUMS", *(f"{name}/{file}" for name in (INDUCTION, RECALL)
                                               for file in ("arrays.npz", "manifest.json"))]
    assert held(tmp_path / "V") == {INDUCTION: 1, RECALL: 7}
    for vector, case in zip(vectors.read(tmp_path / "V"), (drawn("induction"), drawn("recall", 7))):
        arrays = cases.arrays(case)
        assert list(vector.arrays) == list(arrays)
        assert all((vector.arrays[name] == arrays[name]).all() for name in arrays)


def test_write_without_cases_writes_those_of_the_project(tmp_path):
    with patch.object(cases, "all_cases", lambda: iter([drawn("recall")])):
        assert vectors.write(tmp_path)[0] == 1
    assert held(tmp_path) == {RECALL: 1}


class Library:
    """In place of the C library: it exchanges two folders, or says that it cannot."""

    def __init__(self, can):
        self.can, self.calls = can, []

    def renameat2(self, *arguments):
        self.calls.append(arguments)
        new, old = arguments[1::2]
        if self.can:
            for source, target in ((new, new + b"-"), (old, new), (new + b"-", old)):
                os.rename(source, target)
        return 0 if self.can else -1


def test_sets_are_exchanged_in_one_step_where_the_system_can(tmp_path):
    """By renameat2(AT_FDCWD, new, AT_FDCWD, old, RENAME_EXCHANGE) of Linux."""
    library = Library(True)
    with patch.object(ctypes, "CDLL", lambda name: library):
        vectors.write(lay(tmp_path), [drawn("recall", 7)])
    (here, new, there, old, how), = library.calls
    assert (here, there, how) == (-100, -100, 2) and os.fsdecode(old) == str(tmp_path / "v1")
    assert held(tmp_path) == {RECALL: 7} and os.listdir(tmp_path) == ["v1"]


@pytest.mark.parametrize("library", [Library(False), object()], ids=["refuses", "has no such function"])
def test_sets_are_exchanged_by_two_renames_where_the_system_cannot(tmp_path, library):
    with patch.object(ctypes, "CDLL", lambda name: library):
        vectors.write(lay(tmp_path), [drawn("recall", 7)])
    assert held(tmp_path) == {RECALL: 7} and os.listdir(tmp_path) == ["v1"]


def failing():
    """Cases, the second of which cannot be drawn."""
    yield drawn("recall", 7)
    raise EOFError("no more")


def test_a_write_that_fails_leaves_what_was_there_before(tmp_path):
    (tmp_path / "new").mkdir()
    for folder, before in ((tmp_path / "new", []), (lay(tmp_path / "V"), ["v1"])):
        with pytest.raises(EOFError, match="no more"):
            vectors.write(folder, failing())
        assert os.listdir(folder) == before
    assert held(tmp_path / "V") == {INDUCTION: 1, RECALL: 1}


def test_an_old_set_that_a_killed_write_had_moved_away_is_put_back(tmp_path):
    work = lay(tmp_path) / ".writing-x"
    (work / "new").mkdir(parents=True)
    (tmp_path / "v1").rename(work / "old")
    with pytest.raises(EOFError):
        vectors.write(tmp_path, failing())
    assert held(tmp_path) == {INDUCTION: 1, RECALL: 1} and os.listdir(tmp_path) == ["v1"]


@pytest.mark.parametrize("left", [["new"], ["new", "old"], []])
def test_what_a_killed_write_had_left_is_removed(tmp_path, left):
    (lay(tmp_path) / ".writing-x").mkdir()
    for name in left:
        (tmp_path / ".writing-x" / name).mkdir()
    vectors.write(tmp_path, [drawn("recall", 7)])
    assert held(tmp_path) == {RECALL: 7} and os.listdir(tmp_path) == ["v1"]


@pytest.mark.parametrize("stray", ["v1/notes.txt", "v1/recall/notes.txt", "notes.txt", ".writing-y/notes",
                                   "v1/a/b/c.npz", "v1/recall/small/x/arrays.npz"])
def test_write_leaves_folders_alone_in_which_there_is_anything_else(tmp_path, stray):
    lay(tmp_path)
    (tmp_path / stray).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / stray).write_text("mine")
    with pytest.raises(ValueError, match="nothing was written"):
        vectors.write(tmp_path, [drawn("recall", 7)])
    assert (tmp_path / stray).read_text() == "mine" and held(tmp_path) == {INDUCTION: 1, RECALL: 1}


def test_write_leaves_a_folder_alone_that_is_no_vectors_folder(tmp_path):
    """A port's answers, which have no manifests, and a file."""
    answers = lay(tmp_path / "theirs", f"v1/{RECALL}/arrays.npz")
    for place in (answers, answers / "v1" / RECALL / "arrays.npz"):
        with pytest.raises(ValueError, match="nothing was written"):
            vectors.write(place, [drawn("recall", 7)])
    assert os.listdir(answers / "v1" / RECALL) == ["arrays.npz"]


# Read

def rewritten(place, model="recall", **changes):
    """A vectors folder with a changed manifest, which its list knows."""
    file = lay(place) / "v1" / model / "small" / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}))
    sign(place)
    return place


@pytest.mark.parametrize("model, changes, words", [
    ("recall", dict(schema=2), "expected schema 1, got 2"), ("recall", dict(case="b"), "model and case"),
    ("recall", dict(setting={"activation": "tanh", "slot": None}), "activation: expected one of square"),
    ("recall", dict(setting={"encoding": "relative"}), "'activation'"),
    ("recall", dict(setting={"activation": "relu", "slot": [-1, 3]}), "sizes: expected an integer at"),
    ("recall", dict(setting={"activation": "relu", "slot": [0, 2.5]}), "sizes: expected an integer, got 2.5"),
    ("induction", dict(setting={"encoding": "rotary"}), "encoding: expected one of relative, absolute"),
    ("induction", dict(setting={"activation": "relu", "slot": None}), "'encoding'"),
    ("induction", dict(seed="x"), "seed: expected int, got")])
def test_manifests_are_refused_by_what_is_wrong_with_them(tmp_path, model, changes, words):
    message = refusal(rewritten(tmp_path, model, **changes), model)
    assert message.startswith("manifest.json: ") and words in message


@pytest.mark.parametrize("slot", [None, [0, 9], [6, 8]])
def test_a_slot_is_two_sizes_or_the_whole_vocabulary(tmp_path, slot):
    setting = {"activation": "relu", "slot": slot}
    assert vectors.load(rewritten(tmp_path, setting=setting), "recall", "small").case.setting == setting


@pytest.mark.parametrize("words", ["[]", "3", "null", '"schema"'])
def test_a_manifest_that_is_no_object_is_refused(tmp_path, words):
    (lay(tmp_path) / "v1" / RECALL / "manifest.json").write_text(words)
    sign(tmp_path)
    assert refusal(tmp_path).startswith("manifest.json: ")


@pytest.mark.parametrize("more, words", [(0, "not the arrays of the manifest"),
                                         (1, "too short for the arrays of the manifest")])
def test_a_manifest_may_ask_for_eight_times_the_bytes_of_the_archive(tmp_path, more, words):
    """A number, of 8 bytes, for each byte that is there: compression has bounds."""
    vector = vectors.load(lay(tmp_path), "recall", "small")
    others = sum(a.size for name, a in vector.arrays.items() if name != "loss")
    there = (tmp_path / "v1" / RECALL / "arrays.npz").stat().st_size
    loss = {"shape": [there - others + more], "dtype": "float64"}
    arrays = {**vector.manifest["arrays"], "loss": loss}
    assert refusal(rewritten(tmp_path, arrays=arrays)) == f"arrays.npz: {words}"


def test_a_list_names_each_file_with_its_digest(tmp_path):
    """Lines in another order are the same list; a digest of another file is not this one's."""
    lines = (lay(tmp_path) / "v1" / "SHA256SUMS").read_text().splitlines()
    (tmp_path / "v1" / "SHA256SUMS").write_text("\n".join(lines[::-1]))
    assert held(tmp_path) == {RECALL: 1, INDUCTION: 1}
    digests = [line[:64] for line in lines]
    (tmp_path / "v1" / "SHA256SUMS").write_text(
        "".join(f"{digest}{line[64:]}\n" for digest, line in zip(digests[::-1], lines)))
    assert refusal(tmp_path) == "manifest.json: its SHA-256 is not that of SHA256SUMS (truncated or changed)"


# Held against a port's

@pytest.mark.parametrize("only, names", [
    (None, [INDUCTION, RECALL]), ("induction/*", [INDUCTION]), ("*small", [INDUCTION, RECALL])])
def test_right_answers_pass_and_a_pattern_chooses(tmp_path, only, names):
    reports = vectors.check_folder(*pair(tmp_path), only=only)
    assert [report.name for report in reports] == names and all(report.passed for report in reports)


def test_a_pattern_that_no_case_matches_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got 'induction/x', which none of 2 does"):
        vectors.check_folder(*pair(tmp_path), only="induction/x")


def test_a_model_chooses_its_cases(tmp_path):
    folders = pair(tmp_path)
    for only in (None, "*small"):
        report, = vectors.check_folder(*folders, model="recall", only=only)
        assert report.name == RECALL and report.passed
    with pytest.raises(ValueError, match="got 'induction/[*]', which none of 2 does"):
        vectors.check_folder(*folders, model="recall", only="induction/*")


def test_what_is_in_no_list_is_reported_by_its_folder(tmp_path):
    folders = pair(tmp_path)
    for place, name in zip(folders, ("recall/other", "x/y")):
        (place / "v1" / name).mkdir(parents=True)
    *reports, ours, theirs = vectors.check_folder(*folders)
    assert [report.name for report in reports if report.passed] == [INDUCTION, RECALL]
    assert ours[:2] == ("recall/other", [f"in {folders[0]}: not in SHA256SUMS"])
    assert theirs[:2] == ("x/y", [f"in {folders[1]}: no such case"])


def test_a_case_that_cannot_be_read_is_one_problem(tmp_path):
    folders = pair(tmp_path, f"v1/{RECALL}/arrays.npz")
    first, second = vectors.check_folder(*folders)
    problem, = first.problems
    assert problem.startswith("arrays.npz: ") and "No such file or directory" in problem and second.passed
    (folders[1] / "v1" / RECALL / "arrays.npz").write_bytes(b"")
    (folders[0] / "v1" / INDUCTION / "arrays.npz").unlink()
    first, second = vectors.check_folder(*folders)
    (ours,), (theirs,) = first.problems, second.problems
    assert ours.startswith(f"in {folders[0]}: arrays.npz: ") and "No such file or directory" in ours
    assert theirs.startswith("arrays.npz: ") and theirs.endswith("File is not a zip file")


def answer(place, header, **arrays):
    """The report on an answer of these arrays alone, whose .npy have a header of this version."""
    folders = pair(place, "none")
    file = folders[1] / "v1" / RECALL / "arrays.npz"
    file.parent.mkdir(parents=True)
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, header)
            archive.writestr(f"{name}.npy", member.getvalue())
    report, = vectors.check_folder(*folders, only=RECALL)
    return report


@pytest.mark.parametrize("header", [(1, 0), (2, 0)])
def test_arrays_of_both_versions_of_their_format_are_read(tmp_path, header):
    loss = vectors.load(lay(tmp_path / "other"), "recall", "small").arrays["loss"]
    report = answer(tmp_path, header, loss=loss)
    assert report.passed and report.checked == 1


def test_names_that_are_unknown_or_there_twice_are_problems(tmp_path):
    folders = pair(tmp_path)
    with zipfile.ZipFile(folders[1] / "v1" / RECALL / "arrays.npz", "a") as archive:
        archive.writestr("grad.x.npy", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("loss.npy", b"")
    report, = vectors.check_folder(*folders, only=RECALL)
    assert report.problems == ["grad.x: no such array", "loss: there twice"] and not report.departing


def test_where_no_names_are_expected_all_are_read(tmp_path):
    np.savez(tmp_path / "any.npz", x=np.arange(9), loss=np.zeros((99, 999)))
    arrays, problems = files.read_arrays(tmp_path / "any.npz")
    assert {name: a.shape for name, a in arrays.items()} == {"x": (9,), "loss": (99, 999)} and not problems


@pytest.mark.parametrize("more", [0, 1])
def test_an_array_of_more_than_64_times_the_bytes_is_not_read(tmp_path, more):
    """b1 has 16 bytes, to which 1024 are added for headers; that of this file has 128."""
    size = (64 * (16 + 1024) - 128) // 8 + more
    report = answer(tmp_path, (1, 0), **{"param.b1": np.zeros(size), "loss": np.array(0.0)})
    if more:
        problem, = report.problems
        assert problem.startswith("param.b1: ") and "66568 bytes, expected" in problem
    else:
        assert report.problems == [] and report.departing[0] == "param.b1"
        assert "param.b1, shape (8304,), expected (2,)" in str(report)
        assert report.diagnosis == "other inputs or parameters than those that were given"
