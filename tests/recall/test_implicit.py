"""The memory without hidden units against the dense model and against explicit sums over all answers."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.special import logsumexp, softmax

from refimpl import sgd
from refimpl import check
from refimpl.recall import (
    Facts, construct, implicit, loss_and_grads, position_logits, sample, theory, with_position_logits)
from tests.strategies import seeds, tables

# Logits are sums of some ten products of size lam: a hundred roundings of it.
ROUNDING = 1e-13
strengths = st.sampled_from([0.1, 1.0, 50.0])
values = st.sampled_from([0.0, 0.5, -800.0]) | st.floats(-3, 3)


def dense(params, known, weights):
    """The model with these entries of WKQ."""
    WKQ = np.zeros_like(params.WKQ)
    for ids, w in zip(known, weights):
        WKQ.flat[ids] = w
    return params._replace(WKQ=WKQ)


@given(st.integers(1, 3), st.integers(1, 3), strengths, st.booleans(), st.data(), seeds)
def test_gradients_match_the_dense_model(n, count, lam, noisy, data, seed):
    """Colliding rows, equal weights, hard attention, wrong answers, and the same prompt twice."""
    rng = np.random.default_rng(seed)
    facts = data.draw(tables(n))
    prompts = sample(facts, n, count, rng)
    if noisy:
        prompts.answers[:, :-1] = rng.integers(0, facts.N, (count, n))
    prompts = prompts._replace(**{name: np.repeat(getattr(prompts, name), 2, axis=0)
                                  for name in ("subjects", "relation", "answers")})
    known = implicit.seen(prompts)
    drawn = data.draw(st.lists(values, min_size=1, max_size=5))
    weights = implicit.Steps(*(rng.choice(drawn, len(ids)) for ids in known))
    loss, grads = implicit.loss_and_grads(weights, facts, prompts, lam, implicit.index(known, prompts))
    model, total = dense(construct(facts, n, lam), known, weights), 0
    for step, grad, ids in zip((prompts.infer(), prompts.recall()), grads, known):
        part, theirs = loss_and_grads(model, *step)
        total += part
        assert np.abs(theirs.WKQ.flat[ids] - grad).max() <= ROUNDING * lam
        assert np.count_nonzero(theirs.WKQ) <= len(ids)
    assert loss == pytest.approx(total, abs=ROUNDING * lam)


@pytest.mark.parametrize("N, R, n", [(2, 1, 1), (2, 2, 1), (3, 3, 2)])
def test_smallest_tables(N, R, n, rng):
    """No more answers than the rows hold: nobody is left to be counted."""
    facts = Facts.latin(N, R, rng)
    prompts = sample(facts, n, 4, rng)
    weights = implicit.Steps(rng.normal(0, 1, 2 * n + 1), rng.normal(0, 1, 2 * n + 2))
    loss, grads = implicit.loss_and_grads(weights, facts, prompts, 5.0)
    params = construct(facts, n, 5.0)
    for w in weights:
        params = with_position_logits(params, w)
    parts = [loss_and_grads(params, *step) for step in (prompts.infer(), prompts.recall())]
    assert loss == pytest.approx(parts[0][0] + parts[1][0], abs=1e-12)
    for (_, theirs), w, grad in zip(parts, weights, grads):
        np.testing.assert_allclose(grad, position_logits(theirs, len(w)), atol=1e-12)


def test_one_relation_leaves_nothing_to_infer(rng):
    facts = Facts.latin(5, 1, rng)
    trace = implicit.forward(implicit.Steps(np.zeros(3), np.zeros(4)), facts, sample(facts, 1, 3, rng), 2.0)
    assert (trace.infer.losses == 0).all() and (trace.infer.margins == np.inf).all()


def test_other_answers_are_counted_not_listed(rng):
    """Losses and margins against all of a hundred thousand logits, rows that collide included."""
    facts, n, lam = Facts.latin(100_000, 7, rng), 2, 9.0
    prompts = sample(facts, n, 3, rng)
    s = np.argsort(facts.sigma)[:3]             # neighbours on the cycle
    prompts.subjects[0], prompts.answers[0] = s, facts.answer(s, prompts.relation[0])
    weights = implicit.Steps(rng.normal(0, 1, 5), rng.normal(0, 1, 6))
    trace = implicit.forward(weights, facts, prompts, lam)
    for b in range(3):
        for step, T in zip(trace, (5, 6)):
            np.testing.assert_allclose(step.attention[b], softmax(weights[T - 5]), rtol=1e-14)
        s, r, a = prompts.subjects[b], prompts.relation[b], prompts.answers[b]
        u, v = trace.infer.attention[b, 0::2], trace.infer.attention[b, 1::2]
        votes = theory.infer_logits(u, v, facts.relation(s[:, None], a[:-1]), 7, lam)
        alpha = trace.recall.attention[b]
        answers = theory.recall_logits(alpha[0:-1:2], alpha[-1], facts.answer(s[:, None], np.arange(7)),
                                       r, facts.N, lam)
        for step, logits, target in ((trace.infer, votes, r), (trace.recall, answers, a[-1])):
            assert step.losses[b] == pytest.approx(logsumexp(logits) - logits[target], rel=1e-12)
            assert step.margins[b] == pytest.approx(logits[target] - np.delete(logits, target).max())


def test_confident_losses_keep_their_digits():
    """Where p is nearly 1, the loss is what is left of 1 − p; and it is large where p is nearly 0."""
    for logits, rest in (([90.0, 0.0], 10 ** 9), ([0.0, 300.0], 5), ([-5.0], 3),
                         ([-5.0, -7.0], 1)):
        logits, dlogits = np.array(logits), np.empty(len(logits))
        loss, margin = implicit.cross_entropy(logits, 0, rest, dlogits)
        others = np.append(logits[1:], np.log(rest))
        wrong = logsumexp(others) - logsumexp(np.append(others, logits[0]))
        assert loss == pytest.approx(np.logaddexp(0, logsumexp(others) - logits[0]), rel=1e-12)
        assert dlogits[0] == pytest.approx(-np.exp(wrong), rel=1e-12)
        assert margin == logits[0] - max(logits[1:].max(initial=0), 0)


def test_losses_and_gradients_forty_nats_apart_keep_their_digits(rng):
    """1 − e^−40 rounds to 1, and leaves nothing to subtract: −log p and p − 1 come from the others' share.

    All attention is on one pair, or on s_n and r: u = 2/3 and v = 1/3, so that 2 lam u v = 40.
    """
    N, R, lam, u, v = 12, 3, 90.0, 2 / 3, 1 / 3
    facts, w = Facts.latin(N, R, rng), np.log(2)
    prompts = sample(facts, 1, 5, rng, collision_free=True)
    weights = implicit.Steps(np.array([w, 0, -800]), np.array([-800, -800, w, 0]))
    trace = implicit.forward(weights, facts, prompts, lam)
    _, grads = implicit.loss_and_grads(weights, facts, prompts, lam)
    # The other relations have logit 0; the other answers of s_n have lam u², those of nobody 0.
    behind, nobody = (R - 1) * np.exp(-40), (N - R) * np.exp(-80)
    np.testing.assert_allclose(trace.infer.losses, np.log1p(behind), rtol=1e-12)
    np.testing.assert_allclose(trace.recall.losses, np.log1p(behind + nobody), rtol=1e-12)
    # With e = p − 1 at the target: dL/du = 2 lam v e and dL/dv = 2 lam u e, times u v by the softmax.
    infer = 2 * lam * u * v * (u - v) * behind / (1 + behind)
    np.testing.assert_allclose(grads.infer[:2], [infer, -infer], rtol=1e-12)
    np.testing.assert_allclose(grads.recall[2:], [infer, -infer], rtol=1e-12)


def test_entries_are_those_of_the_prompts_alone(rng):
    """Eight entries a token and step at most, whatever N; a prompt of new tokens reads positions only."""
    facts = Facts.latin(10 ** 6, 3, rng)
    prompts, n, L = sample(facts, 2, 4, rng), 2, 6
    known = implicit.seen(prompts)
    assert [len(ids) <= 4 * 4 * T for ids, T in zip(known, (5, 6))] == [True, True]
    index = implicit.index(known, prompts)
    assert all((place >= 0).all() for place in index)
    new = sample(facts, n, 4, rng)
    assert not np.isin(new.subjects, prompts.subjects).any()
    place = implicit.index(known, new).infer
    assert (place[..., :3] == [-1, -1, -1]).all(axis=2).sum() == 4 * 5 and (place[..., 3] >= 0).all()
    V = 2 * facts.N + facts.R
    np.testing.assert_array_equal(known.infer[place[0, :, 3]], (V + 4) * (V + L) + V + np.arange(5))
    weights = implicit.Steps(*(rng.normal(0, 1, len(ids)) for ids in known))
    trace = implicit.forward(weights, facts, new, 3.0, implicit.index(known, new))
    np.testing.assert_allclose(trace.infer.attention, softmax(weights.infer[place[..., 3]], axis=1))


def test_entries_that_are_not_known_are_zero_and_have_no_gradient(rng):
    """Known are those of the first prompts but the last few; the other prompts read more, and fewer."""
    facts = Facts.latin(7, 2, rng)
    prompts = sample(facts, 2, 6, rng)
    first, others = (prompts._replace(subjects=prompts.subjects[b], relation=prompts.relation[b],
                                      answers=prompts.answers[b]) for b in (slice(3), slice(2, None)))
    known = implicit.Steps(*(ids[:-9] for ids in implicit.seen(first)))
    weights = implicit.Steps(*(rng.normal(0, 1, len(ids)) for ids in known))
    index = implicit.index(known, others)
    loss, grads = implicit.loss_and_grads(weights, facts, others, 5.0, index)
    model, total = dense(construct(facts, 2, 5.0), known, weights), 0
    for step, place, grad, ids in zip((others.infer(), others.recall()), index, grads, known):
        assert (place == -1).any() and not np.isin(np.arange(len(ids)), place).all()
        part, theirs = loss_and_grads(model, *step)
        total += part
        np.testing.assert_allclose(grad, theirs.WKQ.flat[ids], rtol=0, atol=1e-12)
    assert loss == pytest.approx(total, abs=1e-12)
    everything = implicit.Steps(*(ids[:-9] for ids in implicit.seen(prompts)))
    zeros = implicit.Steps(*(np.zeros(len(ids)) for ids in everything))
    for b in range(6):      # most do not read the last one that is known
        one = prompts._replace(**{name: getattr(prompts, name)[b:b + 1]
                                  for name in ("subjects", "relation", "answers")})
        grads = implicit.loss_and_grads(zeros, facts, one, 5.0, implicit.index(everything, one))[1]
        assert [len(grad) for grad in grads] == [len(ids) for ids in everything]


def test_steps_share_no_entry(rng):
    known = implicit.seen(sample(Facts.latin(6, 4, rng), 2, 50, rng))
    assert not np.isin(known.infer, known.recall).any()


@pytest.mark.parametrize("seed", range(5))
def test_position_only_training_ends_in_the_pairwise_pattern(seed):
    """One pair at ½ + ½, its gap at most 1e-3 of its weight; the query and r; accuracy 1 in both steps."""
    rng = np.random.default_rng(seed)
    facts, n, lam = Facts.latin(64, 8, rng), 4, 10.0
    prompts = sample(facts, n, 4, rng, collision_free=True)
    start = implicit.Steps(rng.normal(0, 0.5, 2 * n + 1), rng.normal(0, 0.5, 2 * n + 2))
    for last in sgd.train(start, [(facts, prompts, lam)] * 1500, implicit.loss_and_grads, 0.3, 0.9):
        pass
    trace = implicit.forward(last.params, facts, sample(facts, n, 500, rng), lam)
    assert (trace.infer.margins > 0).all() and (trace.recall.margins > 0).all()
    alpha = trace.infer.attention[0]
    pairs = alpha[0:-1:2] + alpha[1::2]
    best = pairs.argmax()
    assert pairs[best] > 0.98
    assert abs(alpha[2 * best] - alpha[2 * best + 1]) <= 1e-3 * pairs[best]
    x = theory.recall_end_point(64, 8, lam)
    np.testing.assert_allclose(trace.recall.attention[0, -2:], [x, 1 - x], atol=5e-3)


MEMORY = """
import resource, numpy as np
from refimpl import sgd
from refimpl.recall import Facts, implicit, sample
rng = np.random.default_rng(0)
facts = Facts.latin(2 ** 22, 32, rng)
prompts = sample(facts, 4, 64, rng)
start = implicit.Steps(rng.normal(0, 0.1, 9), rng.normal(0, 0.1, 10))
for last in sgd.train(start, [(facts, prompts, 40.0)] * 100, implicit.loss_and_grads, 0.3):
    pass
