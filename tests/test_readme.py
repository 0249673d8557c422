"""The README says what the code does: its examples and commands run, its tables list what exists."""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import refimpl
from refimpl.__main__ import main
from tests.test_claims import BUILTIN

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
NOT_RUN = {     # command -> why it is not run here
    'python3 -m venv .venv && . .venv/bin/activate && pip install -e ".[test]" && python -m refimpl audit':
        "installs; .ci/run does so, and audits",
    "python -m pytest": "runs this test",
    "python scripts/explore.py recall": "needs a display; test_explore.py",
    "python -m refimpl audit --digits 40": "tests/claims/test_balls.py",
    "python -m refimpl audit --enumerate": "a minute; tests/claims/test_enumeration.py",
    "python -m refimpl gradcheck my_layer.py": "tests/test_gradcheck_command.py",
    "python scripts/tour_induction.py": "test_tours.py",
    "python scripts/tour_recall.py": "test_tours.py",
    "python scripts/make_figures.py": "forty minutes; each figure is tested at a small size",
    'pip install ".[crosscheck]"': "installs; .ci/run does",
    "python scripts/crosscheck_torch.py V": "needs PyTorch; .ci/run",
    "python scripts/crosscheck_jax.py V": "needs JAX; .ci/run",
    "python scripts/mistaken.py V": "needs PyTorch; .ci/run",
}


def commands():
    """Every command of the README with the lines of the output shown after it, or none."""
    found = {}
    for line, language, block, span in re.findall(
            r"^    ((?:pip|python3?|sed|NUMBA_\w+=\d) [^\n]*)$|^```(\w*)\n(.*?)^```|"
            r"`((?:pip|python3?|NUMBA_\w+=\d) [^`\n]+)`", README,
            re.DOTALL | re.MULTILINE):
        if line or span:
            last = line or span
            found.setdefault(last, [])
        elif not language:
            found[last] = [row for row in block.splitlines() if row != "…"]
            found.update({row.strip(): [] for row in found[last] if row.startswith("     python ")})
    return found


COMMANDS = commands()


def stable(line):
    """Without the digits of rounding and the time."""
    return re.sub(r"\d\.\de-1\d|, [\d.]+ s$", "", line).rstrip()


def test_what_is_not_run_is_in_the_readme():
    assert NOT_RUN.keys() < COMMANDS.keys()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the commands need, away from the checkout: scripts, a file of claims, vectors and answers."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "my_claims.py").write_text(*[e for e in EXAMPLES if "@claim" in e], encoding="utf-8")
    for name in ("V", "THEIRS"):
        shutil.copytree(ROOT / "tests" / "vectors", folder / name)
    return folder


@pytest.mark.jit
@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - NOT_RUN.keys()))
def test_commands_print_what_is_shown(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8",
                   "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])}
    run = subprocess.run(command, shell=True, cwd=folder, env=environment, input="quit\n", text=True,
                         encoding="utf-8", capture_output=True)
    assert (run.returncode, run.stderr) == (int("my_claims.py" in command), "")     # one of them is wrong
    printed = iter([stable(line) for line in run.stdout.splitlines()])
    for line in COMMANDS[command]:
        assert stable(line) in printed, line        # in the order shown


def test_readme_is_short():
    assert len(README.splitlines()) <= 280


def test_claim_table_lists_exactly_what_exists(capsys):
    pattern = r"^\| ([MIR][0-9G]+[a-z]?) \|.*?\| `(\S+)`.*?\| `(\S+\.py)` \|(.*?)\| (.*?) \| (\w+) \|$"
    rows = re.findall(pattern, README, re.MULTILINE)
    assert [row[0] for row in rows] == list(BUILTIN)
    main(["audit", "--list"])
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for id, function, test, figures, known, provenance in rows:
        assert f" {known} " in listed[id]
        functools.reduce(getattr, function.split("."), refimpl)
        assert (ROOT / "tests" / test).exists() and provenance == BUILTIN[id].provenance
        for figure in re.findall(r"`(\w+)`", figures):
            assert (ROOT / "figures" / f"{figure}.png").exists(), figure
