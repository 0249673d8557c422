"""The claims of system R, each as a check of one instance: prediction by theory, observation by model.

Tables are random Latin ones, the months and the pitch classes; attention is random, uniform, or all
on one token. The control of most claims is a table that is not Latin: two subjects share one row.
"""

import numpy as np

from refimpl import sgd
from refimpl.claims.claim import claim
from refimpl.recall import implicit, theory
from refimpl.recall.memory import construct
from refimpl.recall.model import Params, forward, loss, loss_and_grads, with_position_logits
from refimpl.recall.task import Facts, Prompts, sample
from refimpl.recall.theory.logits import softmax

TABLES = ("months", "pitches", "latin")
ATTENTION = ("random", "uniform", "one token")
SPREAD = ATTENTION[:2]          # where no token has all of it
NOT_LATIN = "two subjects share a row, so the table is not Latin"
COLLIDING = "subjects are neighbours on the cycle, so that rows collide"


def draw_facts(case, table, N, R):
    """The table of that name, with at most N − 1 relations where its size is given."""
    if table == "months":
        return Facts.months(min(R, 11))
    if table == "pitches":
        return Facts.pitches(min(R, 11))
    return Facts.latin(N, R, case.rng)


def share_row(facts, s, other):
    """The same table, except that `other` gets the answers of s: no g(·, r) is a bijection."""
    sigma = facts.sigma.copy()
    sigma[other] = sigma[s]
    return Facts(facts.pi, sigma, facts.shifts, is_latin=False)


def draw_prompt(case, table, n, R, spare):
    """A table and a prompt, colliding or not; for a control the table is not Latin."""
    facts = draw_facts(case, table, max(R, n + 1) + spare, R)
    prompts = sample(facts, n, 1, case.rng)
    show(case, prompts)
    return share_row(facts, *prompts.subjects[0, [0, -1]]) if case.control else facts, prompts


