"""The batched model against model.py, and what it is for: pretraining a memory, then fine-tuning it."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from refimpl import sgd
from refimpl.recall import Facts, Params, batched, loss_and_grads, sample
from tests.strategies import seeds


def random_params(rng, N, R, n, d, dp, m, scale, dtype=np.float64):
    V, L = 2 * N + R, 2 * n + 2
    shapes = (V, d), (V, d), (L, dp), (d + dp, d + dp), (m, d), (m,), (d, m)
    return Params(*(rng.normal(0, scale, shape).astype(dtype) for shape in shapes))


@given(st.sampled_from(["square", "relu"]), st.booleans(), st.integers(1, 2), st.integers(1, 3),
       st.integers(1, 4), st.integers(1, 5), st.sampled_from([0.3, 1.0]), seeds)
def test_batched_model_is_the_model(activation, vocabulary, n, count, d, m, scale, seed):
    """Loss and all seven gradients, prompts of both steps and of two tokens, the last one twice."""
    rng = np.random.default_rng(seed)
    facts = Facts.latin(4, 3, rng)
    params = random_params(rng, 4, 3, n, d, 2, m, scale)
    params.W1[0] = params.b1[0] = 0         # a unit exactly at 0
    prompts = sample(facts, n, count, rng)
    for tokens, targets, slot in (prompts.infer(), prompts.recall(), *batched.facts_as_prompts(facts)):
        tokens, targets = np.append(tokens, tokens[-1:], axis=0), np.append(targets, targets[-1])
        step = tokens, targets, None if vocabulary else slot, activation
        loss, grads = loss_and_grads(params, *step)
        ours, our_grads = batched.loss_and_grads(params, *step)
        assert ours == pytest.approx(loss, rel=1e-12, abs=1e-12)
        for name, theirs, mine in zip(Params._fields, grads, our_grads):
            np.testing.assert_allclose(mine, theirs, rtol=0, err_msg=name,
                                       atol=1e-12 * max(np.abs(theirs).max(), scale))


def test_batched_model_keeps_float32(rng):
    params = random_params(rng, 4, 2, 1, 3, 2, 5, 0.5, np.float32)
    step = sample(Facts.latin(4, 2, rng), 1, 3, rng).recall()
    loss, grads = batched.loss_and_grads(params, *step, "relu")
    assert {loss.dtype, *(grad.dtype for grad in grads)} == {np.dtype(np.float32)}
    for mine, theirs in zip(grads, loss_and_grads(params, *step, "relu")[1]):
        # Some ten roundings of float32.
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6 * max(np.abs(theirs).max(), 0.1))


def test_confident_gradients_keep_their_digits(rng):
    params = random_params(rng, 4, 2, 1, 3, 2, 5, 0.5)
    params = params._replace(W2=40 * params.W2)
    tokens, targets, slot = sample(Facts.latin(4, 2, rng), 1, 6, rng).recall()
    mine = batched.loss_and_grads(params, tokens, targets, slot)[1]
    theirs = loss_and_grads(params, tokens, targets, slot)[1]
    np.testing.assert_allclose(mine.U, theirs.U, rtol=1e-9, atol=0)


def test_loss_and_gradient_forty_nats_apart_keep_their_digits():
    """−log p and p − 1 are e^−40 to rounding: 1 − e^−40 rounds to 1, and leaves nothing to subtract."""
    params = Params(np.eye(2), np.array([[40.0, 0], [0, 0]]), np.zeros((1, 1)), np.zeros((3, 3)), np.eye(2),
                    np.zeros(2), np.eye(2))
    loss, grads = batched.loss_and_grads(params, [[0]], [0])
    assert loss == pytest.approx(np.log1p(np.exp(-40)), rel=1e-14, abs=0)
    # dU[u] = (p_u − 1[u = target]) y, and y = (1, 0).
    np.testing.assert_allclose(grads.U[:, 0], np.array([-1, 1]) / (1 + np.exp(40)), rtol=1e-14)


def test_facts_as_prompts_are_all_facts_in_both_directions(rng):
    facts = Facts.latin(6, 4, rng)
    (infer, r, relations), (recall, a, answers) = batched.facts_as_prompts(facts)
    assert len(np.unique(infer, axis=0)) == len(np.unique(recall, axis=0)) == 24
    np.testing.assert_array_equal(facts.relation(infer[:, 0], infer[:, 1] - 6), r - 12)
    np.testing.assert_array_equal(facts.answer(recall[:, 0], recall[:, 1] - 12), a - 6)
    assert relations == (12, 16) and answers == (6, 12)


def test_bad_input_is_refused_as_by_the_model(rng):
    params = random_params(rng, 4, 2, 1, 3, 2, 5, 0.5)
    tokens, targets, slot = sample(Facts.latin(4, 2, rng), 1, 3, rng).infer()
    with pytest.raises(ValueError, match="tokens: "):
        batched.loss_and_grads(params, tokens + 20, targets, slot)
    with pytest.raises(ValueError, match="slot: "):
        batched.loss_and_grads(params, tokens, targets, 3)
    with pytest.raises(ValueError, match="activation: "):
        batched.loss_and_grads(params, tokens, targets, slot, "tanh")


def both(params, *steps):
    """Loss and gradients of both steps together."""
    (a, da), (b, db) = (batched.loss_and_grads(params, *step, "relu") for step in steps)
    return a + b, params._make(x + y for x, y in zip(da, db))


def accuracy(params, steps):
    return [(batched.forward_pass(params, tokens, slot, "relu")[0].logits.argmax(axis=1)
             == targets - slot[0]).mean() for tokens, targets, slot in steps]


@pytest.mark.parametrize("seed", range(3))
def test_pretrained_memory_ends_in_the_pairwise_pattern(seed):
    """R12, small: one pair and (s_n, r) take 0.4 each at least, and both steps are right on new prompts."""
    rng = np.random.default_rng(seed)
    facts, n, m = Facts.latin(16, 4, rng), 2, 256
    d, L = 36, 6
    params = Params(np.eye(d), np.eye(d), np.eye(L), np.zeros((d + L, d + L)), rng.normal(0, 0.3, (m, d)),
                    np.zeros(m), rng.normal(0, m ** -0.5, (d, m)))
    steps = batched.facts_as_prompts(facts)
    for last in sgd.train(params, [steps] * 150, both, 1.0, 0.9, trained=("W1", "b1", "W2")):
        pass
    assert accuracy(last.params, steps) == [1, 1]
    positions = np.zeros_like(params.WKQ)
    positions[d + 2 * n:, d:] = 1
    start = last.params._replace(WKQ=positions * rng.normal(0, 0.1, positions.shape))

    def positions_only(params, *steps):
        loss, grads = both(params, *steps)
        return loss, grads._replace(WKQ=positions * grads.WKQ)
    prompts = sample(facts, n, 128, rng)
    batch = prompts.infer(), prompts.recall()
    for last in sgd.train(start, [batch] * 200, positions_only, 0.5, 0.9, trained=("WKQ",)):
        pass
    test = sample(facts, n, 200, rng)
    assert min(accuracy(last.params, (test.infer(), test.recall()))) >= 0.99
    infer, recall = (batched.forward_pass(last.params, tokens[:1], slot, "relu")[0].attention[0]
                     for tokens, _, slot in (test.infer(), test.recall()))
    best = 2 * (infer[0:-1:2] + infer[1::2]).argmax()
    assert infer[best:best + 2].min() >= 0.4 and recall[-2:].min() >= 0.4
