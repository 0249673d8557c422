"""Samplers against the distributions that they document, and the same tests against planted mistakes.

Each law returns the p-value of a chi-square test over all that can be drawn, with exact probabilities. Seeds
are fixed: a sound sampler would fail with one seed in a million, and each planted one fails with this seed.
"""

from itertools import combinations, permutations, product

import numpy as np
import pytest
from scipy.stats import chisquare

from refimpl import induction, recall

RARE = 1e-6


def p_value(drawn, expected):
    """How likely draws (n,) of what expected {value: probability} lists; 0 if one is not in it."""
    values, counts = np.unique(np.asarray(drawn), axis=0, return_counts=True)
    found = dict(zip([tuple(np.ravel(value).tolist()) for value in values], counts.tolist()))
    possible = {key: p for key, p in expected.items() if p > 0}
    assert np.isclose(sum(possible.values()), 1) and min(possible.values()) * len(drawn) > 5
    if not set(found) <= set(possible):
        return 0.0
    p = np.array(list(possible.values()))
    return chisquare([found.get(key, 0) for key in possible], len(drawn) * p / p.sum()).pvalue


# Trigger-bigram text. Token 1 of pi_u, and some pairs and outputs, have probability 0.
PI_U = np.array([0.4, 0.0, 0.35, 0.25])
PI_B = np.array([[0.0, 0.3, 0.5, 0.2], [0.25, 0.25, 0.25, 0.25], [0.6, 0.0, 0.1, 0.3], [0.2, 0.2, 0.6, 0.0]])
PI_O = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.5, 0.0, 0.25, 0.25], [0.25, 0.15, 0.6, 0.0]])
TEXT = induction.Bigram(tuple("abcd"), PI_U, PI_B)
V = len(PI_U)


def set_probability(Q, pi_u=PI_U):
    """Of a set of triggers drawn one after the other without repetition, in any order."""
    return sum(np.prod([pi_u[q] / (1 - pi_u[list(order[:k])].sum()) for k, q in enumerate(order)])
               for order in permutations(Q))


def drawn_triggers(sample, n=4000):
    """The set of two of five triggers, drawn from a pi_u that is not uniform and has a zero."""
    pi_u = np.array([0.45, 0.25, 0.0, 0.18, 0.12])
    outputs = sample(induction.Bigram(tuple(range(5)), pi_u, np.full((5, 5), 0.2)), n, 1,
                     np.random.default_rng(1), 2, "uniform", True).outputs
    return p_value(outputs >= 0, {tuple(np.isin(range(5), Q).tolist()): set_probability(Q, pi_u)
                                  for Q in combinations(range(5), 2)})


def joint_outputs(sample, n=6000):
    """All outputs of fixed triggers together: independent, each from its row of pi_o; −1 for no trigger."""
    outputs = sample(TEXT, n, 1, np.random.default_rng(2), [3, 0, 2], PI_O, False).outputs
    return p_value(outputs, {(o0, -1, o2, o3): PI_O[0, o0] * PI_O[2, o2] * PI_O[3, o3]
                             for o0, o2, o3 in product(range(V), repeat=3)})


def outputs_of_drawn_triggers(sample, n=6000):
    """Which two triggers, and the outputs of both."""
    outputs = sample(TEXT, n, 1, np.random.default_rng(3), 2, PI_O, True).outputs
    expected = {}
    for (q, u), o, o_u in product(combinations(range(V), 2), range(V), range(V)):
        row = [-1] * V
        row[q], row[u] = o, o_u
        expected[tuple(row)] = set_probability((q, u)) * PI_O[q, o] * PI_O[u, o_u]
    return p_value(outputs, expected)


def uniform_outputs(sample, n=2000):
    """Outputs "uniform" of the two most frequent tokens."""
    outputs = sample(TEXT, n, 1, np.random.default_rng(4), 2, "uniform", False).outputs
    return p_value(outputs, {(o0, o1, -1, -1): 1 / V ** 2 for o0, o1 in product(range(V), repeat=2)})


