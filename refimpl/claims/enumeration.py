"""Claims proved by enumeration: every instance up to a size, compared by equality.

An audit draws instances, and cannot tell "equal" from "nearly equal". Here nothing is drawn and nothing is
near. Sums of small integers are exact in float64. Where the model needs a softmax, its numbers are known to
be fractions with small denominators, and `fractions` reads them off. Each enumeration has a control, the same
with one assumption broken, in which it must find a counterexample.
"""

import math
import time
from fractions import Fraction
from functools import cache, partial
from itertools import chain, combinations, combinations_with_replacement, permutations, product
from typing import Callable

import numpy as np

from refimpl import associative, induction, recall
from refimpl.claims.associative import cubature
from refimpl.claims.learning import in_memories, sequence_distribution
from refimpl.claims.recall import in_all_relations, some
from refimpl.induction.theory.dynamics import first_gradient, pair_moments
from refimpl.recall.task import Facts, collide
from refimpl.recall.theory import gradient_support
from refimpl.recall.theory.logits import answer_classes, infer_logits, infer_margin, recall_logits

# id -> the range in words, the assumption that the control breaks, and a generator of
# (words, how many instances, predicted, observed), of a part of the range if `small`.
ALL: dict[str, tuple[str, str, Callable]] = {}


def enumeration(id, range, control):
    """Add the generator function below to ALL."""
    return lambda instances: ALL.setdefault(id, (range, control, instances))[-1]


def find(id, small=False, control=False):
    """How many instances were compared, and the words of the first that differs, or None."""
    count = 0
    for words, number, predicted, observed in ALL[id][-1](small=small, control=control):
        count += number
        if not np.array_equal(predicted, observed):
            return count, words
    return count, None


def enumerate_all(print=print, small=False):
    """Print a line for each enumeration; 0 if none has a counterexample, and each control has one, else 1."""
    held, instances, start = 0, 0, time.perf_counter()
    for id, (words, broken, _) in ALL.items():
        before = time.perf_counter()
        count, wrong = find(id, small)
        if wrong is None and find(id, small=True, control=True)[1] is None:
            wrong = f"the control has none: {broken}"
        print(f"{id:4} {words:98} {count:8,} {time.perf_counter() - before:5.1f} s")
        if wrong is not None:
            print(f"     counterexample: {wrong}")
        held, instances = held + (wrong is None), instances + count
    print(f"{held} of {len(ALL)} claims hold in all of {instances:,} instances, "
          f"{time.perf_counter() - start:.0f} s")
    return int(held < len(ALL))


def fractions(values, largest):
    """The fractions with denominators up to `largest` that floats stand for; two differ by 1/largest²."""
    return [Fraction(value).limit_denominator(largest) for value in np.ravel(values).tolist()]


# Associative memory. The nodes 0, ±1, ±2 integrate degree 5 against N(0, 1), ±1 degree 3, both exactly.

FIVE = np.array([[0.0, 1, -1, 2, -2], [6, 2, 2, 1, 1]])     # nodes, weights in twelfths
TWO = np.array([[1.0, -1], [6, 6]])


def moments(k, small, control):
    """Mean and variance of s_0k by cubature; nodes are √d times the entries: d² s_0k is an integer."""
    for N, d in product(range(1 + k, 5), range(1, 3 if small else 4)):
        if N * d <= 4:
            u, v, weights = cubature(N, d, k, control, FIVE, TWO)
            scores = associative.read(associative.write(u, v), u, v)[:, 0, k]
            mean, square = (Fraction(int(weights @ scores ** power), int(weights.sum()) * d ** (2 * power))
                            for power in (1, 2))
            law = associative.moments(N, d)         # multiples of 1/d²
            yield (f"N = {N}, d = {d}", 1, fractions(law[2:] if k else law[:2], d * d),
                   [mean, square - mean ** 2])


