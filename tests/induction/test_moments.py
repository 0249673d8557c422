"""Claims I7, I7b and I7c: the first three gradient steps against backpropagation over all sequences."""

import types

import numpy as np
import pytest

from refimpl.claims import learning as claims
from refimpl.claims.learning import TriggerChain
from refimpl.induction import Bigram, moments

I7, I7b, I7c = (claims.first_gradient_is_a_moment, claims.second_gradient_at_leading_order,
                claims.third_gradient_at_leading_order)


def chain(V, T, seed=0, outputs="random", encoding="relative"):
    case = types.SimpleNamespace(rng=np.random.default_rng(seed), control=False)
    return TriggerChain(case, outputs, V, T, encoding)


@pytest.fixture
def laws(rng):
    """pi_u, pi_b, pi_o, q, T."""
    bigram = Bigram.random(3, rng)
    return bigram.pi_u, bigram.pi_b, rng.dirichlet(np.ones(3)), 1, 5


def test_pair_moments_equal_enumeration(laws):
    *_, T = laws
    J = moments.pair_moments(*laws)
    sequences, probabilities = claims.sequence_distribution(*laws)
    counted = np.zeros_like(J)
    r, s = np.indices((T, T))
    for z, probability in zip(sequences, probabilities):
        counted[z[-1], r, s, z[r], z[s]] += probability
    np.testing.assert_allclose(J, counted, rtol=0, atol=1e-15)
    np.testing.assert_allclose(J.sum(axis=(0, 3, 4)), 1, rtol=1e-14)


def test_enumeration_follows_the_task(laws):
    """Frequencies in sampled text, of sequences that end with the trigger, label included."""
    from refimpl.induction import sample
    pi_u, pi_b, pi_o, q, _ = laws
    T, n = 3, 200_000
    tokens = sample(Bigram((0, 1, 2), pi_u, pi_b), n, T, np.random.default_rng(1), [q],
                    np.tile(pi_o, (3, 1))).tokens
    tokens = tokens[tokens[:, T - 1] == q]
    sequences, probabilities = claims.sequence_distribution(pi_u, pi_b, pi_o, q, T)
    frequency = [(tokens == z).all(axis=1).mean() for z in sequences]
    # Five standard deviations of a binomial frequency.
    assert (abs(frequency - probabilities) <= 5 * np.sqrt(probabilities / len(tokens))).all()


def test_label_has_its_posterior_law_not_its_prior(laws):
    """Given z_{T−1} = q, outputs that lead back to q are more probable than they were drawn."""
    posterior = moments.pair_moments(*laws)[:, 0, 0].sum(axis=(1, 2))
    assert abs(posterior - laws[2]).max() > 0.01
    sequences, probabilities = claims.sequence_distribution(*laws)
    np.testing.assert_allclose(np.bincount(sequences[:, -1], probabilities), posterior, rtol=1e-13)


def test_without_context_only_the_output_law_is_learned():
    one = chain(3, 1)
    A, B, WF, WF_mixed = moments.first_gradient(moments.pair_moments(*one.laws))
    expected = np.outer(one.laws[2] - 1 / 3, np.arange(3) == one.q)
    for table in (A, B, WF, WF_mixed):
        np.testing.assert_allclose(table, expected, atol=1e-16)


def test_uniform_outputs_without_context_teach_nothing(laws):
    pi_u, pi_b, _, q, _ = laws
    for table in moments.first_gradient(moments.pair_moments(pi_u, pi_b, np.full(3, 1 / 3), q, 1)):
        assert abs(table).max() <= 1e-16


def test_first_gradient_has_no_other_component():
    """WO and WF rebuilt from the four tables are the whole gradient; WK1 and WK2 have none."""
    c = chain(3, 4)
    A, B, WF, WF_mixed = moments.first_gradient(moments.pair_moments(*c.laws))
    down = c.descent(c.frame)
    E, U, image = c.frame.E, c.frame.U, c.frame.E @ c.frame.Phi.T
    np.testing.assert_allclose(down.WO, U.T @ (A @ E + B @ image) @ c.frame.WV.T, atol=1e-15)
    np.testing.assert_allclose(down.WF, U.T @ (WF @ E + WF_mixed @ image), atol=1e-15)
    assert abs(down.WK1).max() <= 1e-15 and abs(down.WK2).max() <= 1e-15


