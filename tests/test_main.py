"""The command line: what it prints, what it writes, how it refuses."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

import refimpl
from refimpl.__main__ import main
from tests.test_claims import BUILTIN, MINE


def run(capsys, *argv):
    """Exit status, stdout and stderr of a command."""
    try:
        status = main([str(word) for word in argv])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_audit_prints_a_row_for_each_claim(capsys):
    status, out, err = run(capsys, "audit", "--claim", "M3", "--claim", "R1", "--cases", 5)
    assert status == 0 and err == ""        # no progress where stderr is no terminal
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["M3", "R1"]
    assert "2 of 2 claims passed, 2 of 2 controls failed as they must" in out


def test_audit_writes_the_documented_json(capsys, tmp_path):
    path = tmp_path / "out.json"
    assert run(capsys, "audit", "--claim", "R2", "--cases", 4, "--json", path)[0] == 0
    (entry,) = json.loads(path.read_text())["claims"]
    expected = {"id": str, "statement": str, "source": str, "provenance": str, "exact": bool,
                "instances": int, "worst": float, "tolerance": float, "control": str,
                "control_failed": bool, "passed": bool, "seconds": float}
    assert {key: type(entry[key]) for key in expected} == expected
    assert entry["id"] == "R2" and entry["instances"] == 4 and entry["passed"]
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_audit_lists_the_claims(capsys):
    status, out, _ = run(capsys, "audit", "--list")
    assert status == 0 and "I3 " in out and "formalised" in out


def test_audit_runs_on_a_given_text(capsys, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("in the beginning was the word", encoding="utf-8")
    assert run(capsys, "audit", "--claim", "I3", "--cases", 6, "--text", path)[0] == 0


def test_failing_claim_prints_an_instance_and_the_command_that_shows_it_again(capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    status, out, _ = run(capsys, "audit", "--from", path)
    assert status == 1 and "smallest failing instance: n=12, seed=0" in out
    command = f"python -m refimpl audit --claim X2 --from {path} --instance 'n=12, seed=0'"
    assert command in out
    status, out, _ = run(capsys, "audit", "--claim", "X2", "--from", path, "--instance", "n=12, seed=0")
    assert status == 1 and " 1 " in out
    assert run(capsys, "audit", "--claim", "X2", "--from", path, "--instance", "n=11, seed=0")[0] == 0


BROKEN = {
    "raises": ("raise RuntimeError('first line\\nsecond')", "RuntimeError: first line\n"),
    "nan": ("return float('nan'), 1.0", "ValueError: expected finite numbers, got others\n"),
    "shapes": ("return np.ones(3), np.ones(4)", "ValueError: expected equal shapes, got (3,) predicted and (4,) observed\n"),
    "nothing": ("return None", "TypeError: the check returned NoneType, not (predicted, observed[, scale])\n")}


def test_broken_claims_fail_in_one_line_each_and_the_others_still_run(capsys, tmp_path):
    path, out = tmp_path / "mine.py", tmp_path / "out.json"
    path.write_text("import numpy as np\n" + MINE + "".join(
        f"\n@claim({name!r}, 'broken', source='s', provenance='derived', control='c', n=(1, 5))\n"
        f"def {name}(case, n):\n    {body}\n" for name, (body, _) in BROKEN.items()))
    status, printed, _ = run(capsys, "audit", "--from", path, "--json", out)
    assert status == 1 and "second" not in printed
    for _, message in BROKEN.values():
        assert f"     {message}" in printed
    entries = {entry["id"]: entry["passed"] for entry in json.loads(out.read_text())["claims"]}
    assert entries == {"X1": True, "X2": False, **dict.fromkeys(BROKEN, False)}


@pytest.mark.parametrize("content, message", [
    ("def (", "SyntaxError"), ("x = 1", "expected claims"), ("1 / 0", "ZeroDivisionError"),
    ("raise SystemExit(0)", "SystemExit"), ("raise ValueError('one\\ntwo')", "ValueError: one")])
def test_a_claims_file_that_cannot_be_loaded_is_a_usage_error_in_one_line(capsys, tmp_path, content,
                                                                          message):
    path = tmp_path / "mine.py"
    path.write_text(content)
    status, _, err = run(capsys, "audit", "--from", path)
    assert status == 2 and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("argv, message", [
    (["audit", "--claim", "I99"], "unknown claim I99; the claims are M1, M2, M3, I1"),
    (["audit", "--cases", "0"], "expected an integer >= 1"),
    (["audit", "--cases", "many"], "invalid"),
    (["audit", "--seed", "-1"], "expected an integer >= 0"),
    (["audit", "--text", "no-such-file"], "no-such-file"),
    (["audit", "--from", "no-such-file.py"], "no-such-file.py"),
    (["audit", "--instance", "n=1"], "exactly one --claim"),
    (["audit", "--claim", "M3", "--instance", "N=1"], "got no spare, seed"),
    (["audit", "--claim", "M3", "--instance", "N=one"], "got 'N=one'"),
    (["audit", "--claim", "M3", "--instance", "M=1"], "got 'M=1'"),
    (["audit", "--claim", "M3", "--cases", "2", "--json", "no/such/folder/out.json"], "no/such/folder"),
    (["audit", "--json", "."], "expected a file"),
    (["explain", "I99"], "unknown claim I99"), (["explain"], "required"), (["refute"], "invalid choice")])
def test_bad_usage_is_one_message_and_exit_status_2(capsys, argv, message):
    status, _, err = run(capsys, *argv)
    assert status == 2 and message in err and "Traceback" not in err


@pytest.mark.parametrize("content", [b"\xff\xfe", b"aaaa", b""])
def test_text_that_cannot_be_used_is_refused(capsys, tmp_path, content):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    status, _, err = run(capsys, "audit", "--claim", "I1", "--text", path)
    assert status == 2 and "--text" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("id", BUILTIN)
def test_explain_shows_the_derivation_the_numbers_and_the_control(capsys, id):
    status, out, _ = run(capsys, "explain", id)
    assert status == 0
    for words in ("Provenance:", "One instance:", "As claimed", "Control:", "predicted", "holds",
                  "does not hold"):
        assert words in out
    assert max(map(len, out.splitlines())) <= 80


def test_no_command_prints_help(capsys):
    status, out, _ = run(capsys)
    assert status == 0 and "examples:" in out and "exit status" in out


def test_module_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "refimpl", "audit", "--list"], capture_output=True,
                          text=True, check=True)
    assert "M1" in done.stdout and done.stderr == ""


def process(*argv, **settings):
    """The command line as a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "refimpl", *argv], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **settings)


