"""In-context recall: the prompts of one hidden relation between subjects and answers.

    s_0 a_0 s_1 a_1 … s_{n−1} a_{n−1} s_n          a_i = g(s_i, r)

Two steps: infer the relation r from this prompt; then, with r appended, recall a_n = g(s_n, r). By
hand, with the months and the relation r = 1, "two months later":

    infer     January March May July October        -> two months later
    recall    … the same, and: two months later     -> December

There are N subjects s, N answers a and R relations r; a prompt shows n pairs. The table g is Latin: every
g(·, r) is a bijection and every g(s, ·) is injective. So any two of subject, relation and answer determine
the third, while a subject or an answer alone says nothing about r. A prompt is collision-free if its answer
rows g(s_i, ·) are pairwise disjoint. Source: the task of HNLG26; the Latin table is this project's
formalisation.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from refimpl import check

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")
PITCHES = ("C", "C sharp", "D", "D sharp", "E", "F", "F sharp", "G", "G sharp", "A", "A sharp", "B")
# INTERVALS[r] is r + 1 semitones.
INTERVALS = ("minor second", "major second", "minor third", "major third", "fourth", "tritone",
             "fifth", "minor sixth", "major sixth", "minor seventh", "major seventh")
DRAWS = 1000        # `sample` gives up if a collision-free prompt needs more draws than this on average


@dataclass(frozen=True, eq=False)
class Facts:
    """A table of N R facts in O(N) memory: the shuffled cyclic table (claim R1; exact; formalised).

        g(s, r) = pi[(sigma[s] + shifts[r]) mod N]

    pi (N,) is a permutation. So is sigma (N,); with `is_latin` = False it may be any integers in 0..N−1,
    and then g(·, r) need not be a bijection (for controls). shifts (R,) are distinct, in 0..N−1. Raises
    ValueError naming the first entry that breaks this.
    """

    pi: np.ndarray              # (N,) answers around the cycle
    sigma: np.ndarray           # (N,) place of each subject on the cycle
    shifts: np.ndarray          # (R,) how far each relation goes
    is_latin: bool = True
    place: np.ndarray = field(init=False, repr=False)       # (N,) inverse of pi
    relations: np.ndarray = field(init=False, repr=False)   # (N,) inverse of shifts, −1 where there is none

    def __post_init__(self):
        check.instance("is_latin", self.is_latin, (bool, np.bool_), "a bool")
        N = check.asarray("pi", self.pi).size
        arrays = {name: check.integers(name, getattr(self, name), 0, N, ndim=1).copy()
                  for name in ("pi", "sigma", "shifts")}
        if len(arrays["sigma"]) != N:
            raise ValueError(f"sigma: expected shape ({N},) as pi, got ({len(arrays['sigma'])},)")
        arrays["place"] = inverse("pi", arrays["pi"], N, "entries")
        if self.is_latin:
            inverse("sigma", arrays["sigma"], N, "rows (subjects)")
        arrays["relations"] = inverse("shifts", arrays["shifts"], N, "columns (relations)")
        for name, array in arrays.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def latin(cls, N, R, rng):
        """A random table of N subjects, N answers and R ≤ N relations.

        The shifts are 0 … R−1 in random order. The answers of a subject are then R neighbours on the
        cycle, and collision-free prompts exist if (n+1) R ≤ N. Raises ValueError on bad sizes, or sizes
        that do not fit into memory.
        """
        N = check.integer("N", N, 1)
        check.memory("N", 80 * N)
        R = check.integer("R", R, 1, N + 1)
        check.instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
        return cls(rng.permutation(N), rng.permutation(N), rng.permutation(R))

    @classmethod
    def months(cls, R=4):
        """The 12 MONTHS and the relations "r+1 months later", r < R ≤ 11.

        R = 4 is the largest for which prompts with n = 2 pairs can be collision-free.
        """
        R = check.integer("R", R, 1, 12)
        return cls(np.arange(12), np.arange(12), np.arange(1, R + 1))

    @classmethod
    def pitches(cls, R=4):
        """The same table read as the 12 PITCHES and the INTERVALS r < R upwards."""
        return cls.months(R)

    @property
    def N(self):
        """Number of subjects, and of answers."""
        return len(self.pi)

    @property
    def R(self):
        """Number of relations."""
        return len(self.shifts)

    def answer(self, s, r):
        """g(s, r) in 0..N−1 for subjects s in 0..N−1 and relations r in 0..R−1, broadcast together."""
        s, r = check.integers("s", s, 0, self.N), check.integers("r", r, 0, self.R)
        return self.pi[(self.sigma[s] + self.shifts[r]) % self.N]

    def relation(self, s, a):
        """rho(s, a), the r with g(s, r) = a, or −1 if there is none; s, a in 0..N−1, broadcast."""
        s, a = check.integers("s", s, 0, self.N), check.integers("a", a, 0, self.N)
        return self.relations[(self.place[a] - self.sigma[s]) % self.N]


class Prompts(NamedTuple):
    """Prompts as plain indices, and as the tokens of the two steps.

    Token ids: subjects 0..N−1, answers N..2N−1, relations 2N..2N+R−1.
    """

    N: int
    R: int
    subjects: np.ndarray    # (count, n+1) s_0 … s_n, distinct, in 0..N−1
    relation: np.ndarray    # (count,) r, in 0..R−1
    answers: np.ndarray     # (count, n+1) a_i = g(s_i, r), in 0..N−1; a_n is not shown

    def infer(self):
        """tokens (count, 2n+1) s_0 a_0 … s_n, targets (count,) r, slot (2N, 2N+R) of the relations."""
        count, width = self.subjects.shape
        tokens = np.empty((count, 2 * width - 1), np.int64)
        tokens[:, 0::2] = self.subjects
        tokens[:, 1::2] = self.N + self.answers[:, :-1]
        return tokens, 2 * self.N + self.relation, (2 * self.N, 2 * self.N + self.R)

    def recall(self):
        """tokens (count, 2n+2) s_0 a_0 … s_n r, targets (count,) a_n, slot (N, 2N) of the answers."""
        tokens, r, _ = self.infer()
        return np.column_stack([tokens, r]), self.N + self.answers[:, -1], (self.N, 2 * self.N)


def sample(facts, n, count, rng, collision_free=False):
    """Draw prompts: n+1 distinct subjects and one relation, uniformly.

    Parameters
    ----------
    facts : Facts
    n : int in 1..N−1, pairs shown before the last subject
    count : int ≥ 1, prompts
    rng : numpy.random.Generator
    collision_free : bool, keep only prompts whose answer rows g(s_i, ·) are pairwise disjoint

    Returns
    -------
    Prompts. Raises ValueError on bad sizes, sizes that do not fit into memory, or if a collision-free prompt
    does not exist or needs more than 1000 draws on average. This average is exact for consecutive shifts,
    as those of `Facts.latin`; for others it is what has been drawn, by what has been found.
    """
    check.instance("rng", rng, np.random.Generator, "a numpy.random.Generator")
    check.instance("facts", facts, Facts, "recall.Facts")
    check.instance("collision_free", collision_free, (bool, np.bool_), "a bool")
    N, R = facts.N, facts.R
    n, count = check.integer("n", n, 1, N), check.integer("count", count, 1)
    if collision_free and (n + 1) * R > N:
        raise ValueError(f"collision_free: expected (n+1) R <= N, as n+1 disjoint rows hold (n+1) R "
                         f"answers, got n = {n}, R = {R}, N = {N}")
    check.memory("n, count", 8 * count * (n + 1) * (8 + (3 * R if collision_free else 0)))
    needed = consecutive_draws(facts, n) if collision_free else None
    subjects, rejected, drawn, found = np.empty((count, n + 1), np.int64), np.arange(count), 0, 0
    while len(rejected):
        average = needed or drawn / max(found, 1)
        if average > DRAWS:
            raise ValueError(f"collision_free: expected at most {DRAWS} draws for a prompt on average, got "
                             f"{average:.4g} (drawn {drawn}, found {found}) with n = {n}, R = {R}, N = {N}")
        subjects[rejected] = distinct(N, n + 1, len(rejected), rng)
        drawn += len(rejected)
        rejected = rejected[collide(facts, subjects[rejected])] if collision_free else rejected[:0]
        found = count - len(rejected)
    relation = rng.integers(0, R, count)
    return Prompts(N, R, subjects, relation, facts.answer(subjects, relation[:, None]))


def distinct(N, k, count, rng):
    """Draw k distinct integers of 0..N−1 in random order, count times: (count, k).

    Floyd's algorithm: the i-th draw is from 0..top, top = N−k+i, and one that is taken gives top,
    which cannot be taken yet. O(count k²) at every N. Source: Bentley and Floyd, CACM 30 (1987).
    """
    drawn = np.empty((count, k), np.int64)
    for i in range(k):
        top = N - k + i
        new = rng.integers(0, top + 1, count)
        taken = (drawn[:, :i] == new[:, None]).any(axis=1)
        drawn[:, i] = np.where(taken, top, new)
    # Every set is now equally likely, but not every order: top mostly stands late.
    return rng.permuted(drawn, axis=1)


def collide(facts, subjects):
    """Whether any two of the answer rows g(s_i, ·) of a prompt meet: subjects (count, n+1) -> (count,)."""
    answers = facts.answer(subjects[:, :, None], np.arange(facts.R)).reshape(len(subjects), -1)
    answers.sort(axis=1)
    return (answers[:, 1:] == answers[:, :-1]).any(axis=1)


def consecutive_draws(facts, n):
    """Draws for a collision-free prompt on average, with consecutive shifts: 1 / P; None with others.

        P = Π_{j=1}^{n} (N − (n+1)(R−1) − j) / (N − j)

    Put the first row anywhere on the cycle: the other n subjects have (N − 1) … (N − n) ordered places.
    If the rows are disjoint, then behind the first one stand n rows and N − (n+1) R single answers in some
    order; the rows have (N − (n+1)(R−1) − 1) … (N − (n+1)(R−1) − n) ordered places among them.
    Source: derived here.
    """
    N, R = facts.N, facts.R
    if not facts.is_latin or np.count_nonzero(facts.relations[(facts.shifts + 1) % N] < 0) > 1:
        return None
    return math.prod((N - j) / (N - (n + 1) * (R - 1) - j) for j in range(1, n + 1))


def inverse(name, values, N, what):
    """(N,) with inverse[values[i]] = i and −1 elsewhere; raises ValueError if a value is repeated."""
    lookup = np.full(N, -1)
    lookup[values] = np.arange(len(values))
    # Of equal values the last one stays, and the others find it instead of themselves.
    repeated = np.flatnonzero(lookup[values] != np.arange(len(values)))
    if len(repeated):
        first = repeated[0]
        raise ValueError(f"{name}: expected distinct values, got {values[first]} "
                         f"at {what} {first} and {lookup[values[first]]}")
    return lookup
