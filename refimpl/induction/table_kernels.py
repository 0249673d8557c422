"""The kernels of tables.py: layer 1, layer 2 and output on one sequence, each forward with its backward.

A sequence sees no more of a table than the rows and columns of its own n tokens. They are copied out,
its tokens z_t are numbered anew, 0..n−1, and the gradients are added back; `run_chunk`, at the end, is
all of it in order.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def alphabet(tokens, V):
    """tokens (T,) -> the n different ones (n,), and z (T,) in 0..n−1, the place of each among them."""
    place, found, n = np.full(V, -1), np.empty(V, np.int64), 0
    z = np.empty(tokens.shape[0], np.uint32)    # unsigned: Numba then has no negative index to meet
    for t in range(tokens.shape[0]):
        v = tokens[t]
        if place[v] < 0:
            place[v], found[n], n = n, v, n + 1
        z[t] = place[v]
    return found[:n], z


@njit(cache=True, nogil=True)
def copies(v, V, count):
    """The rows v, v + V, … of `count` tables of V rows that stand on each other."""
    rows = np.empty(count * len(v), np.int64)
    for i in range(len(rows)):
        rows[i] = v[i % len(v)] + V * (i // len(v))
    return rows


@njit(cache=True, nogil=True)
def take(table, rows, columns):
    """table[rows, columns] as a new array; the adjoint is `add_at`."""
    local = np.empty((len(rows), len(columns)), table.dtype)
    for i in range(len(rows)):
        for j in range(len(columns)):
            local[i, j] = table[rows[i], columns[j]]
    return local


@njit(cache=True, nogil=True)
def add_at(dtable, rows, columns, dlocal):
    """Add dlocal to dtable[rows, columns]."""
    for i in range(len(rows)):
        for j in range(len(columns)):
            dtable[rows[i], columns[j]] += dlocal[i, j]


@njit(cache=True, nogil=True)
def add(total, part):
    """Add part (k, m) to the first k rows of total. In loops, since slices take long to compile."""
    for i in range(part.shape[0]):
        for j in range(part.shape[1]):
            total[i, j] += part[i, j]


# layer1: A1_ts = exp(S1_ts) / Σ_r exp(S1_tr),  c_t[v] = Σ_s A1_ts 1[z_s = v]
#
# exp(S1_ts) = content[z_s] position[t−s], two rows of exponentials that belong to the token z_t, so
#
#     c_t[v] = content[v] Σ_{s ≤ t, z_s = v} position[t−s] / total_t,  total_t the sum of that over v.
#
# The gradient of a score is dS_ts = A1_ts (dc_t[z_s] − mean_t), mean_t = c_t·dc_t. In G1 the terms
# of equal tokens come together, and only B1 needs the pairs:
#
#     dG1[z_t, v]   += c_t[v] (dc_t[v] − mean_t)
#     dB1[z_t, t−s] += position[t−s] y_t[z_s],  y_t[v] = content[v] (dc_t[v] − mean_t) / total_t
#
# position[t−s] belongs to the entry of dB1, not to the pair: `run_chunk` multiplies by it at the end.
#
# A constant that is added to a row of G1 or of B1 changes no A1: both have their maximum subtracted.
# Where their ranges add up to more than exponentials can hold, the row is not `factored`, and its
# position[t−s] is exp(S1_ts − max_s S1_ts), content 1: the same formulas, with an exponential per pair.

def factors(G1, B1):
    """exp of G1 and of B1, their row maxima subtracted, and whether their products are safe (V,)."""
    content, position = (M - M.max(axis=1, keepdims=True) for M in (G1, B1))
    limit = np.log(np.finfo(G1.dtype).max) / 2
    return np.exp(content), np.exp(position), -content.min(axis=1) - position.min(axis=1) < limit


@njit(cache=True, nogil=True)
def position_rows(z, v, G1, B1, position, factored):
    """-> flat, start (T,): position[t−s] of the row z_t stands at flat[start[t] + s].

    One stretch of T numbers for each token, and one more for each t whose row is not factored.
    """
    T, n, last, m = len(z), len(v), B1.shape[1] - 1, len(v)
    start = np.empty(T, np.uint32)
    for t in range(T):
        if not factored[v[z[t]]]:
            m += 1
    flat, m = np.empty(m * T, B1.dtype), n
    for k in range(n):
        for s in range(T):
            flat[k * T + s] = position[v[k], last + 1 - T + s]
    for t in range(T):
        start[t] = z[t] * T + T - 1 - t
        if not factored[v[z[t]]]:
            start[t] = m * T
            row, largest = flat[m * T:], G1[z[t], z[t]] + B1[v[z[t]], last]
            for s in range(t + 1):
                row[s] = G1[z[t], z[s]] + B1[v[z[t]], last - t + s]
                largest = max(largest, row[s])
            for s in range(t + 1):
                row[s] = np.exp(row[s] - largest)
            m += 1
    return flat, start


@njit(cache=True, nogil=True)
def layer1_forward(z, v, content, factored, flat, start):
    """z (T,), v (n,) alphabet; content (n, n) -> c (T, n), total (T,)."""
    T, n = len(z), len(v)
    # Keys outside, queries inside: what is added to is then never what was written just before. Rows of
    # T + 8 do not all fall on the same places of the cache, as rows of a power of two would.
    sums = np.zeros((n, T + 8), flat.dtype)
    for s in range(T):
        row, after, place = sums[z[s], s:], flat[s:], start[s:]
        for t in range(len(place)):
            row[t] += after[place[t]]
    c, total = np.empty((T, n), flat.dtype), np.zeros(T, flat.dtype)
    for t in range(T):
        c_t, by_content = c[t], content[z[t]]
        for k in range(n):
            c_t[k] = sums[k, t]
        if factored[v[z[t]]]:
            for k in range(n):
                c_t[k] *= by_content[k]
        for k in range(n):
            total[t] += c_t[k]
        inverse = 1 / total[t]
        for k in range(n):
            c_t[k] *= inverse
    return c, total


@njit(cache=True, nogil=True)
def layer1_backward(z, v, content, factored, flat, start, c, total, dc, dG1, dB1):
    """c, dc (T, n), total (T,); adds to dG1 (n, n) and dB1 (V, L), there without factored positions."""
    y = np.empty(len(v), flat.dtype)
    for t in range(len(z)):
        c_t, dc_t, dG1_t, by_content = c[t], dc[t], dG1[z[t]], content[z[t]]
        mean, inverse = total[t] * 0, 1 / total[t]
        for k in range(len(v)):
            mean += c_t[k] * dc_t[k]
        for k in range(len(v)):
            y[k] = dc_t[k] - mean
            dG1_t[k] += c_t[k] * y[k]
            y[k] *= inverse
        drow = dB1[v[z[t]], dB1.shape[1] - 1 - t:]
        if factored[v[z[t]]]:
            for k in range(len(v)):
                y[k] *= by_content[k]
            for s in range(t + 1):
                drow[s] += y[z[s]]
        else:
            row = flat[start[t]:]
            for s in range(t + 1):
                drow[s] += row[s] * y[z[s]]


# layer2, for a block of r rows t_0 < t_1 < …, over the K = t_{r−1} + 1 keys that they see:
#
#     q_t = [u_t w_t] = [EE EP][z_t] + c_t [PE PP],  S2_ts = u_t[z_s] + w_t·c_s,  A2_t· = softmax_{s ≤ t}
#     h_t[v] = Σ_s A2_ts 1[z_s = v],  g_t = Σ_s A2_ts c_s
#
# dA_ts = dh_t[z_s] + dg_t·c_s,  dS_ts = A2_ts (dA_ts − mean_t),  mean_t = dh_t·h_t + dg_t·g_t,
# du_t[v] = Σ_s dS_ts 1[z_s = v],  dw_t = Σ_s dS_ts c_s,  dc_s += Σ_t (A2_ts dg_t + dS_ts w_t)
#
# Arrays stand with t as their last axis: what belongs to a key's token, u_t[z_s], is then a row, and
# every inner loop runs along memory. first[s] is the first row of the block with t ≥ s.

@njit(cache=True, nogil=True)
def first_rows(t):
    """t (r,) rising -> first (K,)."""
    first, i = np.empty(t[-1] + 1, np.int64), 0
    for s in range(len(first)):
        if t[i] < s:
            i += 1
        first[s] = i
    return first


@njit(cache=True, nogil=True)
def layer2_forward(z, t, first, c, K2):
    """z (T,), t (r,) rows; c (T, n); K2 (2n, 2n) -> q = [u w] (2n, r), A2 (K, r), x = [c h g] (3n, r)."""
    r, n, K = len(t), c.shape[1], len(first)
    x = np.zeros((3 * n, r), c.dtype)
    for i in range(r):
        for k in range(n):
            x[k, i] = c[t[i], k]
    q = np.dot(K2[n:].T, x[:n])
    for i in range(r):
        for k in range(2 * n):
            q[k, i] += K2[z[t[i]], k]
    A2 = np.dot(c[:K], q[n:])
    largest, total, h = A2[0] + q[z[0]], np.zeros(r, c.dtype), x[n:2 * n]
    for s in range(K):
        row, u, top = A2[s, first[s]:], q[z[s], first[s]:], largest[first[s]:]
        for i in range(len(row)):
            row[i] += u[i]
            top[i] = row[i] if row[i] > top[i] else top[i]
    for s in range(K):
        row, top, h_s = A2[s, first[s]:], largest[first[s]:], h[z[s], first[s]:]
        for i in range(len(row)):
            row[i] = np.exp(row[i] - top[i])
        for i in range(len(row)):
            h_s[i] += row[i]
        for i in range(first[s]):
            A2[s, i] = 0
    for k in range(n):
        for i in range(r):
            total[i] += h[k, i]
    for i in range(r):
        total[i] = 1 / total[i]
    for k in range(n):
        for i in range(r):
            h[k, i] *= total[i]
    for s in range(K):
        for i in range(r):
            A2[s, i] *= total[i]
    np.dot(c[:K].T, A2, x[2 * n:])
    return q, A2, x


@njit(cache=True, nogil=True)
def layer2_backward(z, t, c, K2, q, A2, x, dx, dc, dK2):
    """x, dx = [dc dh dg] (3n, r); adds to dc (T, n) and dK2 (2n, 2n)."""
    r, n, K = len(t), c.shape[1], len(A2)
    dg, dh, dq, mean = dx[2 * n:], dx[n:2 * n], np.zeros((2 * n, r), c.dtype), np.zeros(r, c.dtype)
    for k in range(n, 3 * n):
        for i in range(r):
            mean[i] += x[k, i] * dx[k, i]
    dS = np.dot(c[:K], dg)
    for s in range(K):
        row, A, dh_s, du = dS[s], A2[s], dh[z[s]], dq[z[s]]
        for i in range(r):
            row[i] = A[i] * (row[i] + dh_s[i] - mean[i])
        for i in range(r):
            du[i] += row[i]
    np.dot(c[:K].T, dS, dq[n:])
    add(dc, np.dot(A2, dg.T))
    add(dc, np.dot(dS, q[n:].T))
    add(dK2[n:], np.dot(x[:n], dq.T))
    dct = np.dot(K2[n:], dq)
    for i in range(r):
        for k in range(2 * n):
            dK2[z[t[i]], k] += dq[k, i]
        for k in range(n):
            dc[t[i], k] += dct[k, i] + dx[k, i]


# output: logits_t = T0[z_t] + x_t [T1; T2; T3],  loss_t as in ops.cross_entropy_forward
#
# dlogits_tu = scale (p_tu − 1[u = target]),  dT0[z_t] += dlogits_t,  d[T1; T2; T3] += Σ_t x_t dlogits_tᵀ,
# dx_t = [T1; T2; T3] dlogits_t

@njit(cache=True, nogil=True)
def output(z, t, target, x, T, dT, scale):
    """T (4n, V), x (3n, r) -> the sum of the losses, not scaled, and dx; adds to dT. Both directions."""
    n = T.shape[0] // 4
    logits = np.dot(x.T, T[n:])
    loss = scale * 0
    for i in range(len(t)):
        row, own, correct = logits[i], z[t[i]], target[t[i]]
        k = 0
        for u in range(len(row)):
            row[u] += T[own, u]
            if row[u] > row[k]:
                k = u
        largest, others, rest = row[k], scale * 0, scale * 0
        loss += largest - row[correct]
        for u in range(len(row)):
            row[u] = np.exp(row[u] - largest)
            if u != k:
                others += row[u]
        loss += np.log1p(others)
        for u in range(len(row)):
            row[u] *= scale / (1 + others)
            if u != correct:
                rest += row[u]
        row[correct] = -rest
        for u in range(len(row)):
            dT[own, u] += row[u]
    add(dT[n:], np.dot(x, logits))
    return loss, np.dot(T[n:], logits.T)


@njit(cache=True, nogil=True)
def run_chunk(tables, exponentials, tokens, mask, scale, most):
    """tokens (b, T+1), mask (b, T) -> the sum of their losses, and Tables of gradients times scale.

    At most `most` rows of layer 2 run together.
    """
    G1, B1, K2, T = tables
    content, position, factored = exponentials
    dG1, dB1, dK2, dT = np.zeros_like(G1), np.zeros_like(B1), np.zeros_like(K2), np.zeros_like(T)
    V, loss = len(G1), scale * 0
    every = np.arange(V)
    for b in range(len(tokens)):
        rows = np.flatnonzero(mask[b])
        if len(rows) == 0:
            continue
        v, z = alphabet(tokens[b, :rows[-1] + 1], V)
        v2, v4 = copies(v, V, 2), copies(v, V, 4)
        G1v, contentv, K2v, Tv = take(G1, v, v), take(content, v, v), take(K2, v2, v2), take(T, v4, every)
        dG1v, dK2v, dTv = np.zeros_like(G1v), np.zeros_like(K2v), np.zeros_like(Tv)
        flat, start = position_rows(z, v, G1v, B1, position, factored)
        c, total = layer1_forward(z, v, contentv, factored, flat, start)
        dc = np.zeros_like(c)
        blocks = -(-len(rows) // most)
        for i in range(blocks):
            t = rows[i * len(rows) // blocks:(i + 1) * len(rows) // blocks]
            first = first_rows(t)
            q, A2, x = layer2_forward(z, t, first, c, K2v)
            losses, dx = output(z, t, tokens[b, 1:], x, Tv, dTv, scale)
            layer2_backward(z, t, c, K2v, q, A2, x, dx, dc, dK2v)
            loss += losses
        layer1_backward(z, v, contentv, factored, flat, start, c, total, dc, dG1v, dB1)
        add_at(dG1, v, v, dG1v)
        add_at(dK2, v2, v2, dK2v)
        add_at(dT, v4, every, dTv)
    for a in range(V):
        if factored[a]:
            for i in range(B1.shape[1]):
                dB1[a, i] *= position[a, i]
    return loss, (dG1, dB1, dK2, dT)
