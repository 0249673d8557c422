import numpy as np
import pytest
from scipy import stats

from refimpl import induction
from refimpl.induction import Bigram, sample, task


def test_from_text_counts_pairs_of_a_circle():
    bigram = Bigram.from_text("aabab")      # pairs: aa ab ba ab, and ba around the end
    assert bigram.chars == ("a", "b")
    np.testing.assert_allclose(bigram.pi_u, [3 / 5, 2 / 5])
    np.testing.assert_allclose(bigram.pi_b, [[1 / 3, 2 / 3], [1, 0]])


def test_from_text_counts_what_follows_not_what_precedes():
    """Of two letters a circle has as many pairs ab as ba: it takes three."""
    np.testing.assert_array_equal(Bigram.from_text("abcabc").pi_b, [[0, 1, 0], [0, 0, 1], [1, 0, 0]])


def test_running_sums_end_in_exactly_one():
    tenths = np.full((1, 10), 0.1)
    assert np.cumsum(tenths)[-1] < 1 and task.cumulative(tenths)[0, -1] == 1
    assert task.cumulative(np.array([[0.5, 0.25, 0.25 + 1e-13]]))[0, -1] == 1


def test_from_text_unigram_is_stationary():
    bigram = Bigram.from_text("the quick brown fox jumps over the lazy dog", V=7)
    np.testing.assert_allclose(bigram.pi_u @ bigram.pi_b, bigram.pi_u, rtol=1e-14)
    assert (np.diff(bigram.pi_u) <= 0).all()


def test_from_text_drops_rare_characters_and_joins_their_neighbours():
    assert Bigram.from_text("aabxab", V=2).chars == ("a", "b")
    np.testing.assert_allclose(Bigram.from_text("aabxab", V=2).pi_b, Bigram.from_text("aabab").pi_b)


def test_prior_leaves_no_zeros():
    bigram = Bigram.from_text("aabab", prior=1.0)
    np.testing.assert_allclose(bigram.pi_b, [[2 / 5, 3 / 5], [3 / 4, 1 / 4]])


def test_from_counts_sorts_by_frequency_and_keeps_names():
    bigram = Bigram.from_counts([[1, 0], [3, 4]], chars="xy")
    assert bigram.chars == ("y", "x")
    np.testing.assert_allclose(bigram.pi_b, [[4 / 7, 3 / 7], [0, 1]])
    np.testing.assert_allclose(bigram.pi_u, [7 / 8, 1 / 8])


@pytest.mark.parametrize("counts", [[[1]], [[1, 2]], [[1, -1], [1, 1]], [[1, np.nan], [1, 1]],
                                    [[0, 0], [1, 1]], [["a", "b"], ["c", "d"]], [[1j, 1], [1, 1]]])
def test_counts_that_make_no_bigram_are_refused(counts):
    with pytest.raises(ValueError, match="counts"):
        Bigram.from_counts(counts)


@pytest.mark.parametrize("counts", [[[1e308, 1e308], [1, 1]], [[10 ** 400, 1], [1, 1]],
                                    np.array([["1e400", 1], [1, 1]], np.longdouble)])
def test_counts_whose_sums_are_not_finite_are_refused(counts):
    with pytest.raises(ValueError, match="^counts: "):
        Bigram.from_counts(counts)


@pytest.mark.parametrize("counts, dtype", [
    ([[2 ** 63, 2 ** 63], [0, 2 ** 62]], np.uint64), ([[6e4, 6e4], [0, 3e4]], np.float16),
    ([[6e4, 6e4], [0, 3e4]], np.longdouble), ([[6e4, 6e4], [0, 3e4]], np.float32),
    ([[2e289, 2e289], [0, 1e289]], float)])
def test_counts_of_every_type_make_the_same_bigram(counts, dtype, rng):
    bigram = Bigram.from_counts(np.array(counts, dtype))
    assert bigram.pi_b.dtype == bigram.pi_u.dtype == np.float64
    np.testing.assert_allclose(bigram.pi_b, [[0.5, 0.5], [0, 1]], rtol=1e-15)
    np.testing.assert_allclose(bigram.pi_u, [0.8, 0.2], rtol=1e-15)
    sample(bigram, 2, 3, rng, triggers=1)


@pytest.mark.parametrize("text, V", [("", None), ("aaaa", None), ("abab", 3)])
def test_text_that_makes_no_bigram_is_refused(text, V):
    with pytest.raises(ValueError, match="different characters"):
        Bigram.from_text(text, V)


@pytest.mark.parametrize("call, name", [
    (lambda: Bigram.from_text(b"abc"), "text"), (lambda: Bigram.from_text("abc", 1), "V"),
    (lambda: Bigram.from_text("abc", prior=-1), "prior"), (lambda: Bigram.random(1, None), "V"),
    (lambda: Bigram.from_counts([[1, 1], [1, 1]], chars="a"), "chars")])
def test_bad_arguments_of_bigrams_are_named(call, name):
    with pytest.raises(ValueError, match=f"^{name}:"):
        call()