trace = implicit.forward(last.params, facts, sample(facts, 4, 500, rng), 40.0)
print(min(trace.infer.margins.min(), trace.recall.margins.min()), facts.N * facts.R,
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.jit
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux")
def test_a_hundred_million_facts_take_less_than_a_gibibyte():
    result = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    margin, facts, peak = map(float, result.stdout.split())
    assert margin > 0 and facts >= 1e8 and peak < 2 ** 20


def arguments(rng):
    facts = Facts.latin(9, 3, rng)
    return dict(weights=implicit.Steps(np.zeros(5), np.zeros(6)), facts=facts,
                prompts=sample(facts, 2, 4, rng), lam=2.0)


@pytest.mark.parametrize("change, message", [
    (lambda a: dict(lam=-1.0), "lam: "),
    (lambda a: dict(facts=Facts(np.arange(9), np.zeros(9, int), np.arange(3), is_latin=False)), "facts: "),
    (lambda a: dict(prompts=a["prompts"]._replace(N=10)), "prompts: "),
    (lambda a: dict(prompts=a["prompts"]._replace(relation=np.zeros(3, int))), "prompts: "),
    (lambda a: dict(prompts=a["prompts"]._replace(subjects=np.zeros((4, 3), int))), "subjects: "),
    (lambda a: dict(prompts=a["prompts"]._replace(subjects=np.full((4, 3), 9))), "subjects: "),
    (lambda a: dict(prompts=a["prompts"]._replace(answers=(a["prompts"].answers + 1) % 9)), "answers: "),
    (lambda a: dict(weights=implicit.Steps(np.zeros(6), np.zeros(6))), "weights.infer: "),
    (lambda a: dict(weights=implicit.Steps(np.zeros(5), np.full(6, np.nan))), "weights.recall: "),
    (lambda a: dict(index=implicit.Steps(np.zeros((4, 5, 3), int), np.zeros((4, 6, 3), int))), "index: "),
    (lambda a: dict(index=implicit.index(implicit.seen(a["prompts"]), a["prompts"])), "index: "),
])
def test_bad_arguments_are_refused(change, message, rng):
    given = arguments(rng)
    implicit.loss_and_grads(**given)
    with pytest.raises(ValueError, match=f"^{message}"):
        implicit.loss_and_grads(**{**given, **change(given)})


def test_sizes_beyond_memory_are_refused_with_the_estimate(rng, monkeypatch):
    with pytest.raises(ValueError, match="^facts: .* memory, .* GiB, got one that takes about .* GiB"):
        construct(Facts.latin(200_000, 10, rng), 2, 1.0)
    given = arguments(rng)
    monkeypatch.setattr(check.os, "sysconf", lambda name: 8)
    with pytest.raises(ValueError, match="^prompts: .* GiB"):
        implicit.loss_and_grads(**given)
    monkeypatch.delattr(check.os, "sysconf")
    implicit.loss_and_grads(**given)


def test_training_that_diverges_stops_with_its_step_and_last_loss(rng):
    given = arguments(rng)
    batch = given["facts"], given["prompts"], given["lam"]
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="step .* last finite loss"):
        for _ in sgd.train(given["weights"], [batch] * 9, implicit.loss_and_grads, 1e308, momentum=1e3):
            pass
