"""Probes find in a constructed model what was put there, and see when it is not there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.induction import Bigram, construct, init, orthonormal_frame, probes
from tests import strategies

V, L, TRIGGERS = 6, 9, [1, 4]


def constructed(rng, b1=2.0, b2=3.0, bo=5.0, encoding="relative", train_length=None):
    bigram = Bigram.random(V, rng)
    frame = orthonormal_frame(V, L, rng, encoding)
    return construct(frame, bigram, TRIGGERS, b1, b2, bo, encoding, train_length), bigram


@given(strategies.encodings, *[st.floats(0.1, 20)] * 3, strategies.seeds)
def test_effective_strengths_are_those_of_the_construction(encoding, b1, b2, bo, seed):
    L0 = None if encoding == "relative" else 5
    params, _ = constructed(np.random.default_rng(seed), b1, b2, bo, encoding, L0)
    found = probes.effective_strengths(params, TRIGGERS, encoding, L0)
    # Rounding: a few units in the last place of the largest score.
    np.testing.assert_allclose(found, (b1, b2, bo), rtol=0, atol=1e-13 * max(b1, b2, bo))


def test_every_memory_of_the_construction_is_recalled(rng):
    params, bigram = constructed(rng)
    log_pi_b = np.sort(np.log(bigram.pi_b), axis=1)
    margins = (2.0, 3.0, 5.0, (log_pi_b[:, -1] - log_pi_b[:, -2]).mean())
    for found, margin in zip((probes.WK1(params), probes.WK2(params, TRIGGERS), probes.WO(params),
                              probes.WF(params, bigram)), margins):
        assert found.argmax == 1 and found.margin == pytest.approx(margin, rel=1e-12)


def test_recall_counts_rows_and_averages_differences():
    found = probes.read([(np.array([4.0, 1, 2]), 0), (np.array([0.0, 3, 1]), 2)])
    assert found == (0.5, (2 - 2) / 2, (2.5 - 0.5) / 2)


def test_a_tie_is_no_recall():
    assert probes.read([(np.array([1.0, 1, 0]), 0)]).argmax == 0


def test_absolute_memory_is_not_recalled_beyond_the_training_length(rng):
    params, _ = constructed(rng, encoding="absolute", train_length=5)
    assert probes.WK1(params, "absolute", 5).argmax == 1
    assert probes.WK1(params, "absolute").argmax == 4 / (L - 1)     # the first four of eight positions


def test_another_trigger_is_not_matched(rng):
    params, _ = constructed(rng)
    assert probes.WK2(params, [0, 2]).argmax == 0
    assert probes.WK2(params, V).argmax == len(TRIGGERS) / V


@pytest.mark.parametrize("name, probe", [
    ("WK1", probes.WK1), ("WK2", lambda params: probes.WK2(params, V)), ("WO", probes.WO),
    ("WF", lambda params: probes.WF(params, Bigram.from_counts(np.roll(np.eye(V), 1, 1), prior=0.1)))])
def test_probes_see_one_transposed_or_negated_memory(name, probe, rng):
    params, _ = constructed(rng)
    params = construct(params, Bigram.from_counts(np.roll(np.eye(V), 1, 1), prior=0.1), V, 2, 2, 2)
    assert probe(params).argmax == 1
    W = getattr(params, name)
    for mutant in (-W, W.T):
        assert probe(params._replace(**{name: mutant})).argmax < 1


@pytest.mark.parametrize("name, probe", [
    ("WK1", probes.WK1), ("WK2", lambda params: probes.WK2(params, 1)), ("WO", probes.WO),
    ("WF", lambda params: probes.WF(params, Bigram.random(4, np.random.default_rng(0))))])
def test_a_memory_without_content_is_refused(name, probe, rng):
    with pytest.raises(ValueError, match=f"^{name}: .* zeros only"):
        probe(init(4, 8, 5, rng))


@pytest.mark.parametrize("call, name", [
    (lambda p: probes.WK1(p, "other"), "encoding"), (lambda p: probes.WK1(p, train_length=1), "train_length"),
    (lambda p: probes.WK1(p, train_length=L + 1), "train_length"),
    (lambda p: probes.WK2(p, V + 1), "triggers"), (lambda p: probes.WK2(p, [V]), "triggers"),
    (lambda p: probes.WF(p, Bigram.from_counts(np.ones((3, 3)))), "pi_b"),
    (lambda p: probes.WO(p._replace(WO=p.WO * 1j)), "WO"), (lambda p: probes.WO(None), "params")])
def test_bad_arguments_of_probes_are_named(call, name, rng):
    with pytest.raises(ValueError, match=f"^{name}:"):
        call(constructed(rng)[0])