def test_occurrence_counts_each_trigger_up_to_t(rng):
    batch = sample(Bigram.random(5, rng), 20, 30, rng, triggers=2)
    assert batch.tokens.shape == (20, 31) and batch.occurrence.shape == (20, 30)
    for z, occurrence in zip(batch.tokens, batch.occurrence):
        expected = [np.sum(z[:t + 1] == z[t]) if z[t] < 2 else 0 for t in range(30)]
        np.testing.assert_array_equal(occurrence, expected)


def test_triggers_are_followed_by_their_output_and_others_are_not(rng):
    batch = sample(Bigram.random(6, rng), 50, 40, rng, triggers=[1, 4])
    assert (batch.outputs[:, [0, 2, 3, 5]] == -1).all() and (batch.outputs[:, [1, 4]] >= 0).all()
    for z, outputs in zip(batch.tokens, batch.outputs):
        forced = outputs[z[:-1]] >= 0
        np.testing.assert_array_equal(z[1:][forced], outputs[z[:-1]][forced])


def test_sampled_pairs_follow_the_bigram(rng):
    bigram = Bigram.random(4, rng)
    z = sample(bigram, 400, 100, rng, triggers=[3]).tokens
    for v in range(3):
        followers = np.bincount(z[:, 1:][z[:, :-1] == v], minlength=4)
        assert stats.chisquare(followers, followers.sum() * bigram.pi_b[v]).pvalue > 1e-4
    first = np.bincount(z[:, 0], minlength=4)
    assert stats.chisquare(first, 400 * bigram.pi_u).pvalue > 1e-4


def test_outputs_follow_their_law(rng):
    pi_o = np.array([[0.0, 0.2, 0.8], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    outputs = sample(Bigram.random(3, rng), 3000, 1, rng, triggers=[0, 1], outputs=pi_o).outputs
    counts = np.bincount(outputs[:, 0], minlength=3)
    assert counts[0] == 0 and (outputs[:, 1] == 0).all()
    assert stats.chisquare(counts[1:], [600, 2400]).pvalue > 1e-4


def test_drawn_triggers_differ_within_and_between_sequences(rng):
    bigram = Bigram.from_counts(np.ones((6, 6)))
    batch = sample(bigram, 500, 3, rng, triggers=2, drawn=True)
    assert ((batch.outputs >= 0).sum(axis=1) == 2).all()
    assert stats.chisquare((batch.outputs >= 0).sum(axis=0)).pvalue > 1e-4
    assert (sample(bigram, 9, 3, rng, triggers=6, drawn=True).outputs >= 0).all()      # all there are


def test_triggers_are_the_likely_ones_among_many(rng):
    """Arrays of this size are sorted in blocks; of 1500 some have a block that ends just at the K-th one."""
    V, K, n = 600, 100, 1500
    pi_u, likely = np.full(V, 1e-13), rng.permutation(V)[:K]
    pi_u[likely] = (1 - 1e-13 * (V - K)) / K
    outputs = sample(Bigram(tuple(range(V)), pi_u, np.tile(pi_u, (V, 1))), n, 1, rng, K, drawn=True).outputs
    np.testing.assert_array_equal(outputs >= 0, np.tile(np.isin(range(V), likely), (n, 1)))


def test_tokens_of_probability_zero_are_never_drawn(rng):
    bigram = Bigram.from_counts([[0, 3, 0], [1, 0, 0], [1, 1, 0]])
    z = sample(bigram, 200, 50, rng, triggers=[2], outputs=np.eye(3)).tokens
    pairs = np.zeros((3, 3), bool)
    pairs[z[:, :-1], z[:, 1:]] = True
    assert not pairs[bigram.pi_b[:2].shape[0] - 2, 0] and not (pairs[:2] & (bigram.pi_b[:2] == 0)).any()


def test_same_seed_gives_the_same_batch():
    bigram = Bigram.random(5, np.random.default_rng(0))
    one, two = (sample(bigram, 7, 9, np.random.default_rng(3), drawn=True, triggers=2) for _ in "ab")
    for a, b in zip(one, two):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("change, name", [
    (dict(n=0), "n"), (dict(length=0), "length"), (dict(triggers=6), "triggers"),
    (dict(triggers=0), "triggers"), (dict(triggers=[0, 0]), "triggers"), (dict(triggers=[5]), "triggers"),
    (dict(triggers=[0.5]), "triggers"), (dict(outputs=np.ones((5, 5))), "outputs"),
    (dict(outputs=np.eye(4)), "outputs"), (dict(outputs="other"), "outputs"),
    (dict(triggers=6, drawn=True), "triggers"), (dict(n=2.0), "n")])
def test_bad_arguments_of_sample_are_named(change, name, rng):
    arguments = {**dict(n=2, length=3, triggers=1), **change}
    with pytest.raises(ValueError, match=f"^{name}:"):
        sample(Bigram.random(5, rng), rng=rng, **arguments)


def test_real_text_makes_a_bigram():
    from pydoc_data.topics import topics
    bigram = Bigram.from_text("\n".join(topics.values()), V=65)
    assert bigram.chars[0] == " " and bigram.pi_b.shape == (65, 65)
    assert isinstance(bigram, induction.Bigram)
