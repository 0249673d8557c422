"""The claims of what breaks assumptions: wrong answers (R19), collisions (R20), a trained memory (R12)."""

from itertools import combinations, permutations, product, repeat

import numpy as np
from scipy.special import softmax

from refimpl import sgd
from refimpl.claims.claim import OURS, claim
from refimpl.claims.finetuning import flow
from refimpl.claims.recall import attend, in_all_relations
from refimpl.recall import batched, implicit, theory
from refimpl.recall.memory import construct
from refimpl.recall.model import init, loss
from refimpl.recall.task import Facts, Prompts, collide, sample


@claim("R19", "wrong answers leave the accuracy 1 − p_e^n", kind="inequality", cases=8,
       derivation=theory.noisy_accuracy, control="only the strongest pair is looked at: 1 − p_e",
       control_space=dict(n=(2, 4), p=(0.2, 0.8)), tolerance=0.0, reason="a bound with its confidence",
       n=(1, 4), R=(2, 8), lam=(1.0, 20.0), p=(0.0, 1.0), spread=(0.1, 1.5), **OURS)
def wrong_answers(case, n, R, lam, p, spread, N=2 ** 16, count=10_000):
    """|accuracy of the model − law| on noisy prompts; and where no pair i ≠ j votes, a right pair decides.

    A mean of `count` answers is off by more than √(log(2·10⁶)/(2 count)) once in a million (Hoeffding).
    """
    facts = Facts.latin(N, R, case.rng)
    prompts = sample(facts, n, count, case.rng)
    shown = prompts.answers[:, :-1]
    wrong = case.rng.random(shown.shape) < p
    shown[wrong] = case.rng.integers(0, N, wrong.sum())
    w = case.rng.normal(0, spread, 2 * n + 1)
    right = implicit.forward(implicit.Steps(w, np.zeros(2 * n + 2)), facts, prompts, lam).infer.margins > 0
    relation = facts.relation(prompts.subjects[:, :, None], shown[:, None, :])
    own = relation[:, np.arange(n), np.arange(n)] == prompts.relation[:, None]
    votes = (relation >= 0).sum(axis=(1, 2)) > own.sum(axis=1)
    law, error = theory.noisy_accuracy(p, n, N, R)
    chance = np.sqrt(np.log(2e6) / (2 * count))
    if case.control:
        law = 1 - p * (1 - 1 / N)
    return ((abs(right.mean() - law), (right != own.any(axis=1))[~votes].mean(), votes.mean()),
            (error + chance, 0.0, error + chance), 1.0)


@claim("R19b", "noisy loss: a mean over the sets of right pairs", derivation=theory.noisy_loss,
       control="a wrong answer is that of another relation", reason="rounding, relative to lam",
       control_space=dict(p=(0.2, 0.8), lam=(1.0, 20.0)), n=(1, 3), R=(2, 5), lam=(0.1, 20.0), p=(0.0, 1.0),
       **OURS)
def noisy_loss(case, n, R, lam, p):
    """The model's losses on prompts of every set of right pairs; wrong answers lie in no row."""
    facts = Facts.latin((2 * n + 1) * R, R, case.rng)
    s, r = np.argsort(facts.sigma)[:(2 * n + 1) * R:R], case.rng.integers(0, R)
    params, alpha = attend(case, construct(facts, n, lam), 2 * n + 1, "random")
    true, total = facts.answer(s[:n + 1], r), 0.0
    wrong = facts.answer(s[:n], (r + 1) % R) if case.control else facts.answer(s[n + 1:], r)
    for right in product((False, True), repeat=n):
        shown = np.append(np.where(right, true[:-1], wrong), true[-1])
        prompt = Prompts(facts.N, R, s[None, :n + 1], np.array([r]), shown[None])
        total += np.prod(np.where(right, 1 - p, p)) * loss(params, *prompt.infer())
    return theory.noisy_loss(alpha[0::2], alpha[1::2], p, R, lam), total, lam


def all_prompts(facts, n):
    """Every prompt of a table, up to turns of the cycle, under which nothing changes."""
    places = np.array([(0, *rest) for rest in permutations(range(1, facts.N), n)])
    return in_all_relations(facts, np.argsort(facts.sigma)[places])


@claim("R20", "how often random prompts are collision-free", derivation=theory.collision_free_probability,
       control="shifts 0, 1, 3, not consecutive", control_space=dict(n=(1, 1), N=(8, 11), R=(3, 3)),
       n=(1, 4), N=(2, 11), R=(1, 5), **OURS)
def collision_free(case, n, N, R):
    """All sets of subjects of a table."""
    n, R = min(n, N - 1), min(R, N)
    facts = Facts.latin(N, R, case.rng)
    facts = Facts(facts.pi, facts.sigma, np.array([0, 1, 3])) if case.control else facts
    subjects = np.array(list(combinations(range(N), n + 1)))
    return theory.collision_free_probability(n, N, R), 1 - collide(facts, subjects).mean(), 1.0


