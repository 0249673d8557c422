"""The fast path: the model with relative positions on V×V tables, at a cost per token without d.

With the one-hot histories c_t[v] = Σ_s A1_ts 1[z_s = v] the first layer is x1_t = E[z_t] + Pᵀ c_t,
P = E Phiᵀ. Whatever the weights, all that the model adds up are then entries of ten tables:

    S1_ts    = G1[z_t, z_s] + B1[z_t, t−s]
    S2_ts    = EE[z_t, z_s] + EP[z_t]·c_s + (c_t·PE)[z_s] + c_t·PP c_s
    logits_t = T0[z_t] + T1ᵀ c_t + T2ᵀ h_t + T3ᵀ g_t,  h_t[v] = Σ_s A2_ts 1[z_s = v],  g_t = Σ_s A2_ts c_s

`loss_and_grads` makes the tables, runs forward and backward on them (kernels.py), and pulls
their gradients back to the nine fields by matrix products. Claim I8 holds it against model.py, its
oracle, which takes 16 to 25 times as long with a loss on trigger positions alone, 10 to 15 times with a
loss on all (d = 128; T = 64 and 256).

What it costs. A sequence of T tokens, n of them different, with R positions in the loss, each of
which looks back on T/2 keys on average, takes, forward and backward together:

    layer 1    T² additions: exp(S1_ts) is a product of two entries of exponentiated tables, and
               only the gradient of B1 needs the pairs
    layer 2    6 · R · T/2 · n multiply-adds for S2, g and their gradients, R · T/2 exponentials
    queries    6 · R · n² multiply-adds, the scores' queries formed once per row
    logits     9 · R · n · V multiply-adds

and making and pulling back the tables 21 V d² multiply-adds for a batch. Rows that no loss asks for
are skipped, keys after the last row too, and n, not V, is the size of the tables that a sequence
sees: text of 256 characters uses some 34 of its 65. The products of layer 2 go to BLAS in tiles of KEYS
keys and the rows that see the first of them, 1.2 to 1.25 times the half that causality leaves at T = 256;
but a tile has columns only for the tokens known by its last key, which takes a fifth away again.
`scripts/bench.py` prints how far all this is from the machine's limit.

The batch is cut into CHUNKS parts, whatever the number of threads; each adds up its sequences in
order, and the parts are added in order: the same bits with 1 thread and with many. The parts run in
Python threads, on kernels that release the interpreter, and so do the two halves of the tables; with one
thread all runs in the caller's.
"""

from typing import NamedTuple

import numpy as np

from refimpl import check
from refimpl.induction.model import Params, check_batch, check_length, check_params
from refimpl.induction.tables.kernels import (
    factors, first_rows, layer1_forward, layer2_forward, position_rows, run_chunk)
from refimpl.induction.tables.threads import one_blas_thread, spread

CHUNKS = 8
ROWS, KEYS = 128, 64    # larger tiles hold more that is above the diagonal, and at smaller BLAS is slow
class Tables(NamedTuple):
    """All that the model is made of, or the gradient by it, with P = E Phiᵀ."""

    G1: np.ndarray      # (V, V) E WK1 Eᵀ
    B1: np.ndarray      # (V, L) E WK1 posᵀ, the last column for δ = 0: a row's end runs with its keys
    K2: np.ndarray      # (2V, 2V) [EE EP; PE PP] = [E; P] WK2 [E; P]ᵀ
    T: np.ndarray       # (4V, V) [T0; T1; T2; T3] = [X Yᵀ; X (Y M)ᵀ], X = [E; P], Y = U (I + WF), M = WO WV


# tables: with X = [E; P] (2V, d) and Y = U (I + WF),
#
#     G1 = E WK1 Eᵀ,  B1 = E WK1 posᵀ,  K2 = X WK2 Xᵀ,  T = [X Yᵀ; X (Y M)ᵀ]
#
# For a product M = A W Bᵀ the cotangents are dA = dM B Wᵀ, dW = Aᵀ dM B, dB = dMᵀ A W. The tables of
# the scores and that of the logits meet in X alone: two jobs, which `spread` deals out.

def reverse(B):
    """B (V, L), its columns in reverse."""
    return np.ascontiguousarray(B[:, ::-1])


def scores_forward(params, X):
    E, pos, WK1, WK2 = params.E, params.pos, params.WK1, params.WK2
    EW1, XW2 = E @ WK1, X @ WK2                                             # 1
    return (EW1 @ E.T, reverse(EW1 @ pos.T), XW2 @ X.T), (EW1, XW2)         # 2


def scores_backward(params, X, images, dtables):
    """-> dX (2V, d), and the gradients of the fields that nothing else uses."""
    E, pos, WK1, WK2 = params.E, params.pos, params.WK1, params.WK2
    (EW1, XW2), (dG1, dB1, dK2, _) = images, dtables
    dB1 = reverse(dB1)                                                      # 2
    dXW2, dEW1 = dK2 @ X, dG1 @ E + dB1 @ pos
    dX = dK2.T @ XW2 + dXW2 @ WK2.T                                         # 1
    dX[:len(E)] += dG1.T @ EW1 + dEW1 @ WK1.T
    return dX, dict(pos=dB1.T @ EW1, WK1=E.T @ dEW1, WK2=X.T @ dXW2)


def logits_forward(params, X):
    Y = params.U + params.U @ params.WF                                     # 1
    YO = Y @ params.WO
    YM = YO @ params.WV                                                     # 2
    return (np.concatenate([X @ Y.T, X @ YM.T]),), (Y, YO, YM)              # 3