def first_tokens(sample, n=12000, drawn=False):
    """z_0, z_1 and z_2 together, with the triggers 0 and 3 or two that are drawn."""
    z = sample(TEXT, n, 2, np.random.default_rng(5), 2 if drawn else [0, 3], PI_O, drawn).tokens
    expected = dict.fromkeys(product(range(V), repeat=3), 0.0)
    for Q in combinations(range(V), 2):
        share = set_probability(Q) if drawn else float(Q == (0, 3))
        for o in product(range(V), repeat=2):
            after = PI_B.copy()
            for q, u in zip(Q, o):
                after[q] = np.eye(V)[u]
                share_of_o = share * np.prod([PI_O[k, v] for k, v in zip(Q, o)])
            for x, y, w in expected:
                expected[x, y, w] += share_of_o * PI_U[x] * after[x, y] * after[y, w]
    return p_value(z, expected)


def first_tokens_with_drawn_triggers(sample, n=12000):
    return first_tokens(sample, n, True)


def neighbours(sample, n=8000):
    """The first token and an output of a sequence and of the next: independent."""
    batch = sample(TEXT, 2 * n, 1, np.random.default_rng(6), [0], PI_O, False)
    both = np.column_stack([batch.tokens[:, 0], batch.outputs[:, 0]]).reshape(n, 4)
    return p_value(both, {(z, o, w, u): PI_U[z] * PI_O[0, o] * PI_U[w] * PI_O[0, u]
                          for z, o, w, u in product(range(V), repeat=4)})


def pick(p, x):
    """From each of the distributions p (n, V) the token at the uniform number x (n,)."""
    return (np.cumsum(p, axis=1) / p.sum(axis=1, keepdims=True) <= x[:, None]).sum(axis=1)


def plain(mistake=""):
    """A sampler written from the docstring alone, one draw after the other; or one with a mistake."""
    def sample(bigram, n, T, rng, triggers, outputs, drawn):
        pi_u, pi_b = bigram.pi_u, bigram.pi_b
        size, rows = len(pi_u), np.arange(n)
        pi_o = np.full((size, size), 1 / size) if isinstance(outputs, str) or \
            mistake == "outputs uniform" else outputs
        ids, left = range(triggers) if isinstance(triggers, int) else triggers, np.tile(pi_u, (n, 1))
        if mistake == "triggers uniform":
            left = (left > 0) + 0.0
        if mistake == "triggers of probability zero":
            left += 0.01
        chosen, shared = np.full((n, size), -1), rng.random(n)
        for k in range(len(ids)):
            q = pick(left, rng.random(n)) if drawn else np.full(n, ids[k])
            if drawn and mistake == "triggers by weight times noise" and k == 0:
                order = np.argsort(-rng.random((n, size)) * pi_u, axis=1)
            if drawn and mistake == "triggers by weight times noise":
                q = order[:, k]
            left[rows, q] = 0
            x = shared if mistake == "outputs shared between triggers" else rng.random(n)
            if mistake == "outputs shared by the batch":
                x = np.full(n, x[0])
            row = (q + 1) % size if mistake == "outputs of another trigger" else q
            chosen[rows, q] = pick(pi_o[row], x)
        x = rng.random((n, T + 1))
        if mistake == "z_1 from the number of z_0":
            x[:, 1] = x[:, 0]
        if mistake == "sequences in pairs":
            x[1::2] = x[::2]
        z = np.empty((n, T + 1), int)
        first = np.full(size, 1 / size) if mistake == "z_0 uniform" else pi_u
        z[:, 0] = pick(np.tile(first, (n, 1)), x[:, 0])
        if mistake == "tokens of probability zero":
            pi_b = 0.99 * pi_b + 0.01 / size
        if mistake == "bigram transposed":
            pi_b = pi_b.T / pi_b.sum(axis=0)[:, None]
        for t in range(T):
            after = pick(np.tile(pi_u, (n, 1)) if mistake == "z_1 from pi_u" and t == 0 else pi_b[z[:, t]],
                         x[:, t + 1])
            o = chosen[rows, z[:, t]]
            if mistake == "output redrawn at each occurrence":
                o = np.where(o >= 0, pick(pi_o[z[:, t]], rng.random(n)), o)
            seen = (z[:, :t] == z[:, t:t + 1]).any(axis=1) if mistake == "output from the second occurrence" \
                else True
            z[:, t + 1] = np.where((o >= 0) & seen, o, after)
        return induction.Batch(z, None, chosen)
    return sample