@claim("R20b", "what collisions add to the loss, to first order in 1/N", kind="inequality", cases=15,
       derivation=theory.collision_loss, control="collisions are ignored", reason="rounding, relative to lam",
       control_space=dict(n=(1, 1), R=(2, 3), spread=(0.1, 0.5), lam=(2.0, 20.0)),
       n=(1, 2), R=(1, 3), spare=(0, 6), lam=(0.1, 20.0), spread=(0.1, 2.0), **OURS)
def collisions_add(case, n, R, spare, lam, spread):
    """|mean loss of the model over all prompts − first order|, at random attention."""
    facts = Facts.latin(max(2 * R, 4) + spare, R, case.rng)
    w = case.rng.normal(0, spread, 2 * n + 1)
    u, v = softmax(w)[0::2], softmax(w)[1::2]
    first, error = theory.collision_loss(u, v, facts.N, R, lam)
    if case.control:
        first = theory.infer_loss(u, v, R, lam)
    trace = implicit.forward(implicit.Steps(w, np.zeros(2 * n + 2)), facts, all_prompts(facts, n), lam).infer
    return abs(trace.losses.mean() - first), error, lam


@claim("R20c", "collisions move the flow by at most 4 or 8 lam (1 − P)", kind="inequality", cases=8,
       derivation=theory.population_bounds, control="all answers shown are those of the next relation",
       reason="rounding, relative to lam", n=(1, 2), R=(2, 4), spare=(0, 6), lam=(1.0, 20.0),
       table=("small", "large"), control_space=dict(table=("large",), R=(3, 4), lam=(1.0, 4.0)), **OURS)
def collisions_move_the_flow(case, n, R, spare, lam, table):
    """Sums of |F − flow| over the positions, along 8 steps of SGD on all prompts from a random start.

    In a large table, one pair, collisions are rare and the bound is small: there the control shows.
    """
    n, spare = (1, spare + 300) if table == "large" else (n, spare)
    facts = Facts.latin((n + 1) * R + spare, R, case.rng)
    prompts = all_prompts(facts, n)
    if case.control:
        prompts.answers[:, :-1] = facts.answer(prompts.subjects[:, :-1], (prompts.relation[:, None] + 1) % R)
    weights, moved = implicit.Steps(*(case.rng.normal(0, 0.3, 2 * n + T) for T in (1, 2))), []
    for last in sgd.train(weights, repeat((facts, prompts, lam), 8), implicit.loss_and_grads, 2 / lam):
        grads = implicit.loss_and_grads(last.params, facts, prompts, lam)[1]
        moved.append([np.abs(grad + flow(w, facts, lam)).sum() for grad, w in zip(grads, last.params)])
    return np.array(moved), np.tile(theory.population_bounds(n, facts.N, R, lam), (8, 1)), lam


@claim("R12", "a pretrained memory ends in the same pattern", kind="inequality", cases=3,
       source="HNLG26 (statement), this project (sizes)", provenance="formalised", tolerance=0.0,
       reason="thresholds", control="the memory is not trained", N=(12, 14))
def pretrained_memory(case, N, R=3, n=2, width=128):
    """Measured, no derivation: weights of the winning pair and of (s_n, r), and accuracies on new prompts.

    A ReLU memory is trained by SGD on all facts to full recall, and frozen; then WKQ is, position-only, on
    random prompts. The pattern is that of R9: one pair takes nearly all to infer, the query and the relation
    nearly all to recall. Each instance is a table, a memory and a start of its own. One-hot embeddings: with
    random ones of 40 dimensions 2 of 60 runs ended in the trap of R13.
    """
    facts, d, L = Facts.latin(N, R, case.rng), 2 * N + R, 2 * n + 2
    params = init(N, R, n, d, L, width, case.rng)._replace(E=np.eye(d), U=np.eye(d), P=np.eye(L))

    def both(params, *steps):
        """Loss and gradients of both steps together; of WKQ the block of the positions alone."""
        (a, da), (b, db) = (batched.loss_and_grads(params, z, targets, slot, "relu")
                            for z, targets, slot in steps)
        grads = params._make(x + y for x, y in zip(da, db))
        grads.WKQ[:d], grads.WKQ[:, :d] = 0, 0
        return a + b, grads
    if not case.control:
        *_, last = sgd.train(params, repeat(batched.facts_as_prompts(facts), 150), both, 1.0, 0.9,
                             trained=("W1", "b1", "W2"))
        params = last.params
    params.WKQ[d:, d:] = case.rng.normal(0, 0.1, (L, L))
    train, test = (sample(facts, n, count, case.rng) for count in (32, 200))
    *_, last = sgd.train(params, repeat((train.infer(), train.recall()), 100), both, 0.5, 0.9,
                         trained=("WKQ",))
    seen = []
    for tokens, targets, slot in (test.infer(), test.recall()):
        trace, _ = batched.forward_pass(last.params, tokens, slot, "relu")
        seen += [(trace.logits.argmax(axis=1) == targets - slot[0]).mean(), trace.attention[0]]
    return (np.array([0.95, 0.95, 0.85, 0.85]),
            np.array([seen[0], seen[2], (seen[1][0:-1:2] + seen[1][1::2]).max(), seen[3][-2:].sum()]))
