"""Writing vectors: a set is there whole, whatever fails or interrupts; and vectors of one's own sizes."""

import os
import shutil
import sys

import numpy as np
import pytest

from refimpl import vectors
from refimpl.__main__ import main
from refimpl.vectors import cases, files

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir",
          "shutil.rmtree", "tempfile.mkdtemp", "ctypes.dlopen", "ctypes.dlsym", "ctypes.dlsym/handle")


class Killed(BaseException):
    """The process is no more: nothing is cleaned up."""


class Faults:
    """An audit hook: the n-th file operation below a folder fails, and all later ones if `lasting`."""

    def __init__(self):
        self.active = False
        sys.addaudithook(self.hook)     # cannot be removed: it is switched off

    def hook(self, event, args):
        if self.active and event in EVENTS and (
                event.startswith("ctypes") or any(self.place in str(arg) for arg in args)):
            self.count += 1
            if self.count == self.n or self.lasting and self.count > self.n:
                self.raised = True
                raise self.error

    def during(self, place, n, error, lasting, action):
        """Run an action with a fault at its n-th operation; whether there was one."""
        self.place, self.n, self.error, self.lasting = str(place), n, error, lasting
        self.count, self.raised, self.active = 0, False, True
        try:
            action()
        except BaseException as caught:
            assert self.raised, caught
        finally:
            self.active = False
        return self.raised


@pytest.fixture(scope="module")
def faults():
    return Faults()


@pytest.fixture(scope="module")
def drawn():
    """An old and a new set, each of one small case."""
    return [[cases.yours("recall", seed, N=3, R=2, n=1, d=2, dp=2, m=2, B=1)] for seed in (1, 2)]


def held(folder):
    """The loss of every case of a folder; raises ValueError unless it is whole."""
    found = {vector.name: float(vector.arrays["loss"]) for vector in vectors.read(folder)}
    assert all(report.passed for report in vectors.check_folder(folder, folder))
    return found


ERRORS = {"fails": OSError(5, "a fault"), "interrupted": KeyboardInterrupt(), "exit": SystemExit(3),
          "killed": Killed()}


@pytest.mark.parametrize("error, exchange, lasting", [
    *((error, True, False) for error in ERRORS), ("fails", True, True), ("fails", False, False),
    ("fails", False, True), ("killed", False, False)])
def test_a_write_that_ends_at_any_file_operation_leaves_one_set_whole(
        tmp_path, monkeypatch, faults, drawn, error, exchange, lasting):
    """exchange: folders are exchanged in one step, not by two renames; lasting: all later operations fail."""
    made = {case.seed: cases.arrays(case) for case, in drawn}
    monkeypatch.setattr(cases, "arrays", lambda case: made[case.seed])
    if not exchange:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda name: object())
    clean, (old, new) = files.clean, drawn
    monkeypatch.setattr(files, "clean", lambda folder: None if faults.raised and error == "killed"
                        else clean(folder))
    faults.raised = False
    for case, place in ((old, "V"), (old, "old"), (new, "new")):
        files.write(tmp_path / place, case)
    folder, before, after, n, became = tmp_path / "V", held(tmp_path / "old"), held(tmp_path / "new"), 0, 0
    assert before != after
    while faults.during(folder, n := n + 1, ERRORS[error], lasting, lambda: files.write(folder, new)):
        # Two renames, and the end between them: what was there is put back by the next write.
        assert (folder / "v1").exists() or not exchange and (lasting or error == "killed")
        clean(folder)
        now = {vector.name: float(vector.arrays["loss"]) for vector in vectors.read(folder)}
        assert now in (before, after)
        if now == after:
            became += 1
            shutil.rmtree(folder / "v1")
            shutil.copytree(tmp_path / "old" / "v1", folder / "v1")
    assert n > 20 and became and held(folder) == after
    faults.during(folder, 20, ERRORS[error], lasting, lambda: files.write(folder, new))
    assert (len(os.listdir(folder)) == 2) == (lasting or error == "killed")
    faults.raised = False
    files.write(folder, old)
    assert os.listdir(folder) == ["v1"] and held(folder) == before      # what was left is cleaned