def logits_backward(params, X, images, dtables):
    """-> dX (2V, d), and the gradients of the fields that nothing else uses."""
    (Y, YO, YM), (dT, dTM) = images, np.split(dtables[-1], 2)
    dX, dYM = dT @ Y + dTM @ YM, dTM.T @ X                                  # 3
    dYO = dYM @ params.WV.T                                                 # 2
    dY = dT.T @ X + dYO @ params.WO.T
    return dX, dict(WO=Y.T @ dYO, WV=YO.T @ dYM, U=dY + dY @ params.WF.T, WF=params.U.T @ dY)    # 1


def tables_forward(params, run=map):
    """Params -> Tables, and what `tables_backward` asks for."""
    X = np.concatenate([params.E, params.E @ params.Phi.T])
    made = run(lambda forward: forward(params, X), (scores_forward, logits_forward))
    (scores, images1), (logits, images2) = made
    return Tables(*scores, *logits), (X, images1, images2)


def tables_backward(params, images, dtables):
    """Tables of gradients -> Params of gradients."""
    X, *images = images
    (dX1, grads1), (dX2, grads2) = spread(lambda backward, images: backward(params, X, images, dtables),
                                          (scores_backward, logits_backward), images)
    dE, dP = np.split(dX1 + dX2, 2)
    return Params(E=dE + dP @ params.Phi, Phi=dP.T @ params.E, **grads1, **grads2)


def loss_and_grads(params, tokens, mask, encoding="relative"):
    """Loss and the gradients of all nine fields: `model.loss_and_grads`, faster.

    Parameters, returns and errors are the same, but for `encoding`: tables know relative positions
    only. It runs on `numba.get_num_threads()` threads.
    """
    check_relative(encoding)
    params, z, mask = check_batch(params, tokens, mask, encoding)
    dtype = check.real_dtype("params", params.E.dtype)
    count = mask.sum(dtype=dtype)
    parts = np.array_split(np.arange(len(z)), min(CHUNKS, len(z)))
    with one_blas_thread():
        tables, images = tables_forward(params, spread)
        exponentiated = factors(tables.G1, tables.B1)
        (total, dtables), *results = spread(
            lambda part: run_chunk(tables, exponentiated, z[part], mask[part], 1 / count, ROWS, KEYS), parts)
        for loss, more in results:
            total += loss
            for table, other in zip(dtables, more):
                table += other
        return dtype.type(total / count), tables_backward(params, images, Tables(*dtables))


def histories(params, tokens):
    """The histories c, h, g (T, V) of one sequence, from the tables; tokens (T,) as for `forward`."""
    params = check_params(params)
    check.real_dtype("params", params.E.dtype)
    z = check.integers("tokens", tokens, 0, len(params.E), ndim=1)
    check_length(len(z), params)
    z = z.astype(np.uint32)
    tables, v = tables_forward(params)[0], np.arange(len(params.E), dtype=np.uint32)
    content, position, factored = factors(tables.G1, tables.B1)
    flat, start = position_rows(z, v, tables.G1, tables.B1, position, factored)
    c, _ = layer1_forward(z, v, content, factored, flat, start)
    t = np.arange(len(z))
    *_, x = layer2_forward(z, np.full(len(z), len(v)), t, first_rows(t), c, tables.K2, KEYS)
    return np.split(x.T, 3, axis=1)


def logits(params, tokens):
    """Logits (T, V) of one sequence, as in `forward(params, tokens).logits` (claim I8; exact; derived).

    Statement. For any weights and embeddings, relative positions, P = E Phiᵀ and M = WO WV,

        logits_t = T0[z_t] + T1ᵀ c_t + T2ᵀ h_t + T3ᵀ g_t,
        T0 = (U (I+WF) Eᵀ)ᵀ,  T1 = (U (I+WF) Pᵀ)ᵀ,  T2 = (U (I+WF) M Eᵀ)ᵀ,  T3 = (U (I+WF) M Pᵀ)ᵀ.

    Derivation. x0_t = E[z_t], so S1_ts = E[z_t]·WK1 (E[z_s] + pos[t−s]) = G1[z_t, z_s] + B1[z_t, t−s].
    Sums over s are sums over tokens: Σ_s A1_ts x0_s = Eᵀ c_t with c_t[v] = Σ_s A1_ts 1[z_s = v], so
    x1_t = E[z_t] + Pᵀ c_t. S2_ts = x1_t·WK2 x1_s is bilinear: EE[z_t, z_s] + EP[z_t]·c_s +
    (c_t·PE)[z_s] + c_t·PP c_s, with EE = E WK2 Eᵀ, EP = E WK2 Pᵀ, PE = P WK2 Eᵀ, PP = P WK2 Pᵀ.
    Σ_s A2_ts x1_s = Eᵀ h_t + Pᵀ g_t with h_t[v] = Σ_s A2_ts 1[z_s = v] and g_t = Σ_s A2_ts c_s, hence
    x2_t = E[z_t] + Pᵀ c_t + M (Eᵀ h_t + Pᵀ g_t), and U (I+WF) of that is the statement.

    tokens (T,) integers in 0..V−1, 1 ≤ T ≤ L; params float64 or float32. Raises ValueError as `forward`.
    """
    c, h, g = histories(params, tokens)
    T0, T1, T2, T3 = np.split(tables_forward(check_params(params))[0].T, 4)
    return T0[np.asarray(tokens)] + c @ T1 + h @ T2 + g @ T3


def check_relative(encoding):
    """Raise ValueError unless positions are relative."""
    if not isinstance(encoding, str) or encoding != "relative":
        raise ValueError(f'encoding: expected "relative" (the tables know no other; '
                         f"use induction.loss_and_grads), got {encoding!r}")
