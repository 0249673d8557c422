"""The kernels of the fast path: layer 1, layer 2 and output on one sequence, each forward with its backward.

Letters: T tokens z_t, n of them different; t query, s key, k and u tokens; c, h, g the histories of fast.py.
A sequence needs only its own n rows and columns of a table: `run_chunk` copies them, and adds gradients back.
Indices are unsigned: Numba then has no negative ones to look out for.
"""

from math import factorial, log2, e
from typing import NamedTuple

import numpy as np
from numba import njit

ROWS = 32       # queries in a block of layer 2: with fewer BLAS is slower, with more more keys come too late
TAYLOR = tuple(1 / factorial(j) for j in range(12, -1, -1))
LOG2_E, LOG_2, NEAREST = log2(e), (0.693359375, -2.121944400546905827679e-4), 1.5 * 2 ** 52


class Tables(NamedTuple):
    """What the model is made of, or the gradient by it; P = E Phiᵀ, X = [E; P], Y = U + U WF, M = WO WV."""

    G1: np.ndarray      # (V, V) E WK1 Eᵀ
    B1: np.ndarray      # (V, L) E WK1 posᵀ, the last column for δ = 0: a row's end runs with its keys
    K2: np.ndarray      # (2V, 2V) [EE EP; PE PP] = X WK2 Xᵀ
    T: np.ndarray       # (4V, V) [T0; T1; T2; T3] = [X Yᵀ; X (Y M)ᵀ]


@njit(cache=True, nogil=True)
def alphabet(tokens, V):
    """tokens (T,) -> the different ones (n,), and z (T,), the place of each token among them."""
    place, v, n = np.full(V, V), np.empty(V, np.uint64), 0
    z = np.empty(len(tokens), np.uint64)
    for t in range(len(tokens)):
        token = tokens[t]
        if place[token] == V:
            place[token], v[n], n = n, token, n + 1
        z[t] = place[token]
    return v[:n], z


@njit(cache=True, nogil=True)
def take(table, rows, columns):
    """table[rows, columns] as a new array; the adjoint is `add_at`."""
    local = np.empty((len(rows), len(columns)), table.dtype)
    for i in range(len(rows)):
        row = rows[i]
        for j in range(len(columns)):
            local[i, j] = table[row, columns[j]]
    return local


@njit(cache=True, nogil=True)
def add_at(dtable, rows, columns, dlocal):
    """Add dlocal to dtable[rows, columns]."""
    for i in range(len(rows)):
        row = rows[i]
        for j in range(len(columns)):
            dtable[row, columns[j]] += dlocal[i, j]


@njit(cache=True, nogil=True)
def add_rows(total, rows, part):
    """Add part to total[rows]."""
    for i in range(len(rows)):
        row = rows[i]
        for j in range(part.shape[1]):
            total[row, j] += part[i, j]


@njit(cache=True, nogil=True, fastmath={"contract"})
def exponentials(x):
    """Replace x (m,), all ≤ 0, by exp(x), to 4e-16 of it; by 0 below −708.

    exp(x) = 2^k exp(x − k log 2), k the integer next to x / log 2; the second factor by Taylor. log 2 has two
    parts, the first so short that k times it is exact. Adding NEAREST rounds to k and leaves k in the lowest
    bits; moved up by 52 places, they go to the exponent. The loop has no calls: several entries go at once.
    """
    for i in range(len(x)):
        y = np.float64(x[i])
        shifted = y * LOG2_E + NEAREST
        k = shifted - NEAREST
        rest, p = y - k * LOG_2[0] - k * LOG_2[1], 0.0
        for coefficient in TAYLOR:
            p = p * rest + coefficient
        bits = np.float64(p).view(np.int64) + (np.float64(shifted).view(np.int64) << 52)
        x[i] = 0.0 if y < -708 else np.int64(bits).view(np.float64)


# layer1: A1_ts = exp(S1_ts) / Σ_r exp(S1_tr),  c_t[v] = Σ_s A1_ts 1[z_s = v]
#
# exp(S1_ts) = content[z_s] position[t−s], two rows of exponentials that belong to the token z_t, so
#
#     c_t[v] = content[v] Σ_{s ≤ t, z_s = v} position[t−s] / total_t,  total_t the sum of that over v.
#
# With dS_ts = A1_ts (dc_t[z_s] − mean_t), mean_t = c_t·dc_t, only B1 needs the pairs:
#
#     dG1[z_t, v]   += c_t[v] (dc_t[v] − mean_t)
#     dB1[z_t, t−s] += position[t−s] y_t[z_s],  y_t[v] = content[v] (dc_t[v] − mean_t) / total_t
#
# position[t−s] belongs to the entry of dB1, not to the pair: the caller multiplies by it at the end.

