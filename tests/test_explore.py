"""The explorer draws at the ends of every slider, and says in one line that it needs a display."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPTS = pathlib.Path(__file__).parents[1] / "scripts"


@pytest.mark.jit
@pytest.mark.parametrize("system", ["induction", "recall"])
def test_sliders_move_to_both_ends(system, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("MPLBACKEND", "agg")
    explore = importlib.import_module("explore")
    explore.plt.switch_backend("agg")
    figure, sliders = explore.window(system)
    for slider in sliders:
        for value in (slider.valmin, slider.valmax, slider.valinit):
            slider.set_val(value)
    bars = figure.axes[2].patches
    crosses = figure.axes[2].lines[0].get_ydata()
    assert [bar.get_height() for bar in bars] == pytest.approx(list(crosses), abs=1e-9)     # model and theory
    explore.plt.close(figure)


@pytest.mark.jit
def test_without_a_display_one_line_says_so():
    done = subprocess.run([sys.executable, SCRIPTS / "explore.py", "recall"], capture_output=True, text=True,
                          env={**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(SCRIPTS.parent)})
    assert done.returncode == 1 and "expected a display" in done.stderr and len(done.stderr.splitlines()) == 1
