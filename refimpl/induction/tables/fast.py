"""The fast path: the model with relative positions on V×V tables, at a cost per token without d.

With the one-hot histories c_t[v] = Σ_s A1_ts 1[z_s = v] the first layer is x1_t = E[z_t] + Pᵀ c_t,
P = E Phiᵀ. Whatever the weights, all that the model adds up are then entries of ten tables:

    S1_ts    = G1[z_t, z_s] + B1[z_t, t−s]
    S2_ts    = EE[z_t, z_s] + EP[z_t]·c_s + (c_t·PE)[z_s] + c_t·PP c_s
    logits_t = T0[z_t] + T1ᵀ c_t + T2ᵀ h_t + T3ᵀ g_t,  h_t[v] = Σ_s A2_ts 1[z_s = v],  g_t = Σ_s A2_ts c_s

plain.py says just that, in NumPy. `loss_and_grads` makes the tables, runs forward and backward
on them (kernels.py), and pulls their gradients back to the nine fields. Claim I8 holds both against model.py.

A sequence of T tokens, n of them different, R in the loss, takes, forward and backward together, T² additions
in layer 1; 3 R T n multiply-adds and R T/2 exponentials in layer 2, 6 R n² for its queries; 9 R n V for the
logits. Making and pulling back the tables takes 21 V d² + 30 V² d for a batch. Positions after the last one
in the loss are skipped. `scripts/bench.py` prints how far all this is from the machine's limit.

What each complication buys, as a factor of speed: text, V = 65, d = 128, 64 sequences, CPU time of a thread:

    T, positions in the loss                            256, 28 %   256, all    64, all
    tables of the n tokens of a sequence                   1.6         1.6        2.1
    an exponential of our own in place of np.exp           1.3         1.3        1.3
    exp(S1_ts) as a product of two factors                 1.2         1.1        1.0
    layer 2 in blocks of ROWS queries                      1.1         1.5        1.0
    no transposed second factor in a product of BLAS       1.07        1.04       1.09
    unsigned indices                                       1.05        1.02       1.05

The last two take no lines. CPU time does not show: one thread for OpenBLAS, indispensable beside our threads;
and the tables made in two jobs, so that two threads share what d costs.

The batch is cut into CHUNKS parts, whatever the number of threads. Each adds up its sequences in order, and
the parts are added in order: the same bits with 1 thread and with many.
"""

import numpy as np

from refimpl import check
from refimpl.induction import model
from refimpl.induction.tables.kernels import Tables, run_chunk
from refimpl.induction.tables.threads import one_blas_thread, spread

CHUNKS = 8


# For a product M = A W Bᵀ the derivatives are dA = dM B Wᵀ, dW = Aᵀ dM B, dB = dMᵀ A W. The tables of the
# scores and that of the logits meet in X = [E; P] (2V, d) alone: two jobs, which `spread` deals out.

def scores_forward(params, X):
    E, pos, WK1, WK2 = params.E, params.pos, params.WK1, params.WK2
    EW1, XW2 = E @ WK1, X @ WK2                                             # 1
    return (EW1 @ E.T, EW1 @ pos[::-1].T, XW2 @ X.T), (EW1, XW2)            # 2


def scores_backward(params, X, images, dtables):
    """-> dX (2V, d), and the gradients of the fields that nothing else uses."""
    E, pos, WK1, WK2 = params.E, params.pos, params.WK1, params.WK2
    (EW1, XW2), (dG1, dB1, dK2, _) = images, dtables
    dXW2, dEW1 = dK2 @ X, dG1 @ E + dB1 @ pos[::-1]                         # 2
    dX = dK2.T @ XW2 + dXW2 @ WK2.T                                         # 1
    dX[:len(E)] += dG1.T @ EW1 + dEW1 @ WK1.T
    return dX, dict(pos=(dB1.T @ EW1)[::-1], WK1=E.T @ dEW1, WK2=X.T @ dXW2)


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
    return model.Params(E=dE + dP @ params.Phi, Phi=dP.T @ params.E, **grads1, **grads2)


def loss_and_grads(params, tokens, mask, encoding="relative"):
    """Loss and the gradients of all nine fields: `model.loss_and_grads`, faster.

    Parameters, returns and errors are the same, but for `encoding`: tables know relative positions
    only. It runs on `numba.get_num_threads()` threads. Where scores of layer 1 range too far for their
    factors (half of what exponentials can hold), the plain model does it all.
    """
    if not isinstance(encoding, str) or encoding != "relative":
        raise ValueError(f'encoding: expected "relative" (the tables know no other; '
                         f"use induction.loss_and_grads), got {encoding!r}")
    params, z, mask = model.check_batch(params, tokens, mask, encoding)
    dtype = check.real_dtype("params", params.E.dtype)
    weights = mask / mask.sum(dtype=dtype)
    parts = np.array_split(np.arange(len(z)), min(CHUNKS, len(z)))
    with one_blas_thread(), np.errstate(**check.QUIET):
        tables, images = tables_forward(params, spread)
        G1, B1 = (M - M.max(axis=1, keepdims=True) for M in tables[:2])
        span = -(G1.min(axis=1) + B1.min(axis=1)).min()
        if not (span < np.log(np.finfo(dtype).max) / 2 and check.finite(tables)):
            return model.loss_and_grads(params, z, mask)
        content, position = np.exp(G1), np.exp(B1)
        (loss, dtables), *results = spread(
            lambda part: run_chunk(tables, content, position, z[part], weights[part]), parts)
        for more, others in results:
            loss += more
            for table, other in zip(dtables, others):
                table += other
        dtables[1][:] *= position
        loss, grads = dtype.type(loss), tables_backward(params, images, Tables(*dtables))
    check.computed((loss, *grads), params)
    return loss, grads
