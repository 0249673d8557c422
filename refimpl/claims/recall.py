"""The claims of system R, each as a check of one instance: prediction by theory, observation by model.

Tables are random Latin ones, the months and the pitch classes; attention is random, uniform, or all
on one token. The control of most claims is a table that is not Latin: two subjects share one row.
"""

import numpy as np

from refimpl import sgd
from refimpl.claims.claim import OURS, claim
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
    return Facts.latin(N, R, case.rng) if table == "latin" else getattr(Facts, table)(min(R, 11))


def share_row(facts, s, other):
    """The same table, except that `other` gets the answers of s: no g(·, r) is a bijection."""
    sigma = facts.sigma.copy()
    sigma[other] = sigma[s]
    return Facts(facts.pi, sigma, facts.shifts, is_latin=False)


def prompts_of(facts, subjects, relation):
    """Prompts of these subjects (count, n+1) and relations (count,)."""
    return Prompts(facts.N, facts.R, subjects, relation, facts.answer(subjects, relation[:, None]))


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
        prompts = prompts_of(facts, np.argsort(facts.sigma)[None, :n + 1], prompts.relation)
    if case.control and control == NOT_LATIN:
        facts = share_row(facts, *prompts.subjects[0, [0, -1]])
    show(case, prompts)
    return facts, prompts


def one_prompt(facts, n, r=0):
    """A collision-free prompt of relation r, subjects R apart on the cycle."""
    return prompts_of(facts, np.argsort(facts.sigma)[None, :(n + 1) * facts.R:facts.R], np.array([r]))


def in_all_relations(facts, subjects):
    """Prompts of these subjects (count, n+1), each in every relation."""
    return prompts_of(facts, np.repeat(subjects, facts.R, axis=0),
                      np.tile(np.arange(facts.R), len(subjects)))


def some(prompts, chosen):
    """The chosen ones of the prompts."""
    return Prompts(prompts.N, prompts.R, *(field[chosen] for field in prompts[2:]))


def show(case, prompts):
    """Tell the reader of `explain` the first prompt: pairs of subject and answer, query, what is asked."""
    *pairs, (query, answer) = zip(prompts.subjects[0], prompts.answers[0])
    case.show("prompt", f"{', '.join(f'{s} {a}' for s, a in pairs)}, {query} …?")
    case.show("asked", f"relation {prompts.relation[0]}, then answer {answer}")


def attend(case, params, length, attention):
    """Params whose attention over a prompt of this length is of the given kind, and that attention."""
    w = case.rng.normal(0, 2, length) * (attention == "random")
    if attention == "one token":
        w[np.arange(length) != case.rng.integers(length)] = -800.0
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
    s, answers, relations = np.arange(facts.N)[:, None], np.arange(facts.N), np.arange(facts.R)
    table = facts.answer(s, relations)
    relation = np.full((facts.N, facts.N), -1)
    relation[s, table] = relations
    return ((np.broadcast_to(s, table.shape), relation),
            (np.sort(table, axis=0), facts.relation(s, answers)))


ANY: dict = dict(control_space=dict(attention=SPREAD), table=TABLES, attention=ATTENTION, n=(1, 4), R=(2, 8),
                 spare=(0, 16), **OURS)


def logits_of(case, step, n, lam, attention, **drawn):
    """A table, a prompt, attention of that kind in this step, and the model's logits over the slot."""
    facts, prompts = draw_prompt(case, n=n, **drawn)
    tokens, _, slot = getattr(prompts, step)()
    params, alpha = attend(case, construct(facts, n, lam), tokens.shape[1], attention)
    return facts, prompts, alpha, forward(params, tokens[0]).logits[slice(*slot)]


@claim("R2", "votes of pairs infer the relation", derivation=theory.infer_logits, control=NOT_LATIN,
       lam=(0.1, 100.0), **ANY)
def votes_infer_the_relation(case, lam, **drawn):
    """Logits of all relations at any attention, colliding prompts included."""
    facts, prompts, alpha, logits = logits_of(case, "infer", lam=lam, **drawn)
    related = facts.relation(prompts.subjects[0, :, None], prompts.answers[0, :-1])
    return theory.infer_logits(alpha[0::2], alpha[1::2], related, facts.R, lam), logits


@claim("R3", "recall of the answer", derivation=theory.recall_logits, control=NOT_LATIN,
       lam=(0.1, 100.0), **ANY)
def recall_of_the_answer(case, lam, **drawn):
    """Logits of all answers at any attention, colliding prompts included."""
    facts, prompts, alpha, logits = logits_of(case, "recall", lam=lam, **drawn)
    rows = facts.answer(prompts.subjects[0, :, None], np.arange(facts.R))
    return theory.recall_logits(alpha[0:-1:2], alpha[-1], rows, prompts.relation[0], facts.N, lam), logits