@njit(cache=True, nogil=True)
def layer1_forward(z, v, content, position):
    """z (T,), v (n,) alphabet; content (n, n), position (V, L) -> c (T, n), total (T,)."""
    T, n, L, flat = len(z), len(v), position.shape[1], position.reshape(-1)
    c, total = np.zeros((T, n), flat.dtype), np.zeros(T, flat.dtype)
    for t in range(T):
        own = z[t]
        start = np.uint64(np.int64(v[own]) * L + L - 1 - t)
        for s in range(t + 1):
            c[t, z[s]] += flat[start + np.uint64(s)]
        for k in range(n):
            c[t, k] *= content[own, k]
        for k in range(n):
            total[t] += c[t, k]
        inverse = 1 / total[t]
        for k in range(n):
            c[t, k] *= inverse
    return c, total


@njit(cache=True, nogil=True)
def layer1_backward(z, v, content, c, total, dc, dG1, dB1):
    """c, dc (T, n), total (T,); adds to dG1 (n, n) and dB1 (V, L), there without `position`."""
    n, L, flat, y = len(v), dB1.shape[1], dB1.reshape(-1), np.empty(len(v), c.dtype)
    for t in range(len(z)):
        own, mean, inverse = z[t], total[t] * 0, 1 / total[t]
        for k in range(n):
            mean += c[t, k] * dc[t, k]
        for k in range(n):
            y[k] = dc[t, k] - mean
            dG1[own, k] += c[t, k] * y[k]
            y[k] *= content[own, k] * inverse
        start = np.uint64(np.int64(v[own]) * L + L - 1 - t)
        for s in range(t + 1):
            flat[start + np.uint64(s)] += y[z[s]]


# layer2, for a block of r queries t and K keys s:
#
#     q_t = [u_t w_t] = [EE EP][z_t] + c_t [PE PP],  S2_ts = u_t[z_s] + w_t·c_s,  A2_t· = softmax_{s ≤ t}
#     h_t[v] = Σ_s A2_ts 1[z_s = v],  g_t = Σ_s A2_ts c_s
#
# With dS_ts = A2_ts (dh_t[z_s] + dg_t·c_s − mean_t), mean_t = dh_t·h_t + dg_t·g_t, the gradients are
#
#     du_t[v] = Σ_s dS_ts 1[z_s = v],  dw_t = Σ_s dS_ts c_s,  dc_s += Σ_t (A2_ts dg_t + dS_ts w_t)
#
# Arrays stand with t as their last axis: what belongs to a key's token, u_t[z_s], is then a row.

@njit(cache=True, nogil=True)
def layer2_forward(z, t, c, K2):
    """z (K,), t (r,) rising, c (K, n), K2 (2n, 2n) -> w (n, r), A (K, r) = A2, x = [c h g] (3n, r)."""
    K, n, r = len(z), c.shape[1], len(t)
    x, total, most = np.zeros((3 * n, r), c.dtype), np.zeros(r, c.dtype), np.full(r, -np.inf, c.dtype)
    for i in range(r):      # loops: what NumPy does in a line takes 2 s more to compile
        for k in range(n):
            x[k, i] = c[t[i], k]
    q = np.dot(K2[n:].T, x[:n])
    for i in range(r):
        for k in range(2 * n):
            q[k, i] += K2[z[t[i]], k]
    u, w, h = q[:n], q[n:], x[n:2 * n]
    A = np.dot(c, w)
    for s in range(K):
        k, key = z[s], np.uint64(s)
        for i in range(r):
            A[s, i] = A[s, i] + u[k, i] if key <= t[i] else -np.inf
            most[i] = max(most[i], A[s, i])
    for s in range(K):
        for i in range(r):
            A[s, i] -= most[i]
    exponentials(A.reshape(-1))
    for s in range(K):
        for i in range(r):
            total[i] += A[s, i]
    for i in range(r):
        total[i] = 1 / total[i]
    for s in range(K):
        k = z[s]
        for i in range(r):
            A[s, i] *= total[i]
            h[k, i] += A[s, i]
    np.dot(c.T, A, x[2 * n:])
    return w, A, x


