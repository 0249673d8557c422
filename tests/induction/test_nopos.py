"""Claim I11: three layers without positions; how sharp the head is, and where it is blind."""

import numpy as np
import pytest

from refimpl.claims import induction as claims
from refimpl.induction import Bigram, nopos, theory

I11 = claims.previous_token_without_positions
ZERO = dict(b1=0.0, beta=0.0, gamma=0.0, b3=0.0, bo=0.0)


@pytest.fixture
def model(rng):
    """Params of a small constructed model with the marker 3, trigger 0, and its bigram."""
    bigram = Bigram.random(4, rng)
    return nopos.construct(nopos.orthonormal_frame(4, rng), bigram, [0], 3, 1, 2, 3, 4, 5), bigram


def marked(rng, T, V, repeats=True):
    """A random prompt that begins with the marker V−1."""
    z = rng.integers(0, V - 1, T)
    z[0] = V - 1
    if not repeats:
        for t in range(1, T):
            if z[t] == z[t - 1]:
                z[t] = (z[t] + 1) % (V - 1)
    return z


def loops(z, log_pi_b, Q, b1, beta, gamma, b3, bo):
    """Claim I11 once more, index by index."""
    T, c = len(z), np.exp(b1)
    A2, logits = np.zeros((T, T)), log_pi_b[z].copy()
    for t in range(T):
        weight = [np.exp(-gamma * (z[s] == z[t]) - beta * c / (c + s)) for s in range(t + 1)]
        A2[t, :t + 1] = weight / np.sum(weight)
        match = [sum(A2[s, r] for r in range(s + 1) if z[r] == z[t]) for s in range(t + 1)]
        weight = np.exp(b3 * (z[t] in Q) * np.array(match))
        for s in range(t + 1):
            logits[t, z[s]] += bo * weight[s] / weight.sum()
    return A2, logits


def test_theory_equals_loops(rng):
    z, table = marked(rng, 20, 5), np.log(Bigram.random(5, rng).pi_b)
    strengths = (1.5, 3.0, 2.0, 4.0, 6.0)
    result = theory.without_positions(z, table, [1, 2], *strengths)
    expected = loops(z, table, [1, 2], *strengths)
    np.testing.assert_allclose(result.attention2, expected[0], atol=1e-14)
    np.testing.assert_allclose(result.logits, expected[1], atol=1e-13)


@pytest.mark.parametrize("T", [64, 128, 256, 512, 1024])
@pytest.mark.parametrize("V", [3, 20])
def test_head_is_sharp_where_the_token_changes(T, V, rng):
    z = marked(rng, T, V)
    A2 = theory.without_positions(z, np.zeros((V, V)), [0], *theory.sharp_strengths(T), 0, 0).attention2
    changes = 1 + np.flatnonzero(z[1:] != z[:-1])       # t = 1, right after the marker, included
    weight = A2[changes, changes - 1]
    assert weight.min() >= 0.9998
    # The scores, of about β, are rounded.
    assert weight.min() >= theory.sharp_bounds(T)[0] - 1e-15 * theory.sharp_strengths(T)[1]


def test_bounds_by_hand():
    np.testing.assert_allclose(theory.sharp_bounds(2), (1 / (1 + 1 / 3 + 1 / 256), 1 / 5), rtol=1e-15)
    np.testing.assert_allclose(theory.sharp_strengths(4), np.array([1, 32, 16]) * np.log(4), rtol=1e-15)


@pytest.mark.parametrize("T", [64, 128])
def test_head_is_sharp_in_the_model(T, rng):
    V, bigram = 6, Bigram.random(6, rng)
    z, sharp = marked(rng, T, V, repeats=False), theory.sharp_strengths(T)
    params = nopos.construct(nopos.orthonormal_frame(V, rng), bigram, [0, 1], V - 1, *sharp, 5, 7)
    trace = nopos.forward(params, z)
    t = np.arange(1, T)
    assert trace.attention2[t, t - 1].min() >= 0.9998
    predicted = theory.without_positions(z, np.log(bigram.pi_b), [0, 1], *sharp, 5, 7)
    # A score is rounded to about 10 units in the last place of β, and attention moves with it.
    rounding = 10 * np.finfo(float).eps * sharp[1]
    assert rounding < 1e-10
    for expected, observed in zip(predicted, trace):
        assert abs(expected - observed).max() <= rounding * max(1, abs(expected).max())