for name, k in ("M1", 0), ("M2", 1):
    enumeration(name, f"moments of s_j{'jk'[k]}: all N d ≤ 4, d ≤ 3, Gaussian integrals by rational cubature",
                "v = u")(partial(moments, k))


# Induction. Trigger 0, e^b2 rational, and b1 = 50, so that e^−b1 is far below rounding.

def prompts_with_mass(small, b1=50.0):
    """Yield words, e^b2, T, C_u and n_u of each token u, and p_u, its mass in layer 2."""
    rng, longest = np.random.default_rng(0), 4 if small else 7
    frame, bigram = induction.orthonormal_frame(3, longest, rng), induction.Bigram.random(3, rng)
    for power in map(Fraction, ("1", "2", "5/2", "7")):
        params = induction.construct(frame, bigram, [0], b1, math.log(power), 1.0)
        for context in chain(*(product(range(3), repeat=T) for T in range(longest))):
            z = np.array([*context, 0])
            mass = induction.forward(params, z).attention2[-1] @ np.eye(3)[z]
            C = np.bincount(z[np.append(z[:1], z[:-1]) == 0], minlength=3)  # position 0 follows itself
            n = np.bincount(z, minlength=3)
            yield f"z = {z}, e^b2 = {power}", power, len(z), C, n, fractions(mass, 999)


@enumeration("I4", "in-context mass, hard previous-token head: all prompts V = 3, T ≤ 7; four e^b2", "b1 = 1")
def hard_mass(small, control):
    """p_u = (e^b2 C_u + n_u − C_u) / (e^b2 C + T − C)."""
    for words, power, T, C, n, mass in prompts_with_mass(small, 1.0 if control else 50.0):
        yield words, 1, (power * C + n - C) / (power * C.sum() + T - C.sum()), mass


@enumeration("I5", "context wins iff T < T*: of these, all u that only follow q, all w not there; five Δ/bo",
             "k in place of C")
def hijack(small, control):
    """T* = C + e^b2 (k bo/Δ − C): of C continuations of q, k are u."""
    ratios = [Fraction(i, 6) for i in (1, 2, 3, 4, 6)]      # Δ/bo
    for words, power, T, C, n, mass in prompts_with_mass(small):
        for u, w in permutations(range(3), 2):
            if 0 < C[u] == n[u] and n[w] == 0:
                k, count = int(C[u]), int(C[u] if control else C.sum())
                yield (f"{words}, u = {u}, w = {w}", len(ratios),
                       [T < count + power * (k / ratio - count) for ratio in ratios],
                       [mass[u] - mass[w] > ratio for ratio in ratios])


@enumeration("I7", "first gradient of WO, WF: all V^T sequences, V ≤ 3, T ≤ 5, all q; V chains in quarters",
             "output drawn anew at every visit")
def gradient_moments(small, control):
    """Backpropagated gradients of all sequences. A chain in quarters weights each with n/4^(T+1)."""
    for V, T in product((2, 3), range(1, 4 if small else 6)):
        frame, last = induction.orthonormal_frame(V, T, np.random.default_rng(0)), np.arange(T)[None] == T - 1
        unit = V * T * math.lcm(*range(1, T + 1))           # a gradient times this is an integer
        quarters = [np.roll([1, 3] if V == 2 else [1, 1, 2], i) / 4 for i in range(V)]
        for q, shift in product(range(V), repeat=2):
            law = (quarters[0], np.roll(quarters, shift, axis=0), quarters[1], q, T)
            sequences, probabilities = sequence_distribution(*law, redrawn=control)
            tables = np.array([in_memories(frame, induction.loss_and_grads(frame, z[None], last)[1])
                               for z in sequences])
            predicted = np.array(first_gradient(pair_moments(*law)))
            yield (f"V = {V}, T = {T}, q = {q}, law {shift}", len(sequences),
                   *(fractions(unit * each, 4 ** (T + 1))
                     for each in (predicted, -np.tensordot(probabilities, tables, 1))))


