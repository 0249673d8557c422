"""Every recall figure, small: `compute` gives what the figure claims, `plot` draws it without a warning.

In a process of their own, since drawing sets the number of threads before NumPy is loaded.
"""

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"
# What is computed, and what must hold of it: SGD on the theory's line, targets reached.
FIGURES = {
    "dynamics": ("data = figure.compute((0, 1), 40, 20, 2, (2, 3))", """
assert np.ptp(data["infer"], axis=0).max() < 1e-9      # all tables alike (R5)
line = figure.theory.trajectory(figure.START, data["times"][1:], figure.R, figure.LAM)
assert np.abs(data["infer"][0, 1:] - line).max() < 0.05     # first order in the step (R10)
assert np.abs(data["waits"][..., 0] / data["waits"][..., 1] - 1).max() < 0.05
assert (data["between"][:, -1] > 1).all() and (data["within"][:, -1] < 1).all()"""),
    "attention": ("data = figure.compute((0,), (2,), 512, 150, 120, 1500)", """
for memory in ("constructed", "one-hot", "random"):
    assert data[f"{memory}_2_after_accuracy"].min() >= 0.99, memory
    alpha = data[f"{memory}_2_after"][0]
    assert (alpha[0:4:2] + alpha[1:4:2]).max() > 0.8 and alpha[-2:].min() > 0.3, memory
assert data["one-hot_pretrained"].min() == data["random_pretrained"].min() == 1"""),
    "samples": ("data = figure.compute((0,), (7,), (50, 150), 7, (10,), (10, 100))", """
law = -np.array(figure.M_FLOW) / (np.array(figure.M_FLOW) + 3)
assert np.abs(data["slope"][:, 0] / law - 1).max() < 0.03
assert (data["infer"] > data["floor"][..., None]).all() and data["positions"].max() < 0.1
at = np.searchsorted(figure.TIMES, data["sgd_times"])       # SGD on the line of the flow
assert np.abs(data["sgd"][:, 0] / data["infer"][:, 0, at] - 1).max() < 0.15
rng = np.random.default_rng(0)
facts = figure.Facts.latin(64, 8, rng)
train, test = (figure.draw(facts, 20, rng, odd, np.arange(odd, 8, 2)) for odd in (0, 1))
assert not np.isin(test.subjects, train.subjects).any() and not np.isin(test.relation, train.relation).any()
losses = np.full((2, len(figure.MS), 3), 1.0)
losses[0, 4:] = 0
least = figure.enough(losses)
assert least[0] == figure.MS[4] and np.isnan(least[1])"""),
    "trap": ("data = figure.compute((8.0, 64.0), (0.125, 8.0), (0,), 150, (1.0, 8.0), 500)", """
relu = data["excess"][1, :, :, 0]
assert (relu[:, 0] < 0.1).all() and relu[1, 1] > 1.3
assert abs(data["u"][1, 1, 1, 0] - 1) < 1e-3
for lam, (start, time) in zip(data["back_lams"], data["back"][:, 0]):
    law = figure.theory.way_back(start, figure.BIAS, figure.N, figure.R, lam, figure.BIAS)
    assert abs(time / law - 1) < 0.05"""),
    "noise": ("data = figure.compute((0,), 300, 150, (0.0, 0.6), (8, 64), (1, 3), (0.0, 0.5), 2000)", """
assert data["sizes"][..., :2].min() >= 0.99 and data["pairs"][..., :2].min() >= 0.99
assert data["wrong"][1, 0, 0] < data["wrong"][0, 0, 0] and data["wrong"][1, 0, 1] == 1
assert abs(data["large"][1, 0] - figure.theory.noisy_accuracy(0.6, 4, figure.LARGE, 8)[0]) < 0.03"""),
}


@pytest.mark.jit
@pytest.mark.parametrize("name", FIGURES)
def test_figure_shows_what_it_claims(name):
    compute, checks = FIGURES[name]
    program = (f"import numpy as np\nimport fig_recall_{name} as figure\n{compute}\nfigure.plot(data)"
               f".canvas.draw()\n{checks}")
    path = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": path})
    assert result.returncode == 0, result.stderr


@pytest.mark.jit
def test_months_example_answers_both_questions():
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(SCRIPTS.parent)}
    result = subprocess.run([sys.executable, str(SCRIPTS / "months.py")], capture_output=True, text=True,
                            encoding="utf-8", check=True, env=environment)
    answers = [line.split(" (")[0] for line in result.stdout.splitlines() if "->" in line]
    assert answers == ["  -> 3 months later", "  -> January", "  -> fifth", "  -> B"]
