"""The constructed memory without its hidden units: many facts, the same losses and gradients.

With one-hot embeddings, the square and a Latin table, the 2NR hidden units of `construct` compute what
claims R2 and R3 say. Let u_i, v_j, alpha_r be the attention on s_i, a_j and the relation token. Up to a
constant that all tokens of a slot share, and that changes no softmax,

    infer     logit[r'] = 2 lam Σ_{i≤n, j<n} u_i v_j 1[rho(s_i, a_j) = r']
    recall    logit[a'] = lam Σ_i (u_i² 1[a' ∈ g(s_i, ·)] + 2 alpha_r u_i 1[a' = g(s_i, r)])

so that with p the softmax over the slot and e = p − 1[target]

    infer     dL/du_i = 2 lam Σ_j v_j e[rho(s_i, a_j)]        dL/dv_j = 2 lam Σ_i u_i e[rho(s_i, a_j)]
    recall    dL/du_i = 2 lam (u_i Σ_r' e[g(s_i, r')] + alpha_r e[g(s_i, r)])
              dL/dalpha_r = 2 lam Σ_i u_i e[g(s_i, r)]

where rho(s, a) is the relation with g(s, r) = a; a pair without one adds nothing. In the recall step all
answers outside the rows g(s_i, ·) have logit 0. They enter the softmax as one class, of which only the
number is needed. So a prompt takes O(n² + nR) operations for every N, and the table O(N) memory.

A score is a sum of four entries of WKQ: row the last token or position, column the i-th token or position.
"Position-only" attention has the position–position entry alone: one row of logits for each step. Full
attention has all four. Training moves only entries that some prompt reads (R14): `seen` lists these,
`index` finds them, and no others are stored. The two steps share no entry: rows are a subject or
position 2n (infer), a relation or position 2n+1 (recall).

Everything agrees with the dense model to rounding: claim R15.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from scipy.special import softmax

from refimpl import check
from refimpl.recall.task import Facts, Prompts


LARGEST_N = 2 ** 29     # so that ids of entries, below (3N + 2n + 2)², fit into 64 bits


class Steps(NamedTuple):
    """The same for each step: weights (and their gradients), entries, indices, or traces."""

    infer: Any
    recall: Any


class Trace(NamedTuple):
    """The result of one step for every prompt."""

    attention: np.ndarray   # (count, T)
    losses: np.ndarray      # (count,) in nats, over the slot's own tokens
    margins: np.ndarray     # (count,) logit of the target − the largest other; > 0 if the target wins


def seen(prompts):
    """The entries of WKQ that the scores of these prompts read: Steps of (K,) ids, sorted, distinct.

    The id of an entry is row · (V + L) + column, V = 2N + R tokens and L = 2n + 2 positions. Raises
    ValueError unless `prompts` are Prompts whose shapes and values fit together.
    """
    prompts = check_prompts(prompts)
    return Steps(*(np.unique(entries(prompts, step)) for step in Steps._fields))


def index(known, prompts):
    """Where the entries of these prompts' scores stand in the list of known ones.

    Parameters
    ----------
    known : Steps of (K,), from `seen`
    prompts : Prompts, these or others

    Returns
    -------
    Steps of (count, T, 4) integers: for each score the places in `known` of its four entries, token–token,
    token–position, position–token and position–position. An entry that is not known is zero; its place
    is −1. Raises ValueError on other types, shapes and values.
    """
    places, prompts = [], check_prompts(prompts)
    for ids, step in zip(check.instance("known", known, Steps, "implicit.Steps"), Steps._fields):
        ids = check.integers(f"known.{step}", ids, 0, 2 ** 63, ndim=1)
        if (np.diff(ids) <= 0).any():
            raise ValueError(f"known.{step}: expected increasing ids, got {ids}")
        wanted = entries(prompts, step)
        place = np.searchsorted(ids, wanted).clip(max=len(ids) - 1)
        places.append(np.where(ids[place] == wanted, place, -1))
    return Steps(*places)


def entries(prompts, step):
    """Ids of the four entries of WKQ that add up to each score: (count, T, 4)."""
    tokens = getattr(prompts, step)()[0]
    T, V = tokens.shape[1], 2 * prompts.N + prompts.R
    columns = np.stack([tokens, np.broadcast_to(V + np.arange(T), tokens.shape)], axis=2)
    rows = columns[:, -1:, :]
    side = V + 2 * prompts.subjects.shape[1]
    return (rows[..., :, None] * side + columns[..., None, :]).reshape(*tokens.shape, 4)


def forward(weights, facts, prompts, lam, index=None):
    """Both steps on every prompt; arguments and errors as `loss_and_grads`. Returns Steps of Trace."""
    return Steps(*(trace for trace, _ in run(weights, facts, prompts, lam, index)))


def loss_and_grads(weights, facts, prompts, lam, index=None):
    """L_infer + L_recall, and the gradients of the weights (claim R15; exact; derived).

    Parameters
    ----------
    weights : Steps of float64 arrays. Position-only: logits of the positions, (2n+1,) and (2n+2,).
        Full: the entries of WKQ that `seen` lists, (K,) each
    facts : Facts, Latin
    prompts : Prompts of these facts. Subjects are distinct and a_n = g(s_n, r); the other answers
        may be any (for noise)
    lam : float > 0, strength of the memory
    index : None for position-only attention, or what `index` returns for these prompts

    Returns
    -------
    loss : float, mean over the prompts, in nats
    grads : Steps like `weights`

    Raises ValueError on arguments that do not fit together, a table that is not Latin, or sizes that
    do not fit into memory.
    """
    loss, grads = 0.0, []
    results = list(run(weights, facts, prompts, lam, index))
    for (trace, dscores), w, place in zip(results, weights, index or (None, None)):
        loss += trace.losses.mean()
        dscores /= len(dscores)
        if place is None:
            grads.append(dscores.sum(axis=0))
        else:
            # The first bin takes the entries that are not known, whose place is −1.
            four = np.broadcast_to(dscores[..., None], place.shape)
            grads.append(np.bincount(place.ravel() + 1, four.ravel(), len(w) + 1)[1:])
    return loss, Steps(*grads)


def run(weights, facts, prompts, lam, index):
    """Check the arguments; return (Trace, dscores (count, T)) of each step, unaveraged."""
    check.instance("weights", weights, Steps, "implicit.Steps")
    check.instance("index", index, (Steps, type(None)), "implicit.Steps or None")
    if not check.instance("facts", facts, Facts, "recall.Facts").is_latin:
        raise ValueError("facts: expected a Latin table, got one with is_latin = False; "
                         "only `construct` stores such a table")
    N, R, s, r, a = check_prompts(prompts)
    if (N, R) != (facts.N, facts.R):
        raise ValueError(f"prompts: expected those of N = {facts.N}, R = {facts.R}, got N = {N}, R = {R}")
    lam, (count, width) = check.real("lam", lam, low=0), s.shape
    if (np.diff(np.sort(s, axis=1), axis=1) == 0).any():
        raise ValueError("subjects: expected distinct ones in every prompt, got one twice")
    check.memory("prompts", 8 * (3 * count * width * (facts.R + width) + facts.N))
    answer_of = facts.answer(s[:, :, None], np.arange(facts.R))
    if (a[:, -1] != answer_of[np.arange(count), -1, r]).any():
        raise ValueError("answers: expected a_n = g(s_n, r), got another")
    attention = [softmax(scores(f"weights.{step}", getattr(weights, step), index and getattr(index, step),
                                count, 2 * width - 1 + extra), axis=1)
                 for extra, step in enumerate(Steps._fields)]
    results = (infer(attention[0], facts.relation(s[:, :, None], a[:, None, :-1]), r, facts.R, lam),
               recall(attention[1], answer_of, r, np.zeros(facts.N, np.int64), lam))
    for alpha, (losses, margins, dalpha) in zip(attention, results):
        mean = (alpha * dalpha).sum(axis=1, keepdims=True)
        yield Trace(alpha, losses, margins), alpha * (dalpha - mean)


def check_prompts(prompts):
    """Return Prompts of contiguous arrays; raise ValueError unless shapes and values fit together."""
    N, R, s, r, a = check.instance("prompts", prompts, Prompts, "recall.Prompts")
    N, R = check.integer("N", N, 1, LARGEST_N), check.integer("R", R, 1, LARGEST_N)
    s, r, a = (check.integers("subjects", s, 0, N, ndim=2), check.integers("relation", r, 0, R, ndim=1),
               check.integers("answers", a, 0, N, ndim=2))
    if a.shape != s.shape or r.shape != s.shape[:1] or s.shape[1] < 2:
        raise ValueError(f"prompts: expected subjects and answers (count, n+1), relation (count,), "
                         f"n >= 1, got {s.shape}, {a.shape}, {r.shape}")
    return Prompts(N, R, s, r, a)


def scores(name, w, place, count, T):
    """Scores of `count` prompts of T tokens: the entries w at their places, added up, or w itself."""
    if place is None:
        return np.broadcast_to(check.floats(name, w, (T,), np.float64), (count, T))
    w = check.floats(name, w, (None,), np.float64)
    place = check.integers("index", place, -1, len(w), shape=(count, T, 4))
    return np.append(w, 0.0)[place].sum(axis=2)     # the last one, 0, stands at place −1


# cross entropy of a target among the tokens listed and `rest` other ones with logit 0:
#
# loss = log(rest + Σ_u exp(logits_u)) − logits_target,  dlogits_u = p_u − 1[u = target]
#
# As in ops.py, neither subtracts from 1 what is nearly 1, and a confident prediction keeps its digits.

@njit(cache=True)
def cross_entropy(logits, target, rest, dlogits):
    """logits (k,), target in 0..k−1 -> loss, margin; fills dlogits (k,)."""
    other = 0.0 if rest > 0 else -np.inf
    for u in range(logits.shape[0]):
        if u != target:
            other = max(other, logits[u])
    top = max(other, logits[target])
    others = rest * np.exp(-top)
    for u in range(logits.shape[0]):
        dlogits[u] = np.exp(logits[u] - top)
        if u != target:
            others += dlogits[u]
    total = dlogits[target] + others
    for u in range(logits.shape[0]):
        dlogits[u] /= total
    dlogits[target] = -others / total
    loss = np.log1p(others) if logits[target] == top else np.log(total) + (top - logits[target])
    return loss, logits[target] - other


@njit(cache=True)
def infer(alpha, relation_of, target, R, lam):
    """alpha (count, 2n+1), relation_of (count, n+1, n) or −1, target (count,) -> losses, margins, dalpha."""
    count, subjects, pairs = relation_of.shape
    losses, margins, dalpha = np.empty(count), np.empty(count), np.zeros(alpha.shape)
    dlogits = np.empty(R)
    for b in range(count):
        logits = np.zeros(R)
        for i in range(subjects):
            for j in range(pairs):
                if relation_of[b, i, j] >= 0:
                    logits[relation_of[b, i, j]] += 2 * lam * alpha[b, 2 * i] * alpha[b, 2 * j + 1]
        losses[b], margins[b] = cross_entropy(logits, target[b], 0, dlogits)
        for i in range(subjects):
            for j in range(pairs):
                if relation_of[b, i, j] >= 0:
                    dvote = 2 * lam * dlogits[relation_of[b, i, j]]
                    dalpha[b, 2 * i] += dvote * alpha[b, 2 * j + 1]
                    dalpha[b, 2 * j + 1] += dvote * alpha[b, 2 * i]
    return losses, margins, dalpha


@njit(cache=True)
def recall(alpha, answer_of, r, place, lam):
    """alpha (count, 2n+2), answer_of (count, n+1, R), r (count,) -> losses, margins, dalpha.

    place (N,) is zero before and after the call. Within it, 1 + the number of an answer among those of the
    prompt.
    """
    count, subjects, R = answer_of.shape
    losses, margins, dalpha = np.empty(count), np.empty(count), np.zeros(alpha.shape)
    sums, dlogits = np.empty(subjects * R), np.empty(subjects * R)
    for b in range(count):
        alpha_r, k = alpha[b, -1], 0
        for i in range(subjects):
            u = alpha[b, 2 * i]
            for q in range(R):
                a = answer_of[b, i, q]
                if place[a] == 0:
                    sums[k] = 0
                    k += 1
                    place[a] = k
                sums[place[a] - 1] += lam * (u * u + (2 * alpha_r * u if q == r[b] else 0))
        true = place[answer_of[b, subjects - 1, r[b]]] - 1
        losses[b], margins[b] = cross_entropy(sums[:k], true, place.shape[0] - k, dlogits[:k])
        for i in range(subjects):
            u = alpha[b, 2 * i]
            for q in range(R):
                dlogit = 2 * lam * dlogits[place[answer_of[b, i, q]] - 1]
                dalpha[b, 2 * i] += dlogit * u
                if q == r[b]:
                    dalpha[b, 2 * i] += dlogit * alpha_r
                    dalpha[b, -1] += dlogit * u
        for i in range(subjects):
            for q in range(R):
                place[answer_of[b, i, q]] = 0
    return losses, margins, dalpha