@njit(cache=True, nogil=True)
def layer2_backward(z, t, c, K2, w, A, x, dx, dc, dK2):
    """dx = [dc dh dg] (3n, r); adds to dc (T, n) and dK2 (2n, 2n); spoils dx."""
    K, n, r = len(z), c.shape[1], len(t)
    dct, dh, dg = dx[:n], dx[n:2 * n], dx[2 * n:]
    dq, rows = np.zeros((2 * n, r), c.dtype), np.arange(max(K, n)).astype(np.uint64)
    dh -= (x[n:] * dx[n:]).sum(axis=0)      # mean
    dS = np.dot(c, dg)
    for s in range(K):
        k = z[s]
        for i in range(r):
            dS[s, i] = A[s, i] * (dS[s, i] + dh[k, i])
        for i in range(r):
            dq[k, i] += dS[s, i]
    np.dot(c.T, dS, dq[n:])
    dqT = np.ascontiguousarray(dq.T)
    add_rows(dc, rows[:K], np.dot(A, np.ascontiguousarray(dg.T)))
    add_rows(dc, rows[:K], np.dot(dS, np.ascontiguousarray(w.T)))
    add_rows(dct, rows[:n], np.dot(K2[n:], dq))
    add_rows(dc, t, dct.T)
    add_rows(dK2, z[t], dqT)
    add_rows(dK2[n:], rows[:n], np.dot(x[:n], dqT))


# output: logits_t = T0[z_t] + x_t [T1; T2; T3],  loss_t as in ops.cross_entropy_forward
#
# dlogits_tu = weight_t (p_tu − 1[u = target]),  dT0[z_t] += dlogits_t,  d[T1; T2; T3] += Σ_t x_t dlogits_tᵀ,
# dx_t = [T1; T2; T3] dlogits_t

@njit(cache=True, nogil=True)
def output(z, target, weight, x, T, dT, v4):
    """z, target, weight (r,), x (3n, r), T (4n, V) -> Σ weight loss, dx; adds to dT[v4]. Both directions."""
    n, loss, logits = len(v4) // 4, weight[0] * 0, np.dot(x.T, T[len(v4) // 4:])
    r, V = logits.shape
    for i in range(r):
        own, down, k, others = z[i], v4[z[i]], 0, weight[i] * 0
        for u in range(V):
            logits[i, u] += T[own, u]
            if logits[i, u] > logits[i, k]:
                k = u
        correct, largest = target[i], logits[i, k]
        loss += weight[i] * (largest - logits[i, correct])
        for u in range(V):
            logits[i, u] -= largest
        exponentials(logits[i])
        logits[i, k] = 0
        for u in range(V):
            others += logits[i, u]
        loss += weight[i] * np.log1p(others)
        logits[i, k] = 1
        # Not 1 − p at the target, which would round where p is near 1.
        logits[i, correct] = -others if correct == k else logits[i, correct] - 1 - others
        scale = weight[i] / (1 + others)
        for u in range(V):
            logits[i, u] *= scale
            dT[down, u] += logits[i, u]
    add_rows(dT, v4[n:], np.dot(x, logits))
    return loss, np.dot(T[n:], np.ascontiguousarray(logits.T))


@njit(cache=True, nogil=True)
def run_chunk(tables, content, position, tokens, weights):
    """tokens (b, T+1), weights (b, T) -> the weighted sum of their losses, its gradients by Tables."""
    G1, B1, K2, T = tables
    dG1, dB1, dK2, dT = np.zeros_like(G1), np.zeros_like(B1), np.zeros_like(K2), np.zeros_like(T)
    V, loss = np.uint64(len(G1)), weights[0, 0] * 0
    for b in range(len(tokens)):
        chosen = np.flatnonzero(weights[b])
        if len(chosen) == 0:
            continue
        t, weight = chosen.astype(np.uint64), weights[b][chosen]
        v, z = alphabet(tokens[b, :chosen[-1] + 1], V)
        v2 = np.concatenate((v, v + V))
        v4, target = np.concatenate((v2, v2 + V + V)), tokens[b, 1:][t]
        contentv, K2v, Tv = take(content, v, v), take(K2, v2, v2), T[v4]
        c, total = layer1_forward(z, v, contentv, position)
        dc, dG1v, dK2v = np.zeros_like(c), np.zeros_like(contentv), np.zeros_like(K2v)
        for i in range(0, len(t), ROWS):
            rows, K = t[i:i + ROWS], chosen[i:i + ROWS][-1] + 1
            w, A, x = layer2_forward(z[:K], rows, c[:K], K2v)
            part, dx = output(z[rows], target[i:i + ROWS], weight[i:i + ROWS], x, Tv, dT, v4)
            layer2_backward(z[:K], rows, c[:K], K2v, w, A, x, dx, dc, dK2v)
            loss += part
        layer1_backward(z, v, contentv, c, total, dc, dG1v, dB1)
        add_at(dG1, v, v, dG1v)
        add_at(dK2, v2, v2, dK2v)
    return loss, (dG1, dB1, dK2, dT)