TOKENS = ("z_0 uniform", "z_1 from pi_u", "z_1 from the number of z_0", "tokens of probability zero",
          "bigram transposed", "output from the second occurrence", "outputs uniform")
TEXT_LAWS = {
    drawn_triggers: ("triggers uniform", "triggers of probability zero", "triggers by weight times noise"),
    joint_outputs: ("outputs uniform", "outputs shared between triggers", "outputs shared by the batch",
                    "outputs of another trigger"),
    outputs_of_drawn_triggers: ("triggers uniform", "outputs shared between triggers",
                                "outputs of another trigger"),
    uniform_outputs: ("outputs shared between triggers", "outputs shared by the batch"),
    first_tokens: (*TOKENS, "output redrawn at each occurrence"),
    first_tokens_with_drawn_triggers: TOKENS,
    neighbours: ("sequences in pairs", "outputs shared by the batch")}


@pytest.mark.parametrize("law", TEXT_LAWS, ids=lambda law: law.__name__)
def test_text_follows_its_law_and_planted_mistakes_do_not(law):
    assert law(induction.sample) > RARE
    assert law(plain()) > RARE
    for mistake in TEXT_LAWS[law]:
        assert law(plain(mistake)) < RARE, mistake


def uniform_on_the_simplex(rows):
    """Rows (n, V) of Dirichlet(1), mapped to V − 1 independent uniform numbers in 0..3 each (n, V − 1).

    The first entry of a uniform point of the simplex has P(p > x) = (1 − x)^(V−1), and the others, divided
    by their sum, are a uniform point of the smaller simplex.
    """
    left, columns, size = np.ones(len(rows)), [], rows.shape[1]
    for k in range(size - 1):
        columns.append((1 - rows[:, k] / left) ** (size - 1 - k))
        left = left - rows[:, k]
    return np.minimum(4 * np.column_stack(columns), 3).astype(int)


def random_bigrams(random, n=4000):
    """pi_u and two rows of pi_b over three tokens. The gaps of a sorted uniform point, k (p_k − p_{k+1}),
    are a uniform point again."""
    rng = np.random.default_rng(7)
    drawn = [random(3, rng) for _ in range(n)]
    pi_u, pi_b = np.array([b.pi_u for b in drawn]), np.array([b.pi_b for b in drawn])
    if not (np.diff(pi_u, axis=1) <= 0).all():
        return 0.0
    gaps = (pi_u - np.pad(pi_u[:, 1:], ((0, 0), (0, 1)))) * [1, 2, 3]
    mapped = [uniform_on_the_simplex(rows) for rows in (gaps, *np.moveaxis(pi_b, 1, 0))]
    return min(p_value(np.column_stack(pair), dict.fromkeys(product(range(4), repeat=4), 4.0 ** -4))
               for pair in combinations(mapped, 2))


def random_bigram(draw, same_row=False, is_sorted=True, follows=False):
    """A planted Bigram.random whose distributions come from draw(rng)."""
    def random(size, rng):
        pi_u, pi_b = draw(rng), np.array([draw(rng) for _ in range(3)])
        if same_row:
            pi_b[1] = pi_b[0]
        if follows:
            pi_b[2] = pi_u
        return induction.Bigram((0, 1, 2), np.sort(pi_u)[::-1] if is_sorted else pi_u, pi_b)
    return random


