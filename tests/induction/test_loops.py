"""The ledger, the model without positions and the probes against loops over positions and tokens.

The loops read the formulas of the docstrings from left to right, on general weights, and share no code with
what they judge.
"""

import math
from itertools import combinations

import numpy as np
import pytest

from refimpl import induction
from refimpl.induction import ledger, nopos, probes, theory

V, d, L, T = 4, 5, 9, 7
CLOSE = dict(rtol=0, atol=1e-11)        # rounding of some hundred operations on numbers of order 1 to 100


def random_params(seed, kind=induction.Params):
    """Params with all fields random, none symmetric or orthogonal."""
    rng = np.random.default_rng(seed)
    rows = {"E": V, "U": V, "pos": L}
    return kind(*(rng.normal(0, 0.6, (rows.get(name, d), d)) for name in kind._fields))


def random_tokens(seed):
    return np.random.default_rng(seed).integers(0, V, T)


def dot(x, W, y):
    """x · W y, entry by entry."""
    return sum(x[i] * W[i, j] * y[j] for i in range(len(x)) for j in range(len(y)))


def times(W, x):
    """W x, entry by entry."""
    return np.array([sum(W[i, j] * x[j] for j in range(len(x))) for i in range(len(W))])


def attention_of(score):
    """(T, T) softmax over s ≤ t of score(t, s), one query at a time."""
    A = np.zeros((T, T))
    for t in range(T):
        weights = [math.exp(score(t, s)) for s in range(t + 1)]
        A[t, :t + 1] = np.array(weights) / math.fsum(weights)
    return A


def ledger_loops(p, z):
    """The eight parts of the logits and the four of the scores, from the definitions of c, h and g."""
    P = np.array([times(p.Phi, e) for e in p.E])
    M = p.WO @ p.WV
    A1 = attention_of(lambda t, s: dot(p.E[z[t]], p.WK1, p.E[z[s]] + p.pos[t - s]))
    c = np.array([[sum(A1[t, s] for s in range(t + 1) if z[s] == v) for v in range(V)] for t in range(T)])
    x1 = np.array([p.E[z[t]] + sum(c[t, v] * P[v] for v in range(V)) for t in range(T)])
    A2 = attention_of(lambda t, s: dot(x1[t], p.WK2, x1[s]))
    h = np.array([[sum(A2[t, s] for s in range(t + 1) if z[s] == v) for v in range(V)] for t in range(T)])
    g = np.array([[sum(A2[t, s] * c[s, v] for s in range(t + 1)) for v in range(V)] for t in range(T)])
    own = np.eye(V)[z]
    logits = {}
    for name, share, vectors in (("direct on E", own, p.E), ("direct on P", c, P),
                                 ("WO on E", h, [times(M, e) for e in p.E]),
                                 ("WO on P", g, [times(M, x) for x in P])):
        for label, matrix in ((name, np.eye(d)), (name.replace("direct", "WF").replace("WO", "WF WO"), p.WF)):
            logits[label] = [[sum(share[t, v] * dot(p.U[u], matrix, vectors[v]) for v in range(V))
                              for u in range(V)] for t in range(T)]
    scores = {name: np.zeros((T, T)) for name in ("EE", "EP", "PE", "PP")}
    for t in range(T):
        for s in range(t + 1):
            scores["EE"][t, s] = dot(p.E[z[t]], p.WK2, p.E[z[s]])
            scores["EP"][t, s] = sum(c[s, v] * dot(p.E[z[t]], p.WK2, P[v]) for v in range(V))
            scores["PE"][t, s] = sum(c[t, v] * dot(P[v], p.WK2, p.E[z[s]]) for v in range(V))
            scores["PP"][t, s] = sum(c[t, v] * c[s, u] * dot(P[v], p.WK2, P[u])
                                     for v in range(V) for u in range(V))
    return logits, scores


EIGHT = ["direct on E", "WF on E", "direct on P", "WF on P",
         "WO on E", "WF WO on E", "WO on P", "WF WO on P"]


@pytest.mark.parametrize("seed", range(3))
def test_each_part_of_the_ledger_is_its_own_sum(seed):
    params, z = random_params(seed), random_tokens(seed)
    logits, scores = ledger_loops(params, z)
    observed, blocks = ledger.logits(params, z), ledger.scores(params, z)
    assert list(observed) == EIGHT and list(blocks) == ["EE", "EP", "PE", "PP"]
    for expected, found in ((logits, observed), (scores, blocks)):
        for name in expected:
            assert found[name].dtype == np.float64
            np.testing.assert_allclose(found[name], expected[name], **CLOSE, err_msg=name)
    # Control: no two parts are alike, so that names cannot be exchanged.
    for parts in (logits, scores):
        for a, b in combinations(parts, 2):
            assert np.abs(np.subtract(parts[a], parts[b])).max() > 0.01


def test_ledger_reads_one_position_and_one_token_alone():
    params = random_params(3)
    parts, blocks = ledger.logits(params, [2]), ledger.scores(params, [2])
    P = params.Phi @ params.E[2]
    np.testing.assert_allclose(parts["direct on P"], [params.U @ P], **CLOSE)
    np.testing.assert_allclose(parts["WF WO on P"],
                               [params.U @ params.WF @ params.WO @ params.WV @ P], **CLOSE)
    np.testing.assert_allclose(blocks["PE"], [[P @ params.WK2 @ params.E[2]]], **CLOSE)


