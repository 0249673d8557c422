"""The constructed memory stores every fact, and the ReLU bias tells whole matches from half ones."""

import numpy as np
import pytest

from refimpl.recall import Facts, construct, forward, sample


def facts_of(N=5, R=3, seed=0):
    return Facts.latin(N, R, np.random.default_rng(seed))


@pytest.mark.parametrize("facts", [
    facts_of(), Facts(np.arange(5), np.array([0, 0, 1, 2, 2]), np.array([2, 0, 1]), is_latin=False)])
def test_construct_writes_two_units_for_every_fact(facts):
    params = construct(facts, n=2, lam=3.0)
    N, R, d = 5, 3, 13
    stored = sorted((tuple(np.flatnonzero(key)), tuple(np.flatnonzero(value)))
                    for key, value in zip(params.W1, params.W2.T))
    expected = []
    for s in range(N):
        for r in range(R):
            a = facts.answer(s, r)
            expected += [((s, N + a), (2 * N + r,)), ((s, 2 * N + r), (N + a,))]
    assert stored == sorted(expected)
    assert set(params.W1.ravel()) == {0, 1} and set(params.W2.ravel()) == {0, 3}
    assert (params.E == np.eye(d)).all() and (params.U == np.eye(d)).all()
    assert (params.P == np.eye(6)).all()
    assert params.WKQ.shape == (d + 6, d + 6) and not params.WKQ.any() and not params.b1.any()


def test_construct_starts_from_uniform_attention():
    facts = facts_of()
    tokens, _, _ = sample(facts, 2, 1, np.random.default_rng(0)).recall()
    np.testing.assert_allclose(forward(construct(facts, 2, 1.0), tokens[0]).attention, 1 / 6, rtol=1e-15)


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("step", ["infer", "recall"])
def test_relu_memory_hears_whole_keys_only(n, step):
    facts = facts_of(N=6, R=4)
    params = construct(facts, n, lam=1.0, activation="relu")
    tokens, _, _ = getattr(sample(facts, n, 5, np.random.default_rng(n)), step)()
    for prompt in tokens:
        whole = params.W1[:, prompt].sum(axis=1) == 2
        assert whole.any() and not whole.all()
        assert ((forward(params, prompt, "relu").hidden > 0) == whole).all()


def test_relu_bias_can_be_given():
    assert (construct(facts_of(), 2, 1.0, "relu", bias=0.5).b1 == -0.5).all()
    assert not construct(facts_of(), 2, 1.0, "square", bias=0).b1.any()


@pytest.mark.parametrize("n, lam, activation, bias, message", [
    (0, 1.0, "square", None, "n: "), (1.5, 1.0, "square", None, "n: "),
    (2, 0.0, "square", None, "lam: "), (2, -1.0, "square", None, "lam: "),
    (2, np.inf, "square", None, "lam: "), (2, "1", "square", None, "lam: "),
    (2, 1.0, "tanh", None, "activation: "), (2, 1.0, "square", 0.1, "bias: "),
    (2, 1.0, "relu", -0.1, "bias: "), (2, 1.0, "relu", np.nan, "bias: "),
])
def test_construct_refuses(n, lam, activation, bias, message):
    with pytest.raises(ValueError, match=message):
        construct(facts_of(), n, lam, activation, bias)