def test_write_is_deterministic_and_replaces_vectors(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(cases, "all_cases", lambda: iter(drawn[0]))
    found = []
    for _ in range(2):
        assert main(["vectors", "write", str(tmp_path / "V")]) == 0
        found.append({path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()})
    assert found[0] == found[1] and len(found[0]) == 3 and os.listdir(tmp_path / "V") == ["v1"]


def test_write_replaces_a_damaged_set_but_no_other_folder(tmp_path, drawn, capsys):
    folder = tmp_path / "V"
    files.write(folder, drawn[0])
    next(folder.rglob("arrays.npz")).unlink()
    (folder / ".writing-x").mkdir()
    (folder / ".writing-x" / "new").mkdir()
    files.write(folder, drawn[0])
    assert len(held(folder)) == 1 and os.listdir(folder) == ["v1"]
    for stray in ("v1/notes.txt", "v1/recall/notes.txt", "notes.txt", ".writing-y/notes", "v1/a/b/c.npz"):
        place = tmp_path / stray.replace("/", "-")
        shutil.copytree(folder, place)
        (place / stray).parent.mkdir(exist_ok=True, parents=True)
        (place / stray).write_text("mine")
        assert main(["vectors", "write", str(place)]) == 2
        assert "nothing was written" in capsys.readouterr().err and (place / stray).exists()
    (tmp_path / "theirs/v1/recall/x").mkdir(parents=True)
    np.savez(tmp_path / "theirs/v1/recall/x/arrays.npz", loss=np.array(1.0))
    for place in (tmp_path / "theirs", tmp_path / "theirs/v1/recall/x/arrays.npz"):
        assert main(["vectors", "write", str(place)]) == 2
        assert "nothing was written" in capsys.readouterr().err


# Sizes of one's own

@pytest.mark.parametrize("options, shapes", [
    (["induction", "--encoding", "absolute", "--V", "50", "--d", "64", "--T", "128", "--B", "4",
      "--trained", "WK1,WK2,WO", "--seed", "7"], {"input.tokens": (4, 129), "trace.logits": (128, 50)}),
    (["induction", "--T", "1", "--V", "2", "--d", "1", "--B", "1"], {"trace.scores1": (1, 1)}),
    (["recall", "--N", "9", "--R", "2", "--n", "3", "--d", "4", "--dp", "3", "--m", "6", "--B", "2",
      "--activation", "relu", "--step", "recall"], {"input.tokens": (2, 8), "param.WKQ": (7, 7)}),
])
def test_write_takes_sizes_of_ones_own(tmp_path, capsys, options, shapes):
    assert main(["vectors", "write", str(tmp_path), "--model", *options]) == 0
    vector, = vectors.read(tmp_path)
    assert {name: vector.arrays[name].shape for name in shapes} == shapes
    if "--trained" in options:
        assert vector.manifest["sgd"]["trained"] == ["WK1", "WK2", "WO"] and vector.manifest["seed"] == 7
    assert main(["vectors", "check", str(tmp_path), str(tmp_path)]) == 0


@pytest.mark.parametrize("options, words", [
    (["--V", "5"], "--V: expected --model induction"),
    (["--trained", "WO"], "--trained: expected --model induction or recall"),
    (["--model", "recall", "--V", "5"], "--V: expected --model induction"),
    (["--model", "induction", "--N", "5"], "--N: expected --model recall"),
    (["--model", "induction", "--V", "1"], "V: expected an integer at least 2, got 1"),
    (["--model", "induction", "--T", "5", "--L", "3"], "L: expected at least T = 5"),
    (["--model", "induction", "--T", "500000"], "expected a size that fits into memory"),
    (["--model", "induction", "--trained", "WK3"], "trained: expected one of"),
    (["--model", "induction", "--seed", "-1"], "seed: expected an integer at least 0"),
    (["--model", "recall", "--N", "3", "--n", "3"], "n: expected an integer in 1..2, got 3"),
    (["--model", "recall", "--R", "9"], "R: expected an integer in 1..4, got 9"),
])
def test_sizes_that_make_no_case_are_refused(tmp_path, capsys, options, words):
    assert main(["vectors", "write", str(tmp_path), *options]) == 2
    assert words in capsys.readouterr().err and not os.listdir(tmp_path)
