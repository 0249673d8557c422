"""The fact table is Latin (claim R1), and prompts are drawn from it as the task says."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare

from refimpl.recall import Facts, sample, task


@st.composite
def tables(draw, largest=9):
    """Latin tables down to one subject and one relation."""
    N = draw(st.integers(1, largest))
    R = draw(st.integers(1, N))
    return Facts.latin(N, R, np.random.default_rng(draw(st.integers(0, 10 ** 6))))


def table_of(facts):
    """g as an (N, R) array."""
    return facts.answer(np.arange(facts.N)[:, None], np.arange(facts.R))


def rows_are_disjoint(facts, subjects):
    """Whether the answer rows of one prompt share nothing, by sets."""
    g = table_of(facts)
    return len(set().union(*(g[s].tolist() for s in subjects))) == len(subjects) * facts.R


@settings(deadline=None, max_examples=50)
@given(tables())
def test_facts_are_latin(facts):
    g = table_of(facts)
    for r in range(facts.R):
        assert sorted(g[:, r]) == list(range(facts.N))
    for s in range(facts.N):
        assert len(set(g[s])) == facts.R


@settings(deadline=None, max_examples=50)
@given(tables())
def test_relation_inverts_answer(facts):
    g = table_of(facts)
    relation = facts.relation(np.arange(facts.N)[:, None], np.arange(facts.N))
    for s in range(facts.N):
        for a in range(facts.N):
            assert [relation[s, a]] == [r for r in range(facts.R) if g[s, r] == a] or \
                (relation[s, a] == -1 and a not in g[s])


def test_answer_takes_plain_integers():
    facts = Facts(np.array([2, 0, 1]), np.array([1, 2, 0]), np.array([0, 2]))
    assert facts.answer(0, 1) == 2 and facts.relation(0, 2) == 1 and facts.relation(0, 1) == -1


def test_answer_matches_the_cyclic_formula_of_a_large_table():
    facts = Facts.latin(200_000, 100_000, np.random.default_rng(0))
    s, r = np.array([0, 7, 199_999]), np.array([99_999, 3, 0])
    a = facts.answer(s, r)
    assert (a == facts.pi[(facts.sigma[s] + facts.shifts[r]) % 200_000]).all()
    assert (facts.relation(s, a) == r).all()


def test_months_and_pitches_name_their_facts():
    months, pitches = Facts.months(), Facts.pitches(R=11)
    assert task.MONTHS[months.answer(task.MONTHS.index("October"), 1)] == "December"
    assert task.MONTHS[months.answer(task.MONTHS.index("November"), 3)] == "March"
    assert task.PITCHES[pitches.answer(task.PITCHES.index("A"), task.INTERVALS.index("minor third"))] == "C"
    assert months.R == 4 and pitches.R == len(task.INTERVALS) == 11
    assert len(task.MONTHS) == len(task.PITCHES) == 12


def test_facts_that_are_not_latin_have_a_relation_that_is_no_bijection():
    facts = Facts(np.array([3, 1, 0, 2]), np.array([0, 0, 1, 2]), np.array([1, 0]), is_latin=False)
    g = table_of(facts)
    assert len(set(g[:, 0])) < 4
    assert (facts.relation(np.arange(4)[:, None], g) == np.arange(2)).all()


def test_facts_keep_their_own_copy():
    pi, sigma, shifts = np.arange(4), np.arange(4), np.arange(2)
    facts = Facts(pi, sigma, shifts)
    pi[:] = 0
    assert facts.answer(3, 0) == 3
    with pytest.raises(ValueError, match="read-only"):
        facts.sigma[0] = 1


@pytest.mark.parametrize("change, message", [
    ({"pi": [0, 1, 1, 3]}, "pi: .* got 1 at entries 1 and 2"),
    ({"pi": [0, 1, 2, 4]}, "pi: expected values in 0..3"),
    ({"pi": [0.0, 1, 2, 3]}, "pi: expected integers"),
    ({"pi": []}, "pi: expected"),
    ({"sigma": [0, 2, 1, 2]}, r"sigma: .* got 2 at rows \(subjects\) 1 and 3"),
    ({"sigma": [0, 1, 2]}, r"sigma: expected shape \(4,\)"),
    ({"shifts": [3, 0, 3]}, r"shifts: .* got 3 at columns \(relations\) 0 and 2"),
    ({"shifts": [4]}, "shifts: expected values in 0..3"),
    ({"shifts": [[0]]}, "shifts: expected 1 axes"),
    ({"shifts": [1, 1], "is_latin": False}, "shifts: .* distinct"),
    ({"pi": [0, 0, 2, 3], "is_latin": False}, "pi: .* distinct"),
    ({"is_latin": "no"}, "is_latin: expected a bool, got str"),
])
def test_facts_refuse(change, message):
    with pytest.raises(ValueError, match=message):
        Facts(**({"pi": [0, 1, 2, 3], "sigma": [0, 1, 2, 3], "shifts": [0, 1]} | change))


@pytest.mark.parametrize("call, message", [
    (lambda facts, rng: Facts.latin(3, 4, rng), "R: "),
    (lambda facts, rng: Facts.latin(0, 1, rng), "N: "),
    (lambda facts, rng: Facts.latin(3, 0, rng), "R: "),
    (lambda facts, rng: Facts.months(12), "R: "),
    (lambda facts, rng: Facts.pitches(0), "R: "),
    (lambda facts, rng: facts.answer(4, 0), "s: "),
    (lambda facts, rng: facts.answer(0, 2), "r: "),
    (lambda facts, rng: facts.answer(-1, 0), "s: "),
    (lambda facts, rng: facts.answer(0.0, 0), "s: "),
    (lambda facts, rng: facts.relation(0, 4), "a: "),
    (lambda facts, rng: facts.relation(4, 0), "s: "),
    (lambda facts, rng: sample(facts, 0, 5, rng), "n: "),
    (lambda facts, rng: sample(facts, 4, 5, rng), "n: "),
    (lambda facts, rng: sample(facts, 1, 0, rng), "count: "),
    (lambda facts, rng: sample(facts, 2, 5, rng, collision_free=True), r"\(n\+1\) R <= N"),
])
def test_task_refuses(call, message):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=message):
        call(Facts.latin(4, 2, rng), rng)


@settings(deadline=None, max_examples=50)
@given(tables().filter(lambda facts: facts.N > 1), st.data())
def test_prompts_follow_the_task(facts, data):
    n = data.draw(st.integers(1, facts.N - 1))
    prompts = sample(facts, n, 6, np.random.default_rng(data.draw(st.integers(0, 10 ** 6))))
    g = table_of(facts)
    assert prompts.subjects.shape == prompts.answers.shape == (6, n + 1)
    for s, r, a in zip(prompts.subjects, prompts.relation, prompts.answers):
        assert len(set(s)) == n + 1
        assert (g[s, r] == a).all()


@settings(deadline=None, max_examples=50)
@given(tables().filter(lambda facts: facts.N > 1), st.data())
def test_tokens_alternate_subjects_and_answers(facts, data):
    n, N = data.draw(st.integers(1, facts.N - 1)), facts.N
    prompts = sample(facts, n, 3, np.random.default_rng(1))
    tokens, targets, slot = prompts.infer()
    longer, answer, answers = prompts.recall()
    for b in range(3):
        s, a, r = prompts.subjects[b], prompts.answers[b], prompts.relation[b]
        shown = [token for i in range(n) for token in (s[i], N + a[i])] + [s[n]]
        assert tokens[b].tolist() == shown and targets[b] == 2 * N + r
        assert longer[b].tolist() == shown + [2 * N + r] and answer[b] == N + a[n]
    assert slot == (2 * N, 2 * N + facts.R) and answers == (N, 2 * N)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 5), st.integers(0, 10 ** 6))
def test_collision_free_prompts_have_disjoint_rows(n, R, spare, seed):
    rng = np.random.default_rng(seed)
    facts = Facts.latin((n + 1) * R + spare, R, rng)
    prompts = sample(facts, n, 4, rng, collision_free=True)
    for s in prompts.subjects:
        assert len(set(s)) == n + 1
        assert rows_are_disjoint(facts, s)


def test_collision_free_changes_something():
    facts = Facts.months()
    free = sample(facts, 2, 50, np.random.default_rng(0), collision_free=True)
    plain = sample(facts, 2, 50, np.random.default_rng(0))
    assert all(rows_are_disjoint(facts, s) for s in free.subjects)
    assert not all(rows_are_disjoint(facts, s) for s in plain.subjects)


def test_collision_free_gives_up_with_what_it_tried():
    # The shifts 0, 1, 3 differ by 1, 2, 3, 4 and 5 mod 6: any two rows of 3 among 6 answers meet.
    facts = Facts(np.arange(6), np.arange(6), np.array([0, 1, 3]))
    with pytest.raises(ValueError, match=r"^collision_free: .* got 1002 \(drawn 1002, found 0\)"):
        sample(facts, 1, 2, np.random.default_rng(0), collision_free=True)


@pytest.mark.parametrize("N, R, n, shift", [
    (5, 2, 1, 0), (6, 1, 3, 2), (6, 2, 2, 5), (9, 2, 3, 8), (7, 3, 1, 6)])
def test_expected_draws_are_counted_over_all_prompts(N, R, n, shift):
    """Consecutive shifts, across 0 too, against every ordered set of subjects; others have no formula."""
    rng = np.random.default_rng(0)
    facts = Facts(rng.permutation(N), rng.permutation(N), rng.permutation((shift + np.arange(R)) % N))
    subjects = np.array(list(permutations(range(N), n + 1)))
    share = np.mean([rows_are_disjoint(facts, s) for s in subjects])
    assert task.consecutive_draws(facts, n) == pytest.approx(1 / share, rel=1e-14)
    assert task.consecutive_draws(Facts(facts.pi, facts.sigma, [0, 1, 3]), n) is None
    assert task.consecutive_draws(Facts(facts.pi, 0 * facts.sigma, facts.shifts, is_latin=False), n) is None


def test_rare_prompts_are_refused_at_once_with_the_draws_that_they_take():
    # (n+1) R = N: P = n! / ((N−1) … (N−n)), here 5! 54! / 59! = 1 / 5,006,386.
    facts = Facts.latin(60, 10, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"^collision_free: .* got 5.006e\+06 \(drawn 0, found 0\)"):
        sample(facts, 5, 10 ** 5, np.random.default_rng(0), collision_free=True)
    with pytest.raises(ValueError, match=r"got inf \(drawn 0"):
        sample(Facts.latin(4000, 2, np.random.default_rng(0)), 1999, 1, np.random.default_rng(0), True)


def test_many_prompts_that_take_some_draws_are_all_found():
    """(n+1) R = N again: 11! / (3! 8!) = 165 draws each on average, and the last of 1000 takes some 1200."""
    facts = Facts.latin(12, 3, np.random.default_rng(0))
    assert task.consecutive_draws(facts, 3) == pytest.approx(165)
    prompts = sample(facts, 3, 1000, np.random.default_rng(1), collision_free=True)
    assert not task.collide(facts, prompts.subjects).any()


def test_subjects_are_uniform_over_ordered_sets():
    # 5·4·3 = 60 ordered sets, 500 expected of each; a sound sampler fails one seed in 1000.
    drawn = task.distinct(5, 3, 30_000, np.random.default_rng(0))
    _, count = np.unique(drawn @ [25, 5, 1], return_counts=True)
    assert len(count) == 60
    assert chisquare(count).pvalue > 1e-3


def test_relations_are_uniform():
    prompts = sample(Facts.latin(9, 7, np.random.default_rng(0)), 1, 7000, np.random.default_rng(1))
    assert chisquare(np.bincount(prompts.relation, minlength=7)).pvalue > 1e-3


def test_distinct_needs_no_memory_for_the_range():
    drawn = task.distinct(10 ** 15, 4, 1000, np.random.default_rng(0))
    assert drawn.max() > 9 * 10 ** 14 and drawn.min() < 10 ** 14


def test_distinct_can_take_everything():
    assert (np.sort(task.distinct(6, 6, 20, np.random.default_rng(0)), axis=1) == np.arange(6)).all()