def spacings(rng):
    """The pieces of a stick that is broken at two uniform places: uniform on the simplex."""
    return np.diff(np.sort(np.append(rng.random(2), [0, 1])))


def test_random_bigrams_are_uniform_on_the_simplex_and_planted_ones_are_not():
    assert random_bigrams(induction.Bigram.random) > RARE
    assert random_bigrams(random_bigram(spacings)) > RARE

    def normalised(rng):
        x = rng.random(3)
        return x / x.sum()
    for wrong in (random_bigram(normalised), random_bigram(lambda rng: rng.dirichlet([2, 2, 2])),
                  random_bigram(spacings, same_row=True), random_bigram(spacings, is_sorted=False),
                  random_bigram(spacings, follows=True),
                  random_bigram(lambda rng: rng.dirichlet([1, 1, 1.5]))):
        assert random_bigrams(wrong) < RARE


# Recall. The answers of a subject are neighbours on the cycle, or not: shifts 0, 1, 3.
FACTS = recall.Facts(np.array([2, 0, 3, 1]), np.array([1, 3, 0, 2]), np.array([3, 0, 2]))
CYCLE = recall.Facts(np.arange(8), np.array([3, 1, 0, 2, 7, 5, 6, 4]), np.array([1, 0]))
SPREAD = recall.Facts(np.roll(np.arange(11), 3), np.arange(11)[::-1], np.array([1, 0, 3]))


def ordered_subjects(sample, n=8000):
    """All ordered triples of four subjects with each of three relations: equally likely."""
    prompts = sample(FACTS, 2, n, np.random.default_rng(8), False)
    expected = [(*s, r) for s in permutations(range(4), 3) for r in range(3)]
    return p_value(np.column_stack([prompts.subjects, prompts.relation]),
                   dict.fromkeys(expected, 1 / len(expected)))


def free(facts, n):
    """All ordered tuples of n+1 subjects whose rows of answers are disjoint."""
    rows = {s: {int(facts.answer(s, r)) for r in range(facts.R)} for s in range(facts.N)}
    return [s for s in permutations(range(facts.N), n + 1)
            if all(not rows[a] & rows[b] for a, b in combinations(s, 2))]


def collision_free_subjects(sample, n=6000, facts=CYCLE, pairs=2):
    """All ordered tuples without collisions: equally likely, with each relation."""
    prompts = sample(facts, pairs, n, np.random.default_rng(9), True)
    expected = [(*s, r) for s in free(facts, pairs) for r in range(facts.R)]
    return p_value(np.column_stack([prompts.subjects, prompts.relation]),
                   dict.fromkeys(expected, 1 / len(expected)))


def collision_free_subjects_of_spread_answers(sample, n=6000):
    return collision_free_subjects(sample, n, SPREAD, 1)


def neighbouring_prompts(sample, n=6000):
    """A prompt and the next one have the same subjects as often as independent ones."""
    s = sample(CYCLE, 2, 2 * n, np.random.default_rng(10), True).subjects
    same, p = (s[::2] == s[1::2]).all(axis=1), 1 / len(free(CYCLE, 2))
    return p_value(same, {(True,): p, (False,): 1 - p})