@pytest.mark.parametrize("seed", range(3))
def test_three_layers_follow_their_equations_on_general_weights(seed):
    p, z = random_params(seed, nopos.Params), random_tokens(seed)
    x, attentions = p.E[z], []
    for WK, mix in ((p.WK1, p.Phi1), (p.WK2, p.Phi2), (p.WK3, p.WO @ p.WV)):
        A = attention_of(lambda t, s: dot(x[t], WK, x[s]))
        x = np.array([x[t] + sum(A[t, s] * times(mix, x[s]) for s in range(t + 1)) for t in range(T)])
        attentions.append(A)
    logits = [[p.U[u] @ x[t] + dot(p.U[u], p.WF, x[t]) for u in range(V)] for t in range(T)]
    for expected, observed in zip((*attentions, logits), nopos.forward(p, z), strict=True):
        np.testing.assert_allclose(observed, expected, **CLOSE)


def reading(rows):
    """argmax, margin and strength of (scores, right) rows, entry by entry."""
    wins, margins, strengths = [], [], []
    for scores, right in rows:
        others = [score for i, score in enumerate(scores) if i != right]
        wins.append(scores[right] > max(others))
        margins.append(scores[right] - max(others))
        strengths.append(scores[right] - math.fsum(others) / len(others))
    return [math.fsum(column) / len(column) for column in (wins, margins, strengths)]


@pytest.mark.parametrize("seed, L0", [(0, None), (1, 2), (2, 5), (3, L)])
def test_probes_read_general_weights_row_by_row(seed, L0):
    p, n = random_params(seed), L0 or L
    bigram = induction.Bigram.random(V, np.random.default_rng(seed))
    P = [times(p.Phi, e) for e in p.E]
    relative = [([dot(p.E[v], p.WK1, p.pos[k]) for k in range(n)], 1) for v in range(V)]
    absolute = [([dot(p.pos[t], p.WK1, p.pos[s]) for s in range(t + 1)], t - 1) for t in range(1, n)]
    match = [([dot(p.E[q], p.WK2, P[v]) for v in range(V)], q) for q in (3, 1)]
    copy = [([dot(p.U[u], p.WO, times(p.WV, p.E[v])) for u in range(V)], v) for v in range(V)]
    follow = [([dot(p.U[u], p.WF, p.E[v]) for u in range(V)], int(np.argmax(bigram.pi_b[v])))
              for v in range(V)]
    found = {"relative": probes.WK1(p, "relative", L0), "absolute": probes.WK1(p, "absolute", L0),
             "match": probes.WK2(p, [3, 1]), "copy": probes.WO(p), "follow": probes.WF(p, bigram)}
    rows = dict(relative=relative, absolute=absolute, match=match, copy=copy, follow=follow)
    for name in rows:
        np.testing.assert_allclose(found[name], reading(rows[name]), **CLOSE, err_msg=name)
    for encoding in ("relative", "absolute"):
        np.testing.assert_allclose(probes.effective_strengths(p, [3, 1], encoding, L0),
                                   [reading(rows[name])[2] for name in (encoding, "match", "copy")], **CLOSE)


@pytest.mark.parametrize("encoding", ["relative", "absolute"])
def test_general_WV_copies_through_its_gram_matrix(encoding, rng):
    """I3 needs WV E[u]·WV E[v] = 1[u = v] and WV E[u]·WV P[v] = 0; without them Gram matrices stay.

    For every WV:  WO on E = bo Σ_v h_t[v] WV E[v]·WV E[u],  WO on P = bo Σ_v g_t[v] WV P[v]·WV E[u], and
    WF adds nothing to either, as WF U[u] = 0. The attention does not know WV.
    """
    size, bo = 5, 7.0
    frame, bigram = induction.orthonormal_frame(size, L, rng, encoding), induction.Bigram.random(size, rng)
    z = rng.integers(0, size, L)

    def model(WV):
        params = induction.construct(frame._replace(WV=WV), bigram, [0, 2], 3.0, 4.0, bo, encoding)
        return params, induction.forward(params, z, encoding).logits

    def closed(strength):
        return theory.logits(z, np.log(bigram.pi_b), [0, 2], 3.0, 4.0, strength, encoding)

    np.testing.assert_allclose(model(frame.WV)[1], closed(bo), **CLOSE)
    np.testing.assert_allclose(model(1.5 * frame.WV)[1], closed(bo * 1.5 ** 2), **CLOSE)
    WV = rng.normal(0, frame.WV.shape[0] ** -0.5, frame.WV.shape)
    params, logits = model(WV)
    assert np.abs(logits - closed(bo)).max() > 0.1      # the control: I3 needs more of WV
    if encoding == "absolute":
        return      # the ledger is for relative positions
    _, h, g = induction.tables.histories(params, z)
    images, P = frame.E @ WV.T, frame.E @ frame.Phi.T
    parts = ledger.logits(params, z)
    np.testing.assert_allclose(parts["WO on E"], bo * h @ (images @ images.T), **CLOSE)
    np.testing.assert_allclose(parts["WO on P"], bo * g @ (P @ WV.T @ images.T), **CLOSE)
    for name in ledger.COMPOSITE:
        np.testing.assert_allclose(parts[name], 0, **CLOSE)
    right = bo * h @ (images @ images.T) + bo * g @ (P @ WV.T @ images.T) + np.log(bigram.pi_b)[z]
    np.testing.assert_allclose(logits, right, **CLOSE)
    np.testing.assert_allclose(induction.tables.logits(params, z), right, **CLOSE)