@pytest.mark.jit
def test_a_reader_that_stops_reading_ends_it_quietly():
    with process("explain", "I3") as running:
        running.stdout.close()
        assert running.wait() == 141 and running.stderr.read() == ""


@pytest.mark.jit
def test_an_interrupt_ends_it_without_a_traceback(tmp_path):
    with process("audit", "--json", str(tmp_path / "out.json")) as running:
        running.stdout.readline()       # the table has begun
        running.send_signal(signal.SIGINT)
        assert running.wait() == 130 and running.stderr.read() == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "refimpl", "audit", "--list"], stdout=full,
                              stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


@pytest.mark.jit
def test_without_a_folder_for_compiled_code_one_line_says_what_to_set(tmp_path):
    """Numba falls back to a folder in the home directory, and here there is neither."""
    shutil.copytree(pathlib.Path(refimpl.__file__).parent, tmp_path / "refimpl",
                    ignore=shutil.ignore_patterns("__pycache__"))
    for module in [*(tmp_path / "refimpl").rglob("*.py")]:
        (module.parent / "__pycache__").touch()         # a file where its folder should be
    environment = {**os.environ, "HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null",
                   "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    with process("audit", "--list", cwd=tmp_path, env=environment) as running:
        assert running.wait() == 2
        message = running.stderr.read()
    assert "set NUMBA_CACHE_DIR" in message and len(message.splitlines()) == 1
