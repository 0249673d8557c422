"""What a figure script says of its numbers: unchanged, moved by so much in which array, or others."""

import importlib
import pathlib
import sys

import numpy as np
import pytest

SCRIPTS = pathlib.Path(__file__).parents[1] / "scripts"


@pytest.fixture
def drawing(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("drawing")
    sys.modules.pop("drawing", None)


BEFORE = {"loss": np.array([1.0, 2.0, np.nan]), "names": np.array(["a", "b"]), "won": np.array([True, False])}


@pytest.mark.parametrize("change, words, beyond", [
    ({}, "numbers unchanged", False),
    ({"loss": np.array([1.0, 2.0 + 2e-9, np.nan])}, "numbers moved by 1e-09 of the largest, in loss", False),
    ({"loss": np.array([1.0, 2.002, np.nan])}, "numbers moved by 1e-03 of the largest, in loss", True),
    ({"loss": np.array([1.0, np.nan, np.nan])}, "numbers moved by inf of the largest, in loss", True),
    ({"names": np.array(["a", "c"])}, "numbers moved by inf of the largest, in names", True),
    ({"won": np.array([True, True])}, "numbers moved by 1e+00 of the largest, in won", True),
    ({"loss": np.ones(2)}, "arrays of other names or shapes", True)])
def test_changes_say_by_how_much_and_where(drawing, change, words, beyond):
    assert drawing.changes(BEFORE, {**BEFORE, **change}) == (words, beyond)


def test_first_numbers_are_new(drawing):
    assert drawing.changes(None, BEFORE) == ("numbers new", False)


@pytest.mark.jit
def test_films_show_training_from_its_start_to_its_end(drawing):
    films = importlib.import_module("make_films")
    frames = films.induction_frames(steps=8, d=8)
    assert [count for count, *_ in frames] == [0, 4, 8] and not np.array_equal(frames[0][2], frames[-1][2])
    times, observed, flow = films.recall_frames(frames=4)
    assert len(times) == len(observed) == len(flow) and np.abs(observed - flow).max() < 0.05
    for name in ("make_films", "training"):
        sys.modules.pop(name, None)
