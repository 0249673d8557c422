"""A small training run, held to what the figures claim of large ones."""

import numpy as np
import pytest

from refimpl import sgd
from refimpl.induction import Bigram, init, orthonormal_frame, probes, sample, tables

V, T, TRIGGERS, STEPS = 8, 16, 2, 80
HEAD = ("WK1", "WK2", "WO")


def train(seed, steps=STEPS, lr=2.0, trained=HEAD):
    """Steps of SGD on head positions, in the orthonormal frame."""
    rng = np.random.default_rng(seed)
    bigram = Bigram.from_counts(np.random.default_rng(0).integers(1, 9, (V, V)))

    def batches():
        for _ in range(steps):
            batch = sample(bigram, 32, T, rng, TRIGGERS)
            yield batch.tokens, batch.occurrence >= 2
    start = orthonormal_frame(V, T, rng)
    return list(sgd.train(start, batches(), tables.loss_and_grads, lr, 0.9, 1e-4, trained))


@pytest.mark.jit
@pytest.mark.parametrize("seed", range(3))
def test_training_builds_the_induction_head(seed):
    run = train(seed)
    losses = [step.loss for step in run]
    assert losses[0] == pytest.approx(np.log(V), rel=1e-12)         # uniform
    assert np.mean(losses[-5:]) < 0.1 * losses[0]
    params = run[-1].params
    assert probes.WK1(params).argmax == probes.WK2(params, TRIGGERS).argmax == probes.WO(params).argmax == 1
    early = probes.effective_strengths(run[9].params, TRIGGERS)
    assert all(late > first for late, first in zip(probes.effective_strengths(params, TRIGGERS), early))


@pytest.mark.jit
def test_without_the_previous_token_memory_nothing_is_learned_of_the_context():
    """Control: the same run with WK1 at zero knows which tokens were there, not which one followed q."""
    full, without = train(0), train(0, trained=("WK2", "WO"))
    assert np.mean([step.loss for step in without[-5:]]) > 10 * np.mean([step.loss for step in full[-5:]])


@pytest.mark.jit
def test_same_seed_trains_to_the_same_bits():
    one, two, other = train(0, steps=5)[-1], train(0, steps=5)[-1], train(1, steps=5)[-1]
    assert one.loss == two.loss and one.loss != other.loss
    for a, b in zip(one.params, two.params):
        np.testing.assert_array_equal(a, b)


@pytest.mark.jit
def test_the_first_step_writes_WO_alone():
    """With WO = WK2 = 0 nothing else has a gradient, but for the rounding of the frame (1e-16)."""
    first = train(0, steps=1)[0].params
    size = abs(first.WO).max()
    assert size > 0 and abs(first.WK1).max() < 1e-13 * size and abs(first.WK2).max() < 1e-13 * size


@pytest.mark.jit
def test_training_that_diverges_names_the_step_and_the_last_finite_loss():
    with np.errstate(all="ignore"), pytest.raises(
            FloatingPointError, match=r"^step \d+: .* last finite loss: \d+\.\d+"):
        train(0, lr=1e60, trained=(*HEAD, "WF"))


def test_training_on_no_position_is_refused():
    rng = np.random.default_rng(0)
    batch = (np.zeros((2, 5), int), np.zeros((2, 4), bool))
    with pytest.raises(ValueError, match="^mask:"):
        next(sgd.train(init(3, 4, 4, rng), [batch], tables.loss_and_grads, 1.0))
