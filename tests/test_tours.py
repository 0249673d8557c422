"""The tours run from top to bottom, print what they promise, and answer every exercise."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TOURS = ["tour_induction.py", "tour_recall.py"]
LINES = {
    "tour_induction.py": [
        r"what followed t in it: +o o",
        r" +WK1  \(64, 64\)",
        r" 5   (am)+a?(to){5}t +-\d\.\d{3}   habit +habit",
        r" 6   (am)+a?(to){6}t +\d\.\d{3}   context +context",
        r"-> @njit.*",
        r"step 100   loss +\d\.\d\d nats   accuracy (0\.[89]\d|1\.00)",
        r"next, in the model's opinion: k"],
    "tour_recall.py": [
        r"a major third above A: +C sharp",
        r"predicted logits \[2\.  2\.  3\.6 2\. \]",
        r"minus flow .*",
        r"accuracy after fine-tuning:   infer (0\.9\d\d|1\.000), recall (0\.9\d\d|1\.000)",
        r"January April, May August, October \.\.\. 3 months later: January\."],
}


@pytest.mark.parametrize("name", TOURS)
def test_tours_are_lessons_in_cells_with_every_exercise_answered(name):
    cells = re.split(r"^# %% ", (ROOT / "scripts" / name).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    questions = re.findall(r"^# Exercise (\d)\. ", "".join(cells), flags=re.MULTILINE)
    answers = {cell.split("\n")[0]: cell for cell in cells if cell.startswith("Answer")}
    assert 4 <= len(questions) <= 6 and len(cells) - len(answers) >= 8
    assert sorted(answers) == [f"Answer {number}" for number in sorted(questions)]
    assert all("\nassert " in cell or "    assert " in cell for cell in answers.values())


@pytest.mark.jit
@pytest.mark.parametrize("name", TOURS)
def test_tours_run_from_top_to_bottom(name, tmp_path):
    run = subprocess.run([sys.executable, ROOT / "scripts" / name], cwd=tmp_path, capture_output=True,
                         text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (run.returncode, run.stderr) == (0, "")
    printed = run.stdout.splitlines()
    for line in [*LINES[name], "all six answers hold"]:
        assert any(re.fullmatch(line, row) for row in printed), line
    # It reads well in any terminal, and leaves nothing behind.
    assert run.stdout.isascii() and max(map(len, printed)) <= 100 and not list(tmp_path.iterdir())