# Recall. The memory is that of `construct` with lam = 1, which only multiplies the logits.

def family(N, R, every=True):
    """All pi, sigma and shifts as Facts; if not `every`, pi is one: it only names the answers."""
    for pi, sigma, shifts in product(permutations(range(N)) if every else [range(N)], permutations(range(N)),
                                     permutations(range(N), R)):
        yield Facts(np.array(pi), np.array(sigma), np.array(shifts))


def tables(N, R, every):
    """Of a family, one of those that hold the same facts."""
    return {facts.answer(np.arange(N)[:, None], np.arange(R)).tobytes(): facts
            for facts in family(N, R, every)}.values()


def broken(N, R):
    """A table that is not Latin: two subjects share their place."""
    return Facts(np.arange(N), np.array([0, *range(N - 1)]), np.arange(R), is_latin=False)


def all_prompts(facts, n):
    """All subjects in every order, with every relation."""
    return in_all_relations(facts, np.array(list(permutations(range(facts.N), n + 1))))


@cache
def points(k):
    """All e_i and e_i + e_j: quadratic forms in k real numbers that agree there agree everywhere."""
    e = np.eye(k)
    return np.array([*e, *(e[i] + e[j] for i, j in combinations(range(k), 2))])


def forms(facts, n, step):
    """tokens, targets and W2 (W1 x)² over the slot, at all points: (count, points, tokens of the slot)."""
    params, (tokens, targets, slot) = recall.construct(facts, n, 1.0), step()
    x = points(tokens.shape[1]) @ params.E[tokens]
    return tokens, targets - slot[0], ((x @ params.W1.T) ** 2 @ params.W2.T @ params.U.T)[..., slice(*slot)]


@enumeration("R1", "the table is Latin and rho inverts it: all pi, sigma, shifts, N ≤ 4",
             "a table that is not Latin")
def latin(small, control):
    """Columns hold every answer, rows none twice; rho(s, a) is the place of a in row s, or −1."""
    for N, R in ((N, R) for N in range(2 if control else 1, 4 if small else 5) for R in range(1, N + 1)):
        s, a = np.arange(N)[:, None], np.arange(N)
        for facts in [broken(N, R)] if control else family(N, R):
            g = facts.answer(s, np.arange(R))
            place = [list(row).index(b) if b in row else -1 for row in g for b in a]
            yield (facts, 1, [*np.tile(a, R), *[R] * N, *place],
                   [*np.sort(g, axis=0).T.ravel(), *map(len, map(set, g)), *facts.relation(s, a).ravel()])


@cache
def formula(step, n, N, R, known, r):
    """Logits at all points: known are rho(s_i, a_j), or the answers g(s_i, ·)."""
    known = np.reshape(known, (n + 1, -1))
    if step == "infer":
        return [infer_logits.__wrapped__(a[0::2], a[1::2], known, R, 1) for a in points(2 * n + 1)]
    return [recall_logits.__wrapped__(a[0:-1:2], a[-1], known, r, N, 1) for a in points(2 * n + 2)]


def logits(step, small, control):
    """All prompts of all tables; for N = 5 pi is fixed, since renaming answers changes neither side."""
    for N in range(2, 4 if small else 6):
        for R, n in product(range(1, min(N, 3) + 1), range(1, min(N, 3))):
            for facts in [broken(N, R)] if control else tables(N, R, N < 5):
                prompts = all_prompts(facts, n)
                known = (facts.relation(prompts.subjects[:, :, None], prompts.answers[:, None, :-1])
                         if step == "infer" else facts.answer(prompts.subjects[:, :, None], np.arange(R)))
                predicted = [formula(step, n, N, R, tuple(each.ravel()), r)
                             for each, r in zip(known, prompts.relation)]
                yield facts, len(known), predicted, forms(facts, n, getattr(prompts, step))[2]


