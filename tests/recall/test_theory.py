"""Claims R2, R3 and R4 against the model at any attention, and what happens without the assumptions."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from refimpl.recall import Facts, construct, forward, loss, sample, theory, with_position_logits

# Predictions and model add up at most some hundred products of attention weights, in different
# orders; the attention itself returns from exp(log α) to a few roundings. So errors are a few hundred
# times 1.1e-16 of the largest logit, which is about lam.
ROUNDING = 1e-12
BROKEN = 1000 * ROUNDING     # by how much a control must fail, at least


def attend(params, attention):
    """Let position i of prompts of this length get attention[i]: the position–position block alone."""
    return with_position_logits(params, np.log(attention))


class Instance:
    """One prompt, the attention on it, and what theory predicts for it and the model computes."""

    def __init__(self, facts, n, lam, rng, collision_free=False):
        prompts = sample(facts, n, 1, rng, collision_free)
        params = construct(facts, n, lam)
        s, a, r = prompts.subjects[0], prompts.answers[0], prompts.relation[0]
        N, R = self.N, self.R = facts.N, facts.R
        self.lam = lam
        tokens, target, slot = prompts.infer()
        alpha = rng.dirichlet(np.ones(2 * n + 1))
        u, v = alpha[0::2], alpha[1::2]
        model = attend(params, alpha)
        relation_of = facts.relation(s[:, None], a[:-1])
        self.infer_logits = (theory.infer_logits(u, v, relation_of, R, lam),
                             forward(model, tokens[0]).logits[2 * N:])
        self.infer_loss = theory.infer_loss(u, v, R, lam), loss(model, tokens, target, slot)
        tokens, target, slot = prompts.recall()
        alpha = rng.dirichlet(np.ones(2 * n + 2))
        self.u, self.alpha_r = alpha[0:-1:2], alpha[-1]
        model = attend(params, alpha)
        self.answer_of = facts.answer(s[:, None], np.arange(R))
        self.recall_logits = (theory.recall_logits(self.u, self.alpha_r, self.answer_of, r, N, lam),
                              forward(model, tokens[0]).logits[N:2 * N])
        self.recall_loss_observed = loss(model, tokens, target, slot)

    def recall_loss(self):
        return theory.recall_loss(self.u, self.alpha_r, self.N, self.R, self.lam), self.recall_loss_observed


def gap(pair):
    """Largest difference of predicted and observed."""
    predicted, observed = pair
    assert np.shape(predicted) == np.shape(observed)
    return np.abs(predicted - observed).max()


strengths, seeds = st.sampled_from([0.1, 1.0, 10.0, 200.0]), st.integers(0, 10 ** 6)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 8), st.data(), strengths, seeds)
def test_logits_match_claims_r2_and_r3(N, data, lam, seed):
    R, n = data.draw(st.integers(1, N)), data.draw(st.integers(1, N - 1))
    rng = np.random.default_rng(seed)
    instance = Instance(Facts.latin(N, R, rng), n, lam, rng)
    assert gap(instance.infer_logits) <= ROUNDING * lam
    assert gap(instance.recall_logits) <= ROUNDING * lam


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 3), strengths, seeds)
def test_losses_match_claim_r4(n, R, spare, lam, seed):
    rng = np.random.default_rng(seed)
    instance = Instance(Facts.latin((n + 1) * R + spare, R, rng), n, lam, rng, collision_free=True)
    # A loss is a difference of logits and the logarithm of a sum ≥ 1: rounding is that of those.
    assert gap(instance.infer_loss) <= ROUNDING * max(1, lam)
    assert gap(instance.recall_loss()) <= ROUNDING * max(1, lam)


def test_tables_that_are_not_latin_break_r2_and_r3():
    facts = Facts(np.arange(6), np.array([0, 0, 1, 2, 3, 3]), np.array([0, 1]), is_latin=False)
    for seed in range(5):
        instance = Instance(facts, 3, 1.0, np.random.default_rng(seed))
        assert gap(instance.infer_logits) > BROKEN
        assert gap(instance.recall_logits) > BROKEN


def test_collisions_break_the_inference_loss_of_r4():
    facts = Facts.latin(6, 5, np.random.default_rng(0))     # any two rows of 5 among 6 answers meet
    for seed in range(5):
        instance = Instance(facts, 2, 5.0, np.random.default_rng(seed))
        assert gap(instance.infer_logits) <= ROUNDING * 5
        assert gap(instance.infer_loss) > BROKEN


def test_collisions_break_the_recall_loss_of_r4():
    # Two neighbours on the cycle among three subjects, whose rows of 2 need 6 of the 9 answers.
    facts, collided = Facts.latin(9, 2, np.random.default_rng(0)), 0
    for seed in range(20):
        instance = Instance(facts, 2, 5.0, np.random.default_rng(seed))
        if len(np.unique(instance.answer_of)) < 6:
            collided += 1
            assert gap(instance.recall_logits) <= ROUNDING * 5
            assert gap(instance.recall_loss()) > BROKEN
    assert collided > 5


def test_recall_ties_between_context_and_truth_at_uniform_attention():
    n, N, R, lam = 3, 20, 4, 6.0
    u = np.full(n + 1, 1 / (2 * n + 2))
    row = np.arange((n + 1) * R).reshape(n + 1, R)
    logits = theory.recall_logits(u, 1 / (2 * n + 2), row, 2, N, lam)
    assert np.flatnonzero(logits == logits.max()).tolist() == row[:, 2].tolist()


def test_one_relation_costs_nothing_to_infer():
    assert theory.infer_loss([0.3, 0.4], [0.3], 1, 10.0) == 0


@pytest.mark.parametrize("call, message", [
    (lambda: theory.infer_loss([0.5], [], 2, 1.0), "u: "),
    (lambda: theory.infer_loss([0.5, 0.5], [0.1, 0.1], 2, 1.0), "v: "),
    (lambda: theory.infer_logits([[0.5, 0.5]], [0.1], [[0], [0]], 2, 1.0), "u: "),
    (lambda: theory.infer_logits([0.5, 0.5], [0.1], [[0, 0]], 2, 1.0), "relation_of: "),
    (lambda: theory.infer_logits([0.5, 0.5], [0.1], [[0], [2]], 2, 1.0), "relation_of: "),
    (lambda: theory.infer_logits([0.5, 0.5], [0.1], [[0], [-2]], 2, 1.0), "relation_of: "),
    (lambda: theory.infer_logits([0.5, 0.5], [0.1], [[0.0], [1.0]], 2, 1.0), "relation_of: "),
    (lambda: theory.recall_logits([0.5, 0.5], 0.1, [[0, 1]], 0, 4, 1.0), "answer_of: "),
    (lambda: theory.recall_logits([0.5, 0.5], 0.1, [[0, 1], [2, 4]], 0, 4, 1.0), "answer_of: "),
    (lambda: theory.recall_logits([0.5, 0.5], 0.1, [[0, 1], [2, 3]], 2, 4, 1.0), "r: "),
    (lambda: theory.recall_loss([0.5], 0.1, 4, 2, 1.0), "u: "),
    (lambda: theory.recall_loss([0.5, 0.5], 0.1, 3, 2, 1.0), "N: "),
])
def test_theory_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
