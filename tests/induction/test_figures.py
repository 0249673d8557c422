"""Every figure of system I computes and draws at a small size, and computes the same numbers twice."""

import importlib
import pathlib
import sys

import numpy as np
import pytest

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"
SMALL = {
    "introduction": {},
    "notation": {},
    "recall_introduction": dict(steps=3),
    "training": dict(seeds=1, count=4, d=8),
    "step_size": dict(seeds=1, count=2, d=8),
    "tasks": dict(seeds=1, steps=5),
    "rank": dict(seeds=1, steps=3, d=8),
    "theory": dict(seeds=1, count=10, embeddings=8),
    "attention": dict(steps=3, d=8),
    "hijack": dict(seeds=1, steps=3, count=2, repetitions=(1, 2), lengths=(8, 16)),
    "length": dict(seeds=1, steps=3, factors=(1, 2), count=2, d=8),
    "interference": dict(seeds=2, gap_widths=(64, 256), capacity_widths=(8, 12, 16)),
    "ledger": dict(seeds=1, steps=3, count=2, d=8),
    "moments": dict(seeds=1, sizes=(20, 40)),
    "analogies": dict(seeds=1, steps=3, gaps=(1.0, 2.0), count=1),
}


@pytest.fixture
def figure(monkeypatch):
    """Import scripts/fig_<name>.py, its cases computed in this process."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    known = set(sys.modules)

    def load(name):
        module = importlib.import_module(f"fig_{name}")
        monkeypatch.setattr(module.drawing, "each", lambda function, cases: [function(*c) for c in cases])
        return module
    yield load
    for name in set(sys.modules) - known:
        if str(SCRIPTS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.jit
@pytest.mark.parametrize("name", SMALL)
def test_figure_computes_and_draws(name, figure):
    module = figure(name)
    data, again = module.compute(**SMALL[name]), module.compute(**SMALL[name])
    assert data.keys() == again.keys()
    for key in data:
        np.testing.assert_array_equal(data[key], again[key])
    drawn = module.plot({key: np.asarray(value) for key, value in data.items()})
    drawn.canvas.draw()
    module.drawing.plt.close(drawn)


def test_designed_prompt_holds_what_it_says(figure, rng):
    training = figure("length").training
    bigram = training.text_bigram()
    z = training.designed_prompt(bigram, rng, q=0, u=7, w=3, repetitions=4, length=20)
    assert len(z) == 20 and z[-1] == 0 and z[0] not in (0, 7, 3)
    assert (z == 0).sum() == 5 and (z == 7).sum() == 4 and 3 not in z
    assert (z[1:][z[:-1] == 0] == 7).all()


def test_measure_knows_a_perfect_model(figure, rng):
    """The construction in the limit of large strengths: head accuracy 1, divergence from the bigram 0."""
    from refimpl import induction
    training = figure("length").training
    bigram = induction.Bigram.random(5, rng)
    params = induction.construct(induction.orthonormal_frame(5, 12, rng), bigram, [0, 1], 40, 40, 40)
    batch = induction.sample(bigram, 30, 12, rng, [0, 1])
    keep = batch.tokens[:, 0] > 1           # a trigger in the first place matches itself
    batch = batch._replace(tokens=batch.tokens[keep], occurrence=batch.occurrence[keep])
    accuracy, _ = training.measure(params, bigram, batch)
    assert accuracy == 1
    memory = params._replace(WO=np.zeros_like(params.WO))
    assert training.measure(memory, bigram, batch)[1] == pytest.approx(0, abs=1e-12)