def draw_disjoint(case, table, n, R, spare, control="", room="twice"):
    """A table, and a collision-free prompt: its rows are all answers, or at most half of a Latin table.

    For the control COLLIDING the subjects are moved together, for NOT_LATIN the table is changed.
    """
    # Of 12 answers, rows of more than one pair leave one over at least: prompts that fill them are rare.
    R = R if table == "latin" else min(R, (12 if n == 1 else 11) // (n + 1))
    facts = draw_facts(case, table, (n + 1) * R if room == "exact" else 2 * (n + 1) * R + spare, R)
    prompts = sample(facts, n, 1, case.rng, collision_free=True)
    if case.control and control == COLLIDING:
        s, r = np.argsort(facts.sigma)[None, :n + 1], prompts.relation
        prompts = Prompts(facts.N, facts.R, s, r, facts.answer(s, r[:, None]))
    if case.control and control == NOT_LATIN:
        facts = share_row(facts, *prompts.subjects[0, [0, -1]])
    show(case, prompts)
    return facts, prompts


def one_prompt(facts, n, r=0):
    """A collision-free prompt of relation r, subjects R apart on the cycle."""
    s = np.argsort(facts.sigma)[None, :(n + 1) * facts.R:facts.R]
    return Prompts(facts.N, facts.R, s, np.array([r]), facts.answer(s, r))


def show(case, prompts):
    """Tell the reader of `explain` the first prompt: pairs of subject and answer, query, what is asked."""
    *pairs, (query, answer) = zip(prompts.subjects[0], prompts.answers[0])
    case.show("prompt", f"{', '.join(f'{s} {a}' for s, a in pairs)}, {query} …?")
    case.show("asked", f"relation {prompts.relation[0]}, then answer {answer}")


def attend(case, params, length, attention):
    """Params whose attention over a prompt of this length is of the given kind, and that attention."""
    w = case.rng.normal(0, 2, length)
    if attention == "uniform":
        w[:] = 0
    if attention == "one token":
        w[:] = -800.0
        w[case.rng.integers(length)] = 0
    w = case.number(w)
    return with_position_logits(case.number(params), w), softmax(w)


@claim("R1", "the table is Latin, and rho inverts it", source="HNLG26 (facts), this project (table)",
       provenance="formalised", derivation=Facts, tolerance=0.0, reason="integers",
       control=NOT_LATIN, table=TABLES, R=(1, 11), spare=(0, 20))
def table_is_latin(case, table, R, spare):
    """Every column a permutation; every (s, a) has the one relation that leads there, or none."""
    facts = draw_facts(case, table, max(R + spare, 2), R)
    if case.control:
        facts = share_row(facts, *case.rng.permutation(facts.N)[:2])
    N, R = facts.N, facts.R
    table = facts.answer(np.arange(N)[:, None], np.arange(R))
    relation = np.full((N, N), -1)
    relation[np.arange(N)[:, None], table] = np.arange(R)
    columns = np.broadcast_to(np.arange(N)[:, None], (N, R))
    return ((columns, relation),
            (np.sort(table, axis=0), facts.relation(np.arange(N)[:, None], np.arange(N))))


OURS: dict = dict(source="this project", provenance="derived")
ANY: dict = dict(control_space=dict(attention=SPREAD), table=TABLES, attention=ATTENTION, n=(1, 4), R=(2, 8),
                 spare=(0, 16), **OURS)


@claim("R2", "votes of pairs infer the relation", derivation=theory.infer_logits, control=NOT_LATIN,
       lam=(0.1, 100.0), **ANY)
def votes_infer_the_relation(case, table, attention, n, R, spare, lam):
    """Logits of all relations at any attention, colliding prompts included."""
    facts, prompts = draw_prompt(case, table, n, R, spare)
    s, a = prompts.subjects[0], prompts.answers[0]
    tokens, _, (start, stop) = prompts.infer()
    params, alpha = attend(case, construct(facts, n, lam), 2 * n + 1, attention)
    predicted = theory.infer_logits(alpha[0::2], alpha[1::2], facts.relation(s[:, None], a[:-1]),
                                    facts.R, lam)
    return predicted, forward(params, tokens[0]).logits[start:stop]


@claim("R3", "recall of the answer", derivation=theory.recall_logits, control=NOT_LATIN,
       lam=(0.1, 100.0), **ANY)
def recall_of_the_answer(case, table, attention, n, R, spare, lam):
    """Logits of all answers at any attention, colliding prompts included."""
    facts, prompts = draw_prompt(case, table, n, R, spare)
    s, r = prompts.subjects[0], prompts.relation[0]
    tokens, _, (start, stop) = prompts.recall()
    params, alpha = attend(case, construct(facts, n, lam), 2 * n + 2, attention)
    predicted = theory.recall_logits(alpha[0:2 * n + 1:2], alpha[-1],
                                     facts.answer(s[:, None], np.arange(facts.R)), r, facts.N, lam)
    return predicted, forward(params, tokens[0]).logits[start:stop]


@claim("R4", "losses of both steps, answer rows disjoint", derivation=theory.recall_loss,
       control=COLLIDING, room=("exact", "twice"), lam=(0.1, 20.0),
       reason="rounding, relative to lam: a loss near 0 is what is left of logits of that size", **ANY)
def losses_of_both_steps(case, table, attention, room, n, R, spare, lam):
    """L_infer and L_recall of the model on one collision-free prompt."""
    n = 1 if room == "exact" else n     # with more pairs a prompt that fills the table is rare
    facts, prompts = draw_disjoint(case, table, n, R, spare, COLLIDING, room)
    memory = construct(facts, n, lam)
    params, alpha = attend(case, memory, 2 * n + 1, attention)
    predicted_infer = theory.infer_loss(alpha[0::2], alpha[1::2], facts.R, lam)
    observed_infer = loss(params, *prompts.infer())
    params, alpha = attend(case, memory, 2 * n + 2, attention)
    predicted_recall = theory.recall_loss(alpha[0:2 * n + 1:2], alpha[-1], facts.N, facts.R, lam)
    observed_recall = loss(params, *prompts.recall())
    return [predicted_infer, predicted_recall], [observed_infer, observed_recall], lam


@claim("R15", "no unit is stored: losses and training of both steps", derivation=implicit, cases=15,
       control=NOT_LATIN, tolerance=1e-11, table=TABLES, attention=("full", "position-only"),
       reason="rounding of logits up to lam in three steps, which may amplify it",
       shown=("true", "noisy"), n=(1, 3), R=(1, 5), spare=(0, 8), count=(1, 3), lam=(0.1, 20.0), **OURS)
def no_unit_is_stored(case, table, attention, shown, n, R, spare, count, lam):
    """Losses, margins and WKQ of the dense model, trained for three steps on both losses together."""
    facts = draw_facts(case, table, max(R, n + 1) + spare, R)
    prompts = sample(facts, n, count, case.rng)
    if shown == "noisy":
        prompts.answers[:, :-1] = case.rng.integers(0, facts.N, (count, n))
    show(case, prompts)
    known = implicit.seen(prompts)
    index = implicit.index(known, prompts) if attention == "full" else None
    table = share_row(facts, *prompts.subjects[0, [0, -1]]) if case.control else facts
    params, lr = construct(table, n, lam), 1 / lam
    V, L = len(params.E), len(params.P)
    if attention == "position-only":
        known = implicit.Steps(*((V + T - 1) * (V + L) + V + np.arange(T) for T in (L - 1, L)))
    weights = implicit.Steps(*(case.rng.normal(0, 1, len(ids)) for ids in known))

    def dense(weights):
        """WKQ with these entries, and zeros elsewhere."""
        WKQ = np.zeros((V + L, V + L))
        for ids, values in zip(known, weights):
            WKQ.flat[ids] = values
        return WKQ

    moving = dense(implicit.Steps(1, 1))

    def both(params):
        """Loss of both steps together; its gradient, in the entries that may move."""
        (a, da), (b, db) = (loss_and_grads(params, *step) for step in (prompts.infer(), prompts.recall()))
        return a + b, da._replace(WKQ=(da.WKQ + db.WKQ) * (moving if index is None else 1))

    arguments = facts, prompts, lam, index
    ours = list(sgd.train(weights, [arguments] * 3, implicit.loss_and_grads, lr, 0.9))
    start = params._replace(WKQ=dense(weights))
    theirs = list(sgd.train(start, [()] * 3, both, lr, 0.9, trained=("WKQ",)))
    end = implicit.forward(ours[-1].params, *arguments)
    margins = []
    for tokens, targets, (first, stop) in (prompts.infer(), prompts.recall()):
        for z, target in zip(tokens, targets):
            logits = forward(theirs[-1].params, z).logits
            others = np.delete(logits[first:stop], target - first)
            margins.append(min(logits[target] - others.max(initial=-np.inf), lam))
    # Losses and margins may vanish; they come from logits of size lam.
    return ((np.array([step.loss for step in ours]), dense(ours[-1].params),
             np.minimum(np.concatenate([end.infer.margins, end.recall.margins]), lam)),
            (np.array([step.loss for step in theirs]), theirs[-1].params.WKQ, np.array(margins)),
            (lam, 0.0, lam))


@claim("RG", "all seven gradients against the complex step", derivation=loss_and_grads, cases=10,
       reason="rounding; relative to the largest entry of each gradient", control="dWKQ transposed",
       control_space=dict(activation=("square",)), activation=("square", "relu"), over=("slot", "vocabulary"),
       N=(2, 4), R=(2, 3), n=(1, 2), d=(1, 4), dp=(1, 3), m=(2, 6), count=(1, 2), scale=(0.3, 1.0), **OURS)
def gradients(case, activation, over, N, R, n, d, dp, m, count, scale):
    """Random weights, prompts of both steps: every coordinate of every field.

    One hidden unit stands exactly at 0, where the derivative of relu is taken as 0.
    """
    R, n = min(R, N), min(n, N - 1)
    prompts = sample(Facts.latin(N, R, case.rng), n, count, case.rng)
    V, L = 2 * N + R, 2 * n + 2
    shapes = (V, d), (V, d), (L, dp), (d + dp, d + dp), (m, d), (m,), (d, m)
    params = Params(*(case.rng.normal(0, float(scale), shape) for shape in shapes))
    if not case.balls:      # at a kink there is no derivative to enclose
        params.W1[0] = params.b1[0] = 0
    pairs = []
    for tokens, targets, slot in (prompts.infer(), prompts.recall()):
        step = tokens, targets, slot if over == "slot" else None, activation
        grads = loss_and_grads(case.around(params), *step)[1]
        if case.control:
            grads = grads._replace(WKQ=grads.WKQ.T)
        pairs.append((case.derivative(lambda p: loss(p, *step), params), grads))
    return tuple(zip(*pairs))
