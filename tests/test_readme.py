"""The README says what the code does: its examples run, its table lists the claims that exist."""

import pathlib
import re
import subprocess
import sys

import pytest

from refimpl.__main__ import main
from tests.test_claims import BUILTIN

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_claim_table_lists_exactly_the_claims_that_exist():
    rows = re.findall(r"^\| ([MIR][0-9G]+[a-z]?) \| .* \| `(.*)` \| `(.*\.py)` \|", README, re.MULTILINE)
    assert [row[0] for row in rows] == list(BUILTIN)
    for _, _, test in rows:
        assert (ROOT / "tests" / test).exists(), test


@pytest.mark.parametrize("example", [e for e in EXAMPLES if "print(" in e])
def test_examples_print_what_they_say(example, capsys):
    exec(compile(example, "README", "exec"), {})
    printed = capsys.readouterr().out.split()
    numbers = [float(word) for word in printed]
    if len(numbers) == 1:
        assert numbers[0] < 1e-13
    else:
        assert numbers == pytest.approx([0.47355329296846] * 2, rel=1e-13)


def test_own_claims_are_audited_as_shown(tmp_path, monkeypatch, capsys):
    (example,) = [e for e in EXAMPLES if "@claim" in e]
    (tmp_path / "my_claims.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    assert main(["audit", "--from", "my_claims.py"]) == 1
    out = capsys.readouterr().out
    shown = README[README.index("X1   weight"):]
    shown = shown[:shown.index("```")].splitlines()

    def stable(line):
        """Without the digits of rounding and the time."""
        return re.sub(r"\d\.\de-\d\d|, [\d.]+ s$", "", line)
    assert [stable(line) for line in out.splitlines()[1:]] == [stable(line) for line in shown]


@pytest.mark.parametrize("command", re.findall(r"`(python -m refimpl explain \w+)`", README))
def test_commands_in_the_text_run(command):
    subprocess.run([sys.executable, *command.split()[1:]], cwd=ROOT, check=True, capture_output=True)