for name, step, what in ("R2", "infer", "relations"), ("R3", "recall", "answers"):
    enumeration(name, f"logits of the {what}, any attention: all N ≤ 4, N = 5 but for names; R ≤ 3, n ≤ 2",
                "a table that is not Latin")(partial(logits, step))


@enumeration("R4", "losses' classes, any attention: all N ≤ 4, N ≤ 6 but for names; (n+1) R ≤ N, n ≤ 2",
             "prompts that collide")
def classes(small, control):
    """Forms of the true answer, of all others in order, and of the target less each other relation."""
    for N, n in product(range(2, 5 if small else 7), (1, 2)):
        for R in range(1, N // (n + 1) + 1):
            values, sizes = zip(*(answer_classes(a[0:-1:2], a[-1], N, R, 1) for a in points(2 * n + 2)))
            expected = np.repeat(np.transpose(values), sizes[0], axis=0).tolist()
            margin = [infer_margin(a[0::2], a[1::2], R, 1)[0] for a in points(2 * n + 1)]
            expected = [*expected.pop(n), *chain(*sorted(expected)), *margin * (R - 1)]
            for facts in tables(N, R, N < 5):
                prompts = all_prompts(facts, n)
                keep = collide(facts, prompts.subjects) == control
                if keep.any():
                    prompts = some(prompts, keep)
                    right, votes = forms(facts, n, prompts.infer)[1:]
                    answer, rows = forms(facts, n, prompts.recall)[1:]
                    rows -= points(2 * n + 2)[:, -1:] ** 2          # alpha_r², which all answers have
                    rows = rows.swapaxes(1, 2).tolist()
                    observed = [[*row.pop(a), *chain(*sorted(row)),
                                 *np.delete(vote[:, r, None] - vote, r, axis=1).T.ravel()]
                                for r, vote, a, row in zip(right, votes, answer, rows)]
                    yield facts, len(observed), [expected] * len(observed), observed


@enumeration("R14", "support of dWKQ: all tables N ≤ 3, R ≤ 2, all prompts and pairs of them, both steps",
             "embeddings that are not one-hot")
def support(small, control):
    """Outside, every product has a factor that is 0; inside, the weights have no structure that cancels."""
    for N, R, n in ((2, 1, 1), (2, 2, 1), (3, 2, 1), (3, 2, 2))[:2 if small else 4]:
        for facts in tables(N, R, True):
            rng, prompts = np.random.default_rng(0), all_prompts(facts, n)
            built = recall.construct(facts, n, 1.0)
            params = recall.Params(*(rng.normal(size=w.shape) for w in built))
            params = params if control else params._replace(E=built.E, P=built.P)
            for tokens, targets, _ in (prompts.infer(), prompts.recall()):
                for pair in map(list, combinations_with_replacement(range(len(tokens)), 2)):
                    grads = recall.loss_and_grads(params, tokens[pair], targets[pair])[1]
                    yield (f"prompts {tokens[pair]}", 1, grads.WKQ != 0,
                           gradient_support(tokens[pair], len(params.E), len(params.P)))


@enumeration("R20", "share of collision-free prompts, consecutive shifts: all N ≤ 12, R ≤ N, n ≤ 4",
             "shifts two apart")
def collision_free(small, control):
    """P = Π_{j=1..n} (N − (n+1)(R−1) − j)/(N − j) if N ≥ (n+1) R, else 0; pi and sigma only rename."""
    for N in range(2, 7 if small else 13):
        for R, n in product(range(1, (N + 1) // 2 if control else N + 1), range(1, min(N, 5))):
            facts = Facts(np.arange(N), np.arange(N), np.arange(R) * (1 + control))
            sets = np.array(list(combinations(range(N), n + 1)))
            free = math.prod(Fraction(N - (n + 1) * (R - 1) - j, N - j) for j in range(1, n + 1))
            yield (f"N = {N}, R = {R}, n = {n}", 1, [free * (N >= (n + 1) * R)],
                   [Fraction(int((~collide(facts, sets)).sum()), len(sets))])
