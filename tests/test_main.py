"""The command line: what it prints, what it writes, how it refuses."""

import importlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import struct
import subprocess
import sys

import pytest

import refimpl
from refimpl.__main__ import main

ROOT = pathlib.Path(refimpl.__file__).parents[1]
HERE = {**os.environ, "PYTHONPATH": str(ROOT)}


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


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- 2>&-"])
def test_streams_that_are_closed_are_done_without(tmp_path, closed):
    """And what is opened next does not take the place of stderr."""
    command = f"{shlex.quote(sys.executable)} -m refimpl audit --claim M3 --cases 1 --json out.json {closed}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=HERE, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert ("1 of 1 claims passed" in done.stdout) == (closed[0] != ">")
    assert len(json.loads((tmp_path / "out.json").read_text())["claims"]) == 1


def test_an_error_that_nobody_can_read_keeps_its_status(monkeypatch):
    class Full:
        def write(self, words):
            raise OSError(28, "full")
    monkeypatch.setattr(sys, "stderr", Full())
    assert main(["audit", "--claim", "I99"]) == 2


@pytest.mark.parametrize("settings", [
    {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}])
def test_the_table_survives_encodings_that_lack_its_characters(settings):
    environment = {name: value for name, value in HERE.items() if name != "PYTHONIOENCODING"}
    with process("audit", "--claim", "R9", "--cases", "1", env={**environment, **settings}) as running:
        out, err = running.communicate()
    assert running.returncode == 0 and err == "" and out.isascii()
    assert "one pair at ? + ?" in out and "1 of 1 claims passed" in out


def test_without_docstrings_it_says_that_there_is_no_derivation():
    done = subprocess.run([sys.executable, "-OO", "-m", "refimpl", "explain", "M3"], capture_output=True,
                          text=True, env=HERE)
    assert done.returncode == 0 and done.stderr == "" and "No derivation is given." in done.stdout


@pytest.mark.parametrize("module", ["argparse", "numba"])
def test_an_interrupt_while_modules_load_ends_it_without_a_traceback(tmp_path, module):
    """Even where a module makes another error of it."""
    (tmp_path / f"{module}.py").write_text(
        "import time\nprint('loading', flush=True)\ntry:\n    time.sleep(60)\n"
        "except BaseException:\n    raise ImportError('stopped')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with process("audit", env={**HERE, "PYTHONPATH": path}) as running:
        assert running.stdout.readline() == "loading\n"
        running.send_signal(signal.SIGINT)
        assert running.wait() == 130 and running.stderr.read() == ""


def test_loading_keeps_the_callers_handler_of_interrupts():
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler in (signal.SIG_IGN, signal.default_int_handler):
            signal.signal(signal.SIGINT, handler)
            importlib.reload(sys.modules["refimpl.__main__"])
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.jit
def test_an_interrupt_ends_its_processes_too(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import time\nfrom refimpl.claims import claim\n"
                    "@claim('X', 'slow', source='', provenance='derived', control='', n=(1, 2))\n"
                    "def slow(case, n):\n    print('started', flush=True)\n    time.sleep(60)\n")
    with process("audit", "--from", str(path), "--jobs", "2", start_new_session=True) as running:
        assert any("started" in line for line in running.stdout)
        os.killpg(running.pid, signal.SIGINT)       # as a terminal does, to all of them
        assert running.wait() == 130 and running.stderr.read() == ""


@pytest.mark.parametrize("given, threads", [(None, "1"), ("2", "2")])
def test_openblas_has_one_thread_unless_the_user_says_otherwise(given, threads):
    environment = {name: value for name, value in HERE.items() if name != "OPENBLAS_NUM_THREADS"}
    if given:
        environment["OPENBLAS_NUM_THREADS"] = given
    done = subprocess.run(
        [sys.executable, "-c", "import refimpl.__main__\n"
         "from refimpl.induction.tables.threads import openblas\nprint(*{get() for get, _ in openblas()})"],
        env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [threads] or given and done.stdout.split() == ["1"] and os.cpu_count() == 1


def test_on_a_terminal_there_is_progress_and_the_table_fits():
    pty = pytest.importorskip("pty")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in HERE.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen([sys.executable, "-m", "refimpl", "audit", "--claim", "M3,R8", "--cases", "2"],
                          stdout=inner, stderr=inner, env=environment) as running:
        os.close(inner)
        shown = b""
        while True:
            try:
                shown += os.read(outer, 2 ** 16)
            except OSError:         # the other end is closed
                break
    os.close(outer)
    assert running.returncode == 0
    lines = [line.rpartition("\x1b[K")[2] for line in shown.decode().splitlines()]
    assert max(map(len, lines)) <= 80 and any(line.startswith("R8   growth rates where") for line in lines)
    assert b"\r\x1b[KM3 (1 of 2): 1 of 4, " in shown and b" s left" in shown
