"""The tours run from top to bottom at any seed; exercises take their solutions and refuse wrong answers."""

import importlib
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

SCRIPTS = pathlib.Path(__file__).parents[1] / "scripts"
ROOT = SCRIPTS.parent
SYSTEMS = ["induction", "recall"]
SEEDS = (1, 2, 3) if os.environ.get("CI") else (1,)
LINES = {
    "induction": [r"what followed t in it: +o o", r" +WK1  \(64, 64\)", r"-> @njit.*",
                  r"step 100   loss +\d\.\d\d nats   accuracy \d\.\d\d"],
    "recall": [r"a major third above A: +C sharp", r"minus flow .*",
               r"accuracy after fine-tuning:   infer \d\.\d\d\d, recall \d\.\d\d\d"]}


@pytest.fixture
def exercises(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("exercises"), importlib.import_module("solutions")
    for name in ("exercises", "solutions", "lesson"):
        sys.modules.pop(name, None)


def run(path, folder, **environment):
    return subprocess.run([sys.executable, path], cwd=folder, capture_output=True, text=True,
                          encoding="utf-8", env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SCRIPTS}",
                                                 "PYTHONIOENCODING": "utf-8", **environment})


@pytest.mark.parametrize("system", SYSTEMS)
def test_tours_are_lessons_in_cells_with_pictures(system):
    source = (SCRIPTS / f"tour_{system}.py").read_text(encoding="utf-8")
    cells = re.split(r"^# %%", source, flags=re.MULTILINE)[1:]
    text = [cell for cell in cells if cell.startswith(" [markdown]")]
    code = [cell for cell in cells if not cell.startswith(" [markdown]")]
    assert len(text) >= 12 and all(len(cell.splitlines()) <= 50 for cell in code)
    assert len(re.findall(r"^(?:show|maps|lines)\(", source, re.MULTILINE)) >= 6
    asked = [int(n) for n in re.findall(r"\*\*Exercise (\d)\*\*", source)]
    checked = [int(n) for n in re.findall(rf'check\("{system}", (\d)', source)]
    assert sorted(asked) == sorted(checked) == list(range(1, 9))


@pytest.mark.jit
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_tours_run_from_top_to_bottom(system, seed, tmp_path):
    """With any seed: nothing in them expects the numbers of one."""
    path = tmp_path / f"tour_{system}.py"
    source = (SCRIPTS / path.name).read_text(encoding="utf-8")
    path.write_text(source.replace("SEED = 1\n", f"SEED = {seed}\n"), encoding="utf-8")
    done = run(path, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    for line in [*LINES[system], *(f"exercise {n}: open" for n in range(1, 9))]:
        assert any(re.fullmatch(line, row) for row in printed), line
    assert max(map(len, printed)) <= 110 and [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("system", SYSTEMS)
def test_tours_train_less_as_plain_python(system, tmp_path):
    done = run(SCRIPTS / f"tour_{system}.py", tmp_path, NUMBA_DISABLE_JIT="1")
    assert (done.returncode, done.stderr) == (0, "") and "plain Python: " in done.stdout


GIVEN = {}


def given(system, number):
    """What the tour of induction hands to the checks of exercises 5 and 6."""
    from refimpl import induction
    if (system, number) not in (("induction", 5), ("induction", 6)):
        return {}
    if not GIVEN:
        letters = "then the man on the moth met the ten that he had seen at home so the host has to hem"
        bigram = induction.Bigram.from_text(letters.replace(" ", ""), V=8, prior=0.1)
        token = {letter: v for v, letter in enumerate(bigram.chars)}
        frame = induction.orthonormal_frame(V=8, L=40, rng=np.random.default_rng(1))
        t, h, o = (token[letter] for letter in "tho")
        GIVEN.update(read=lambda text: np.array([token[letter] for letter in text]), b2=2.0, bo=4.0,
                     model=induction.construct(frame, bigram, [t], 30.0, 2.0, 4.0),
                     gap=np.log(bigram.pi_b[t, h] / bigram.pi_b[t, o]))
    return {"gap": GIVEN["gap"]} if number == 5 else GIVEN


@pytest.mark.jit
@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("system", SYSTEMS)
def test_each_solution_is_right(system, number, exercises, capsys):
    check, solutions = exercises[0].check, exercises[1].SOLUTIONS
    answer, arguments = solutions[system][number], given(system, number)
    if (system, number) == ("induction", 5):
        answer = answer(arguments["gap"])
    assert check(system, number, answer, **arguments) is True
    assert check(system, number, ..., **arguments) is None
    assert capsys.readouterr().out == f"exercise {number}: right\nexercise {number}: open\n"


WRONG = {
    ("induction", 1): [[1, 5, 7], [5], "57"], ("induction", 2): [127, 125, "many"],
    ("induction", 3): [lambda E, Phi, q, b: b * sum(np.outer(Phi @ E[i], E[i]) for i in q),
                       lambda E, Phi, q, b: sum(np.outer(E[i], Phi @ E[i]) for i in q), 3],
    ("induction", 4): [np.log(99), 99.0, [8.26]], ("induction", 5): [0.0, 1e9, "strong"],
    ("induction", 6): ["mtotot", "to" * 3 + "t", "m" + "am" * 10 + "to" * 9 + "t"],
    ("induction", 7): [lambda p, dp: p * dp, lambda p, dp: p * (dp - dp.sum()), lambda p, dp: 1 / 0],
    ("induction", 8): ["a claim", lambda case: (1, 1), 8],
    ("recall", 1): [(3, "February"), (2, "March"), "February"],
    ("recall", 2): [[2, 2, 3.6, 2], [0.8, 0.8, 1.6, 0.8], 3.6], ("recall", 3): [5.0, 1.0, "half"],
    ("recall", 4): [lambda u, v, r, R, lam: np.zeros(R), lambda u, v, r, R, lam: lam * np.ones(R), 4],
    ("recall", 5): [1, 2, None],
    ("recall", 6): [lambda w, R, lam: 0 * w, lambda w, R, lam: -w, lambda w, R, lam: w[:-1]],
    ("recall", 7): [10.0, 2 * np.log(3), "strong"],
    ("recall", 8): [[(0, 4, 8)], [(s, s + 3, s + 6) for s in range(4)], 4]}


@pytest.mark.jit
@pytest.mark.parametrize("system, number", WRONG)
def test_wrong_answers_get_a_hint(system, number, exercises, capsys):
    for answer in WRONG[system, number]:
        assert exercises[0].check(system, number, answer, **given(system, number)) is False
        assert ". Hint: " in capsys.readouterr().out or answer is None