@pytest.mark.parametrize("path, power", [("keys", 3), ("values", 1)])
def test_wk1_learns_at_first_through_the_values_not_through_wk2(path, power):
    """A full step of WO alone moves WK1 at order η; without its part on WV Phi E, WK2 must help."""
    c, sizes = chain(3, 4), []
    down = c.descent(c.frame)
    values = c.frame.E @ c.frame.WV.T
    WO = down.WO @ values.T @ values if path == "keys" else down.WO
    for step in (0.05, 0.025):
        params = c.frame._replace(WO=step * WO)
        if path == "keys":
            assert abs(c.descent_of_WK1(params)).max() <= 1e-16
            params = params._replace(WK2=step * c.descent(params).WK2)
        sizes.append(np.linalg.norm(c.descent_of_WK1(params)))
    assert np.log2(sizes[0] / sizes[1]) == pytest.approx(power, abs=0.1)


def test_one_relative_memory_pools_what_absolute_positions_keep_apart():
    """Through the keys, at every step size: the sum over each diagonal is what the relative memory learns."""
    found = []
    for encoding in ("relative", "absolute"):
        c = chain(3, 4, encoding=encoding)
        values, images = c.frame.E @ c.frame.WV.T, c.frame.E @ c.frame.Phi.T
        WK2 = np.outer(c.frame.E[c.q], np.array([0.5, 1.0, -2.0]) @ images)
        params = c.frame._replace(WO=5 * c.descent(c.frame).WO @ values.T @ values, WK2=WK2)
        found.append(c.descent_of_WK1(params))
    relative, absolute = found
    assert relative.shape == (4,) and absolute.shape == (4, 4) and abs(np.triu(absolute, 1)).max() <= 1e-16
    np.testing.assert_allclose([np.trace(absolute, -delta) for delta in range(4)], relative,
                               atol=1e-14 * abs(relative).max())
    assert abs(absolute[1, 0] - relative[1]) > 0.1 * abs(relative[1])


def test_absolute_positions_learn_more_through_the_values_than_tokens_tell():
    """Control: WO learns the positions too; without that term the order of the remainder is 1."""
    c = chain(3, 4, encoding="absolute")
    J = moments.pair_moments(*c.laws)
    B = moments.first_gradient(J).WO_mixed
    rest = []
    for step in (0.01, 0.005):
        params = c.frame._replace(WO=step * c.descent(c.frame).WO)
        table = moments.third_gradient_by_values(J, B, "absolute")
        rest.append(np.linalg.norm(c.descent_of_WK1(params) - step * table))
    assert np.log2(rest[0] / rest[1]) == pytest.approx(2, abs=0.1)
    without = np.tril(moments.averaging(4) * (np.einsum("oj,ossij->s", B, J) -
                      moments.averaging(4) @ np.einsum("oj,ossij->s", B, J)[:, None])) / 4
    assert np.linalg.norm(table - without) > 0.05 * np.linalg.norm(table)


def test_shortest_chains_agree_at_leading_order():
    """T = 2, below the range of I7c: with two tokens and uniform outputs its remainder all but vanishes."""
    for seed, outputs in ((0, "random"), (1, "uniform")):
        c = chain(2, 2, seed, outputs)
        J, step = moments.pair_moments(*c.laws), 1e-3
        A, B = moments.first_gradient(J)[:2]
        params = c.frame._replace(WO=step * c.descent(c.frame).WO)
        np.testing.assert_allclose(c.descent_of_WK1(params) / step, moments.third_gradient_by_values(J, B),
                                   rtol=10 * step, atol=10 * step * abs(B).max())
        np.testing.assert_allclose(c.descent_of_WK2(params).WK2_mixed / step,
                                   moments.second_gradient(J, A, B).WK2_mixed,
                                   rtol=10 * step, atol=10 * step * abs(A).max())


def test_one_token_has_nothing_to_attend_to():
    J = moments.pair_moments(*chain(3, 1).laws)
    A, B = moments.first_gradient(J)[:2]
    for result in (*moments.second_gradient(J, A, B), moments.third_gradient_by_values(J, B),
                   moments.third_gradient_by_keys(J, A, np.ones(3))):
        assert (result == 0).all()


@pytest.mark.parametrize("change", [
    {"pi_u": np.ones(2) / 2}, {"pi_o": np.ones((3, 1))}, {"pi_b": np.ones((3, 2))}, {"q": 3}, {"q": -1},
    {"T": 0}, {"pi_u": [1.0, 0, 0], "T": 1}])
def test_pair_moments_refuse(change, laws):
    arguments = {**dict(zip(("pi_u", "pi_b", "pi_o", "q", "T"), laws)), **change}
    with pytest.raises(ValueError, match="expected|nothing to condition on"):
        moments.pair_moments(**arguments)
