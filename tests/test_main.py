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


def run(capsys, *argv):
    """Exit status, stdout and stderr of a command."""
    try:
        status = main([str(word) for word in argv])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("argv, message", [(["refute"], "invalid choice"), (["explain"], "required")])
def test_bad_usage_is_one_message_and_exit_status_2(capsys, argv, message):
    status, _, err = run(capsys, *argv)
    assert status == 2 and message in err and "Traceback" not in err


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
