"""Weights written by hand: an MLP that stores every fact twice, once to infer and once to recall.

Letters as in model.py; e_s, e_a, e_r are the one-hot tokens of a subject, an answer and a relation.
"""

import numpy as np

from refimpl import check
from refimpl.recall.model import ACTIVATIONS, Params
from refimpl.recall.task import Facts


def construct(facts, n, lam, activation="square", bias=None):
    """Write a table of facts into the MLP; one-hot tokens and positions, uniform attention; float64.

    For every fact a = g(s, r), two hidden units:

        key e_s + e_a, value lam e_r        (infers the relation)
        key e_s + e_r, value lam e_a        (recalls the answer)

    Parameters
    ----------
    facts : Facts, Latin or not
    n : int ≥ 1, pairs in the prompt: 2n+2 positions
    lam : float > 0, strength
    activation : "square" or "relu"
    bias : float ≥ 0, relu only: b1 = −bias. By default 3/(4(n+1)). This lies between one and two uniform
        weights of either prompt, 1/(2n+1) < 3/(4(n+1)) < 2/(2n+2). So under uniform attention a unit is 0
        if half of its key is in the prompt, and positive if all of its key is.

    Returns
    -------
    Params with d = 2N+R, dp = 2n+2, m = 2NR and WKQ = 0. Raises ValueError on bad input, and if they
    do not fit into memory (`implicit` computes the same without storing them).

    Source: the memory of HNLG26; provenance: formalised.
    """
    check.instance("facts", facts, Facts, "recall.Facts")
    n = check.integer("n", n, 1)
    check.choice("activation", activation, tuple(ACTIVATIONS))
    if check.real("lam", lam, low=0) == 0:
        raise ValueError("lam: expected a number > 0, got 0")
    if bias is None:
        bias = 3 / (4 * (n + 1)) if activation == "relu" else 0
    bias = check.real("bias", bias, low=0)
    if activation == "square" and bias != 0:
        raise ValueError(f"bias: expected None or 0 with the square, got {bias}")
    N, R = facts.N, facts.R
    d, dp, count = 2 * N + R, 2 * n + 2, N * R
    check.memory("facts", 8 * (4 * count * d + 2 * d ** 2 + (d + dp) ** 2))
    fact = np.arange(count)
    s, r = np.divmod(fact, R)
    a = facts.answer(s, r)
    # Tokens of the fact: subject s, answer N + a, relation 2N + r.
    W1, W2 = np.zeros((2 * count, d)), np.zeros((d, 2 * count))
    W1[fact, s] = W1[fact, N + a] = 1
    W2[2 * N + r, fact] = lam
    W1[count + fact, s] = W1[count + fact, 2 * N + r] = 1
    W2[N + a, count + fact] = lam
    return Params(np.eye(d), np.eye(d), np.eye(dp), np.zeros((d + dp, d + dp)), W1,
                  np.full(2 * count, -bias), W2)
