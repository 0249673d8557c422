"""Trigger-bigram text: bigram statistics, except that each trigger has one output per sequence.

    z_0 ~ pi_u;   z_{t+1} = o[z_t] if z_t ∈ Q, else z_{t+1} ~ pi_b[z_t]

The first token has the distribution pi_u, and what follows an ordinary token v has pi_b[v]. Q holds the
trigger tokens: for each sequence one output o[q] ~ pi_o[q] is drawn for every q ∈ Q. By hand, with the
tokens a b c d, the trigger a and its output d:

    tokens       a  d  b  a  d  c
    occurrence   1  0  0  2  0          (one less than the tokens: the last one is only predicted)

The first a could be followed by anything; the second one is followed by d, and the context says so.
Source: the task of BCBJB23.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from refimpl import check

HUGE = 1e290        # the largest count: sums of counts stay finite


class Bigram(NamedTuple):
    """Statistics of plain text: chars (V,) names of the tokens, pi_u (V,) and pi_b (V, V) float64.

    Tokens are sorted by falling frequency, so that the K most frequent ones are 0 … K−1. Rows of
    pi_b sum to 1; pi_b[v, u] is the probability that u follows v.
    """

    chars: tuple
    pi_u: np.ndarray
    pi_b: np.ndarray

    @classmethod
    def from_counts(cls, counts, chars=None, prior=0.0):
        """Bigram of a table of counts (V, V), V ≥ 2, row v: what followed v.

        `prior` is added to every count (Laplace's rule). With prior = 0 a pair that was never seen
        has probability 0. `sample` takes such a bigram; `construct` refuses it, since log 0 = −∞.
        pi_u is the share of each row. Raises ValueError on counts that are negative or above 1e290, on a
        row without any, and on names that do not match.
        """
        prior = check.real("prior", prior, 0, HUGE)
        counts = check.reals("counts", counts, low=0, high=HUGE)
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(counts) < 2:
            raise ValueError(f"counts: expected shape (V, V) with V >= 2, got {counts.shape}")
        counts = counts + prior
        rows = counts.sum(axis=1)
        if rows.min() == 0:
            raise ValueError(f"counts: expected every row to have some, got none in row {rows.argmin()}")
        order = np.argsort(-rows, kind="stable")
        chars = tuple(range(len(counts))) if chars is None else tuple(
            check.instance("chars", chars, (str, tuple, list), "a string, tuple or list"))
        if len(chars) != len(counts):
            raise ValueError(f"chars: expected {len(counts)} names, got {len(chars)}")
        pi_b = (counts / rows[:, None])[np.ix_(order, order)]
        return cls(tuple(chars[v] for v in order), rows[order] / rows.sum(), pi_b)

    @classmethod
    def from_text(cls, text, V=None, prior=0.0):
        """Bigram of the characters of `text`, or of its V most frequent ones.

        Other characters are dropped, and their neighbours become neighbours. The text is read as a circle:
        its last character is followed by its first. So every character has a successor, and with
        prior = 0 pi_u is the stationary distribution of pi_b. Raises ValueError if the text has fewer than
        two different characters, or fewer than V, or if V² numbers do not fit into memory.
        """
        if not isinstance(text, str):
            raise ValueError(f"text: expected a str, got {type(text).__name__}")
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        counts = np.bincount(codes, minlength=1)
        ranked = np.argsort(-counts, kind="stable")[:np.count_nonzero(counts)]
        V = len(ranked) if V is None else check.integer("V", V, 2)
        if len(ranked) < max(V, 2):
            raise ValueError(f"text: expected at least {max(V, 2)} different characters, "
                             f"got {len(ranked)}")
        check.memory("text", 32 * V ** 2)
        rank = np.full(len(counts), V)
        rank[ranked[:V]] = np.arange(V)
        z = rank[codes]
        z = z[z < V]
        pairs = np.bincount(z * V + np.roll(z, -1), minlength=V * V).reshape(V, V)
        return cls.from_counts(pairs, [chr(c) for c in ranked[:V]], prior)

    @classmethod
    def random(cls, V, rng):
        """Random bigram over V ≥ 2 tokens: pi_u and the rows of pi_b are uniform on the simplex."""
        V = check.integer("V", V, 2)
        check.memory("V", 16 * V ** 2)
        check.instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
        pi_u = np.sort(rng.dirichlet(np.ones(V)))[::-1]
        return cls(tuple(range(V)), pi_u, rng.dirichlet(np.ones(V), size=V))


class Batch(NamedTuple):
    """tokens (n, T+1) int64; occurrence (n, T) int64; outputs (n, V) int64.

    occurrence[b, t] = how often the trigger z_t has been seen up to and including t; 0 if z_t is not
    a trigger. outputs[b, q] = o[q] in sequence b; −1 if q is not a trigger of that sequence.
    """

    tokens: np.ndarray
    occurrence: np.ndarray
    outputs: np.ndarray


def trigger_ids(triggers, V):
    """Token ids of the triggers: an integer K stands for the K most frequent tokens, 0 … K−1.

    Raises ValueError if there are more triggers than tokens, or ids outside 0..V−1 or repeated.
    """
    if isinstance(triggers, (int, np.integer)) and not isinstance(triggers, bool):
        return np.arange(check.integer("triggers", triggers, 1, V + 1))
    ids = check.integers("triggers", triggers, 0, V, ndim=1)
    if len(np.unique(ids)) != len(ids):
        raise ValueError(f"triggers: expected distinct token ids, got {ids.tolist()}")
    return ids


def sample(bigram, n, length, rng, triggers=5, outputs="uniform", drawn=False):
    """Draw n sequences of trigger-bigram text.

    Parameters
    ----------
    bigram : Bigram
    n, length : int >= 1
        Number of sequences, and T: each has T+1 tokens, the last of which is only predicted.
    rng : numpy.random.Generator
    triggers : int K, for the K most frequent tokens, or (K,) token ids
    outputs : "uniform" or pi_o (V, V), row q: distribution of the output of trigger q
    drawn : bool
        Draw the triggers of each sequence from pi_u without repetition; `triggers` is their number.

    Returns
    -------
    Batch. Raises ValueError on bad sizes, triggers or distributions, or sizes that do not fit into memory.
    """
    n, T = check.integer("n", n, 1), check.integer("length", length, 1)
    check.instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
    check.instance("bigram", bigram, Bigram, "induction.Bigram")
    check.instance("drawn", drawn, (bool, np.bool_), "a bool")
    pi_b = check.law("pi_b", bigram.pi_b, 2)
    V = len(pi_b)
    check.memory("n, length", 8 * n * (3 * T + 3 * V))
    pi_u = check.law("pi_u", bigram.pi_u, 1, V)
    pi_o = np.full((V, V), 1 / V) if isinstance(outputs, str) and outputs == "uniform" else \
        check.law("outputs", outputs, 2, V)
    if drawn:
        K = check.integer("triggers", triggers, 1, np.count_nonzero(pi_u) + 1)
        # The K smallest of exponential times with rates pi_u are K draws without repetition.
        times = rng.standard_exponential((n, V)) / np.where(pi_u > 0, pi_u, 1e-300)
        ids = np.argpartition(times, K - 1, axis=1)[:, :K]
    else:
        ids = np.broadcast_to(trigger_ids(triggers, V), (n, len(trigger_ids(triggers, V))))
    chosen = np.full((n, V), -1, dtype=np.int64)
    np.put_along_axis(chosen, ids, draw(cumulative(pi_o), ids, rng.random(ids.shape)), axis=1)
    z = np.empty((n, T + 1), dtype=np.int64)
    occurrence = np.empty((n, T), dtype=np.int64)
    walk(cumulative(pi_u[None]), cumulative(pi_b), chosen, rng.random((n, T + 1)), z, occurrence)
    return Batch(z, occurrence, chosen)


def cumulative(p):
    """Running sums (rows, V) of the distributions p (rows, V), scaled to end in exactly 1."""
    sums = np.cumsum(p, axis=1)
    return sums / sums[:, -1:]


# A uniform number x in [0, 1) draws the first token u with sums[u] > x: never one of probability 0.

@njit(cache=True)
def draw(sums, rows, x):
    """sums = cumulative((V, V)), rows and x (n, K): a token from the distribution of each row -> (n, K)."""
    tokens = np.empty_like(rows)
    for b in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            tokens[b, k] = np.searchsorted(sums[rows[b, k]], x[b, k], side="right")
    return tokens


@njit(cache=True)
def walk(unigram, bigram, outputs, x, z, occurrence):
    """Fill z (n, T+1) and occurrence (n, T) from uniform numbers x (n, T+1), one for each token.

    unigram = cumulative((1, V)), bigram = cumulative((V, V)), outputs (n, V).
    """
    for b in range(z.shape[0]):
        seen = np.zeros(bigram.shape[0], np.int64)
        z[b, 0] = np.searchsorted(unigram[0], x[b, 0], side="right")
        for t in range(occurrence.shape[1]):
            v = z[b, t]
            if outputs[b, v] >= 0:
                seen[v] += 1
                z[b, t + 1] = outputs[b, v]
            else:
                z[b, t + 1] = np.searchsorted(bigram[v], x[b, t + 1], side="right")
            occurrence[b, t] = seen[v]