@claim("R4", "losses of both steps, answer rows disjoint", derivation=theory.recall_loss,
       control=COLLIDING, room=("exact", "twice"), lam=(0.1, 20.0),
       reason="rounding, relative to lam: a loss near 0 is what is left of logits of that size", **ANY)
def losses_of_both_steps(case, table, attention, room, n, R, spare, lam):
    """L_infer and L_recall of the model on one collision-free prompt."""
    n = 1 if room == "exact" else n     # with more pairs a prompt that fills the table is rare
    facts, prompts = draw_disjoint(case, table, n, R, spare, COLLIDING, room)
    memory = construct(facts, n, lam)
    (infer, alpha), (recall, beta) = (attend(case, memory, length, attention)
                                      for length in (2 * n + 1, 2 * n + 2))
    return ([theory.infer_loss(alpha[0::2], alpha[1::2], facts.R, lam),
             theory.recall_loss(beta[0:-1:2], beta[-1], facts.N, facts.R, lam)],
            [loss(infer, *prompts.infer()), loss(recall, *prompts.recall())], lam)


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
    steps = prompts.infer(), prompts.recall()
    params = construct(share_row(facts, *prompts.subjects[0, [0, -1]]) if case.control else facts, n, lam)
    (V, L), known, index = (len(params.E), len(params.P)), implicit.seen(prompts), None
    if attention == "full":
        index = implicit.index(known, prompts)
    else:
        known = implicit.Steps(*((V + T - 1) * (V + L) + V + np.arange(T) for T in (L - 1, L)))
    weights = implicit.Steps(*(case.rng.normal(0, 1, len(ids)) for ids in known))

    def dense(weights):
        """WKQ with these entries, and zeros elsewhere."""
        WKQ = np.zeros((V + L, V + L))
        WKQ.flat[np.concatenate(known)] = np.concatenate(weights)
        return WKQ

    moving = 1 if attention == "full" else dense(weights) != 0

    def both(params):
        """Loss of both steps together; its gradient, in the entries that may move."""
        (a, da), (b, db) = (loss_and_grads(params, *step) for step in steps)
        return a + b, da._replace(WKQ=(da.WKQ + db.WKQ) * moving)

    arguments = facts, prompts, lam, index
    ours = list(sgd.train(weights, [arguments] * 3, implicit.loss_and_grads, 1 / lam, 0.9))
    start = params._replace(WKQ=dense(weights))
    theirs = list(sgd.train(start, [()] * 3, both, 1 / lam, 0.9, trained=("WKQ",)))
    margins = []
    for tokens, targets, slot in steps:
        for z, target in zip(tokens, targets - slot[0]):
            logits = forward(theirs[-1].params, z).logits[slice(*slot)]
            margins.append(logits[target] - np.delete(logits, target).max(initial=-np.inf))
    end = implicit.forward(ours[-1].params, *arguments)
    # Losses and margins may vanish; they come from logits of size lam. A margin over nothing is infinite.
    return ((np.array([step.loss for step in ours]), dense(ours[-1].params),
             np.minimum(np.concatenate([end.infer.margins, end.recall.margins]), lam)),
            (np.array([step.loss for step in theirs]), theirs[-1].params.WKQ, np.minimum(margins, lam)),
            (lam, 0.0, lam))


@claim("RG", "all seven gradients against the complex step", derivation=loss_and_grads, cases=10,
       reason="rounding; relative to the largest entry of each gradient", control="dWKQ transposed",
       control_space=dict(activation=("square",)), activation=("square", "relu"), over=("slot", "vocabulary"),
       N=(2, 4), R=(2, 3), n=(1, 2), d=(1, 4), dp=(1, 3), m=(2, 6), count=(1, 2), scale=(0.3, 1.0), **OURS)
def gradients(case, activation, over, N, R, n, d, dp, m, count, scale):
    """Random weights, prompts of both steps: every coordinate of every field."""
    R, n = min(R, N), min(n, N - 1)
    prompts = sample(Facts.latin(N, R, case.rng), n, count, case.rng)
    V, L = 2 * N + R, 2 * n + 2
    shapes = (V, d), (V, d), (L, dp), (d + dp, d + dp), (m, d), (m,), (d, m)
    params = Params(*(case.rng.normal(0, float(scale), shape) for shape in shapes))
    if not case.balls:      # a unit at 0, where the derivative of relu is taken as 0; none can be enclosed
        params.W1[0] = params.b1[0] = 0
    pairs = []
    for tokens, targets, slot in (prompts.infer(), prompts.recall()):
        step = tokens, targets, slot if over == "slot" else None, activation
        grads = loss_and_grads(case.around(params), *step)[1]
        if case.control:
            grads = grads._replace(WKQ=grads.WKQ.T)
        pairs.append((case.derivative(lambda p: loss(p, *step), params), grads))
    return tuple(zip(*pairs))