@pytest.mark.parametrize("T", [64, 1024])
def test_immediate_repetition_is_the_blind_spot(T):
    """κ b a b a … a a: the last a does not see the a before it, but the b before that."""
    V = 3
    z = np.array([2] + [1, 0] * (T // 2 - 1) + [0])
    A2 = theory.without_positions(z, np.zeros((V, V)), [0], *theory.sharp_strengths(T), 0, 0).attention2
    assert z[-1] == z[-2] and A2[-1, -2] < 1e-12 and A2[-1, -3] > 0.9998
    # Far into a run of one token the head looks at the token itself.
    z = np.array([2] + [0] * (T - 1))
    A2 = theory.without_positions(z, np.zeros((V, V)), [0], *theory.sharp_strengths(T), 0, 0).attention2
    assert A2[-1, -1] > 0.99 and A2[-1, -2] < 0.01


@pytest.mark.parametrize("run", range(2, 12))
def test_how_far_a_run_lets_the_head_look_back(run):
    """κ b … b, then `run` times a: the last b is `run` back, seen if run < 2 (c + s)(c + t)/c²."""
    T, V = 256, 3
    for length in (run + 2, 40 + run, T):
        z = np.array([2] + [1] * (length - run - 1) + [0] * run)
        t, s, c = length - 1, length - 1 - run, T
        A2 = theory.without_positions(z, np.zeros((V, V)), [0], *theory.sharp_strengths(T), 0, 0).attention2
        reach = 2 * (c + s) * (c + t) / c ** 2
        assert 2 < reach < 8
        if abs(run - reach) > 0.3:      # at the boundary itself the two keys share the attention
            assert A2[t, s if run < reach else t] > 0.9


def test_an_output_equal_to_its_trigger_is_not_found_in_context_at_once():
    """After q u the head finds u; after the first q q it does not find q; with positions, I3 does."""
    V, q, u = 5, 0, 1
    strengths, table = (*theory.sharp_strengths(64), 60.0, 1.0), np.zeros((V, V))
    filler = [4] + [2, 3] * 25
    found = theory.without_positions(np.array(filler + [q, u, 2, q]), table, [q], *strengths)
    missed = theory.without_positions(np.array(filler + [q, q]), table, [q], *strengths)
    assert found.logits[-1, u] > 0.99 and missed.logits[-1, q] < 0.1
    assert theory.logits(np.array(filler + [q, q]), table, [q], 60.0, 60.0, 1.0)[-1, q] > 0.99


def test_a_second_marker_stops_the_clock(rng):
    V, T, bigram = 5, 32, Bigram.random(5, rng)
    z, sharp = marked(rng, T, V, repeats=False), theory.sharp_strengths(32)
    params = nopos.construct(nopos.orthonormal_frame(V, rng), bigram, [0], V - 1, *sharp, 5, 7)
    z[T // 2] = V - 1
    with pytest.raises(ValueError, match="marker"):
        theory.without_positions(z, np.log(bigram.pi_b), [0], *sharp, 5, 7)
    assert nopos.forward(params, z).attention2[T // 2 + 1, T // 2] < 0.5


def test_gaussian_embeddings_break_the_closed_form(rng):
    V, bigram, z = 6, Bigram.random(6, rng), marked(rng, 20, 6)
    frame = nopos.orthonormal_frame(V, rng)
    frame = frame._replace(E=rng.normal(0, frame.E.shape[1] ** -0.5, frame.E.shape))
    params = nopos.construct(frame, bigram, [0], V - 1, 1, 2, 3, 4, 5)
    predicted = theory.without_positions(z, np.log(bigram.pi_b), [0], 1, 2, 3, 4, 5)
    assert abs(predicted.logits - nopos.forward(params, z).logits).max() > 0.01


def test_frame_is_orthonormal(rng):
    frame = nopos.orthonormal_frame(4, rng)
    E, Phi1, Phi2 = frame.E, frame.Phi1, frame.Phi2
    rows = np.vstack([E, E @ Phi1.T, E @ Phi2.T, E @ Phi1.T @ Phi2.T, frame.U])
    assert rows.shape == (20, 20)
    np.testing.assert_allclose(rows @ rows.T, np.eye(20), atol=1e-14)
    np.testing.assert_allclose(frame.WV @ frame.WV.T, np.eye(20), atol=1e-14)
    assert not any(W.any() for W in frame[5:])
    for dead in (frame.U @ Phi1.T, E @ Phi1.T @ Phi1.T, frame.U @ Phi2.T, E @ Phi2.T @ Phi2.T):
        np.testing.assert_allclose(dead, 0, atol=1e-14)


def test_construct_writes_the_memories_it_names(rng):
    """Every matrix of the docstring as a sum of outer products, in an arbitrary frame."""
    V, d, kappa, Q = 4, 7, 2, [3, 1]
    frame = nopos.Params(*(rng.normal(0, 1, (V if name in "EU" else d, d)) for name in nopos.Params._fields))
    bigram, (E, U, Phi1, Phi2, WV, *_) = Bigram.random(V, rng), frame
    built = nopos.construct(frame, bigram, Q, kappa, 1.5, 2.5, 3.5, 4.5, 5.5)
    every = sum(E[v] for v in range(V))
    expected = dict(
        WK1=1.5 * np.outer(every, E[kappa]),
        WK2=-3.5 * sum(np.outer(E[v], E[v]) for v in range(V)) - 2.5 * np.outer(every, Phi1 @ E[kappa]),
        WK3=4.5 * sum(np.outer(E[q], Phi2 @ E[q]) for q in Q),
        WO=5.5 * sum(np.outer(U[v], WV @ E[v]) for v in range(V)),
        WF=sum(np.log(bigram.pi_b[v, u]) * np.outer(U[u], E[v]) for v in range(V) for u in range(V)))
    for name, matrix in expected.items():
        np.testing.assert_allclose(getattr(built, name), matrix, rtol=0, atol=1e-12 * np.abs(matrix).max())
    for name in ("E", "U", "Phi1", "Phi2", "WV"):
        np.testing.assert_array_equal(getattr(built, name), getattr(frame, name))


def test_attention_ignores_future_tokens(model):
    params, _ = model
    one, two = nopos.forward(params, [3, 0, 1, 2]), nopos.forward(params, [3, 0, 1, 0])
    np.testing.assert_array_equal(one.logits[:3], two.logits[:3])
    assert not np.array_equal(one.logits[3], two.logits[3])
    for attention in one[:3]:
        np.testing.assert_allclose(attention.sum(axis=1), 1, rtol=1e-15)
        assert (np.triu(attention, 1) == 0).all()


@pytest.mark.parametrize("change, name", [
    (dict(frame=None), "params"), (dict(triggers=[4]), "triggers"), (dict(kappa=4), "kappa"),
    (dict(kappa=-1), "kappa"), (dict(beta=-1.0), "beta"), (dict(gamma=np.inf), "gamma"),
    (dict(b1=np.nan), "b1"), (dict(b3="1"), "b3"), (dict(bo=-1.0), "bo"), (dict(bigram="flat"), "pi_b")])
def test_bad_arguments_of_construct_are_named(change, name, model, rng):
    if "bigram" in change:
        change = dict(bigram=model[1]._replace(pi_b=np.eye(4)))
    arguments = {**dict(frame=nopos.orthonormal_frame(4, rng), bigram=model[1], triggers=[0], kappa=3),
                 **ZERO, **change}
    with pytest.raises(ValueError, match=f"^{name}:"):
        nopos.construct(**arguments)


@pytest.mark.parametrize("field, bad", [
    ("E", np.zeros((1, 20))), ("U", np.zeros((5, 20))), ("Phi2", np.zeros((20, 19))),
    ("WK3", np.full((20, 20), np.nan)), ("WF", np.zeros((20, 20), np.float32))])
def test_bad_fields_of_params_are_named(field, bad, model):
    with pytest.raises(ValueError, match=f"^{field}:"):
        nopos.forward(model[0]._replace(**{field: bad}), [3, 0])


@pytest.mark.parametrize("tokens", [[], [[3]], [4], [-1], [0.0]])
def test_bad_tokens_are_named(tokens, model):
    with pytest.raises(ValueError, match="^tokens:"):
        nopos.forward(model[0], tokens)
    with pytest.raises(ValueError, match="^tokens:"):
        theory.without_positions(tokens, np.zeros((4, 4)), [0], **ZERO)


@pytest.mark.parametrize("name", ZERO)
def test_strengths_must_be_finite(name):
    with pytest.raises(ValueError, match=f"^{name}:"):
        theory.without_positions([3, 0], np.zeros((4, 4)), [0], **{**ZERO, name: np.inf})


def test_bad_sizes_are_named(rng):
    with pytest.raises(ValueError, match="^V:"):
        nopos.orthonormal_frame(1, rng)
    with pytest.raises(ValueError, match="^T:"):
        theory.sharp_strengths(1)


@pytest.mark.parametrize("b1, beta, gamma", [(1, 0.5, 0.5), (1, 1, 0.25), (0.5, 1, 1)])
def test_sharpness_needs_these_strengths(b1, beta, gamma, rng):
    """Controls: with half of one strength, or a quarter, attention is not sharp any more."""
    T, z = 64, marked(rng, 64, 3)
    strengths = np.array([b1, beta, gamma]) * theory.sharp_strengths(T)
    A2 = theory.without_positions(z, np.zeros((3, 3)), [0], *strengths, 0, 0).attention2
    changes = 1 + np.flatnonzero(z[1:] != z[:-1])
    assert A2[changes, changes - 1].min() < 0.9998