def plain_prompts(mistake=""):
    """A sampler that picks from the list of all tuples; or one with a mistake."""
    def sample(facts, n, count, rng, collision_free):
        everything = np.array(list(permutations(range(facts.N), n + 1)))
        allowed = np.array(free(facts, n)) if collision_free else everything
        s = allowed[rng.integers(len(allowed), size=count)]
        r = rng.integers(facts.R, size=count)
        if mistake == "sorted subjects":
            s = np.sort(s, axis=1)
        if mistake == "Floyd's draws in his order":
            for b in range(count):
                taken: list = []
                for top in range(facts.N - n - 1, facts.N):
                    new = int(rng.integers(top + 1))
                    taken.append(top if new in taken else new)
                s[b] = taken
        if mistake == "relation of the first subject":
            r = s[:, 0] % facts.R
        if mistake == "relation never the last":
            r = rng.integers(facts.R - 1, size=count)
        if mistake == "collisions kept":
            s = everything[rng.integers(len(everything), size=count)]
        if mistake == "one subject at a time":
            can = {k: {tuple(row[:k]) for row in allowed.tolist()} for k in range(n + 2)}
            for b in range(count):
                row: list = []
                while len(row) <= n:
                    new = int(rng.integers(facts.N))
                    row += [new] if (*row, new) in can[len(row) + 1] else []
                s[b] = row
        if mistake == "rejected ones copied from the one before":
            again = np.flatnonzero(rng.random(count) < 0.5)[1:]
            s[again] = s[again - 1]
        return recall.Prompts(facts.N, facts.R, s, r, None)
    return sample


PROMPT_LAWS = {
    ordered_subjects: ("sorted subjects", "Floyd's draws in his order", "relation of the first subject",
                       "relation never the last"),
    collision_free_subjects: ("sorted subjects", "collisions kept", "one subject at a time",
                              "relation of the first subject"),
    collision_free_subjects_of_spread_answers: ("collisions kept", "relation of the first subject"),
    neighbouring_prompts: ("rejected ones copied from the one before",)}


@pytest.mark.parametrize("law", PROMPT_LAWS, ids=lambda law: law.__name__)
def test_prompts_follow_their_law_and_planted_mistakes_do_not(law):
    assert law(recall.sample) > RARE
    assert law(plain_prompts()) > RARE
    for mistake in PROMPT_LAWS[law]:
        assert law(plain_prompts(mistake)) < RARE, mistake


def latin_tables(latin, N=3, R=2, n=60):
    """All (pi, sigma, shifts): equally likely, together and each alone. n is draws for each."""
    orders = list(permutations(range(N)))
    expected = [(*pi, *sigma, *shifts) for pi, sigma, shifts in
                product(orders, orders, permutations(range(R)))]
    rng = np.random.default_rng(11)
    tables = [latin(N, R, rng) for _ in range(n * len(expected))]
    together = p_value([(*f.pi, *f.sigma, *f.shifts) for f in tables],
                       dict.fromkeys(expected, 1 / len(expected)))
    return min(together, *(p_value([getattr(f, name) for f in tables], dict.fromkeys(orders, 1 / len(orders)))
                           for name in ("pi", "sigma")))


@pytest.mark.parametrize("N, R", [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3)])
def test_latin_tables_are_equally_likely(N, R):
    assert latin_tables(recall.Facts.latin, N, R, 10) > RARE


def planted_table(pi=None, sigma=None, shifts=None):
    def latin(N, R, rng):
        first = rng.permutation(N) if pi is None else pi(N, rng)
        return recall.Facts(first, rng.permutation(N) if sigma is None else sigma(first, rng),
                            rng.permutation(R) if shifts is None else shifts(R, rng))
    return latin


def swaps_with_any(N, rng):
    """The shuffle that swaps every entry with any other: N^N ways, which N! does not divide."""
    order = np.arange(N)
    for i in range(N):
        j = rng.integers(N)
        order[[i, j]] = order[[j, i]]
    return order


def test_planted_tables_are_not_equally_likely():
    assert latin_tables(planted_table()) > RARE
    assert latin_tables(planted_table(swaps_with_any)) < RARE
    for wrong in (planted_table(sigma=lambda pi, rng: pi),
                  planted_table(sigma=lambda pi, rng: np.arange(3)),
                  planted_table(sigma=lambda pi, rng: np.argsort(pi)),
                  planted_table(lambda N, rng: np.roll(np.arange(N), rng.integers(N))),
                  planted_table(shifts=lambda R, rng: np.arange(R))):
        assert latin_tables(wrong, n=20) < RARE
