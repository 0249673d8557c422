"""The kernels of the fast path: layer 1, layer 2 and output on one sequence, each forward with its backward.

A sequence sees no more of a table than the rows and columns of its own n tokens. They are copied out,
its tokens z_t are numbered anew, 0..n−1, and the gradients are added back; `run_chunk`, at the end, is
all of it in order.
"""

from math import e, factorial, log2

import numpy as np
from numba import njit

LOG2_E, LOG_2 = log2(e), (6.93147180369123816490e-01, 1.90821492927058770002e-10)
TAYLOR = tuple(1 / factorial(j) for j in range(13, -1, -1))


@njit(cache=True, nogil=True)
def alphabet(tokens, V):
    """tokens (T,) -> the n different ones (n,), z (T,) in 0..n−1, the place of each among them, known (T,).

    They are numbered as they appear: of tokens up to t, known[t] are different. Indices are unsigned, here
    and below: Numba then has no negative ones to meet.
    """
    place, found, n = np.full(V, -1), np.empty(V, np.uint32), 0
    z = np.empty(tokens.shape[0], np.uint32)
    known = np.empty(tokens.shape[0], np.int64)
    for t in range(tokens.shape[0]):
        v = tokens[t]
        if place[v] < 0:
            place[v], found[n], n = n, v, n + 1
        z[t], known[t] = place[v], n
    return found[:n], z, known


@njit(cache=True, nogil=True)
def copies(v, V, count):
    """The rows v, v + V, … of `count` tables of V rows that stand on each other."""
    rows = np.empty(count * len(v), np.uint32)
    for i in range(len(rows)):
        rows[i] = v[i % len(v)] + V * (i // len(v))
    return rows


@njit(cache=True, nogil=True)
def take(table, rows, columns):
    """table[rows, columns] as a new array; the adjoint is `add_at`."""
    local = np.empty((len(rows), len(columns)), table.dtype)
    for i in range(len(rows)):
        own, row = local[i], table[rows[i]]
        for j in range(len(columns)):
            own[j] = row[columns[j]]
    return local


@njit(cache=True, nogil=True)
def add_at(dtable, rows, columns, dlocal):
    """Add dlocal to dtable[rows, columns]."""
    for i in range(len(rows)):
        own, row = dlocal[i], dtable[rows[i]]
        for j in range(len(columns)):
            row[columns[j]] += own[j]


@njit(cache=True, nogil=True)
def block(x, i, j, k, m):
    """x[i:j, k:m] as a new array."""
    part = np.empty((j - i, m - k), x.dtype)
    for a in range(j - i):
        row = x[i + a, k:]
        for b in range(m - k):
            part[a, b] = row[b]
    return part


@njit(cache=True, nogil=True)
def add(total, part, column):
    """Add part (k, m) to the first k rows of total, from this column on."""
    for i in range(part.shape[0]):
        row = total[i, column:]
        for j in range(part.shape[1]):
            row[j] += part[i, j]


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

    That is the table itself, and behind it one row more for each t whose row is not factored.
    """
    T, L, m = len(z), B1.shape[1], len(B1)
    start = np.empty(T, np.uint32)
    for t in range(T):
        start[t] = v[z[t]] * L + L - 1 - t
        if not factored[v[z[t]]]:
            start[t], m = m * L, m + 1
    if m == len(B1):
        return position.reshape(-1), start
    flat = np.empty(m * L, B1.dtype)
    for k in range(len(B1)):
        for i in range(L):
            flat[k * L + i] = position[k, i]
    for t in range(T):
        own, row = v[z[t]], flat[start[t]:]
        if not factored[own]:
            most = G1[own, own] + B1[own, L - 1]
            for s in range(t + 1):
                row[s] = G1[own, v[z[s]]] + B1[own, L - 1 - t + s]
                most = max(most, row[s])
            for s in range(t + 1):
                row[s] = np.exp(row[s] - most)
    return flat, start


@njit(cache=True, nogil=True, fastmath={"reassoc"})
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


@njit(cache=True, nogil=True, fastmath={"reassoc"})
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
# With dS_ts = A2_ts (dh_t[z_s] + dg_t·c_s − mean_t), mean_t = dh_t·h_t + dg_t·g_t, the gradients are
#
#     du_t[v] = Σ_s dS_ts 1[z_s = v],  dw_t = Σ_s dS_ts c_s,  dc_s += Σ_t (A2_ts dg_t + dS_ts w_t)
#
# A2_ts = A_ts / Σ_r A_tr is never formed: the division is left to h_t, g_t and to dh_t − mean_t, dg_t.
#
# Arrays stand with t as their last axis: what belongs to a key's token, u_t[z_s], is then a row, and
# inner loops run along memory. Keys are taken in tiles s0 ≤ s < s1. Only the rows from first[s0] on see
# any of them, first[s] being the first with t ≥ s; and c_s has entries for the tokens 0..known[s1−1]−1
# alone, since tokens are numbered as they appear.

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
def tile(A, s0, keys, first, r):
    """The part of A (K r,) for the keys s0, s0 + 1, … and the rows from first[s0] on, (keys, rows)."""
    keys, rows = min(keys, len(first) - s0), r - first[s0]
    return A[s0 * r:s0 * r + keys * rows].reshape(keys, rows)


@njit(cache=True, nogil=True, fastmath={"contract"})
def exponentials(x):
    """Replace x (m,) by exp(x), to 3e-16 of it; below −708 by exp(−708), above 0 by 1.

    With k the integer next to x / log 2, exp(x) = 2^k exp(x − k log 2). The first factor is a float whose
    bits are its exponent alone. The second is a polynomial of Taylor, |x − k log 2| ≤ (log 2)/2, which
    leaves 4e-18; log 2 is subtracted in two parts, the larger so short that k times it is exact.

    The loops have no call in them, so that the machine does several at once: 3.5 times as fast as np.exp.
    """
    power = np.empty(len(x), np.float64)
    bits = power.view(np.int64)
    for i in range(len(x)):
        y = np.float64(x[i])
        y = -708.0 if y < -708 else 0.0 if y > 0 else y
        k = np.floor(y * LOG2_E + 0.5)
        y, p = y - k * LOG_2[0] - k * LOG_2[1], 0.0
        for coefficient in TAYLOR:
            p = p * y + coefficient
        x[i], bits[i] = p, np.int64(np.int32(k) + 1023) << 52
    for i in range(len(x)):
        x[i] *= power[i]


@njit(cache=True, nogil=True)
def scores(z, known, first, c, u, w, A, s0, keys):
    """-> S2_ts of a tile (keys, rows), in its part of A, and the c_s that it has to do with (keys, m)."""
    S, i0 = tile(A, s0, keys, first, u.shape[1]), first[s0]
    m = known[s0 + len(S) - 1]
    c_s = block(c, s0, s0 + len(S), 0, m)
    np.dot(c_s, block(w, 0, m, i0, w.shape[1]), S)
    for j in range(len(S)):
        row, u_s = S[j], u[z[s0 + j], i0:]
        for i in range(len(row)):
            row[i] += u_s[i]
    return S, c_s


@njit(cache=True, nogil=True)
def bounds(z, t, u, w, ct):
    """u, w (n, r), ct (≥ n, r) the rows' c_t -> a number for each row (r,), and whether they can be used.

    c_s is a distribution: S2_ts ≤ max_v u_t[v] + max_v w_t[v]. That is near enough to the largest score
    if the difference to S2_tt has an exponential.
    """
    n, r = u.shape
    most, most_w, own = u[0].copy(), w[0].copy(), np.zeros(r, u.dtype)
    for k in range(n):
        for i in range(r):
            most[i], most_w[i] = max(most[i], u[k, i]), max(most_w[i], w[k, i])
            own[i] += w[k, i] * ct[k, i]
    farthest = own[0] * 0
    for i in range(r):
        most[i] += most_w[i]
        farthest = max(farthest, most[i] - own[i] - u[z[t[i]], i])
    return most, farthest < np.log(np.finfo(u.dtype).max) / 2


@njit(cache=True, nogil=True)
def layer2_forward(z, known, t, first, c, K2, keys):
    """z, known (T,), t (r,); c (T, n); K2 (2n, 2n) -> w (n, r), A (K r,), inverse (r,), x = [c h g] (3n, r).

    A, in tiles of `keys` keys, is A2 without its denominators, and inverse is one over these.
    """
    r, n, K = len(t), c.shape[1], len(first)
    x, inverse, A = np.zeros((3 * n, r), c.dtype), np.zeros(r, c.dtype), np.empty(K * r, c.dtype)
    for i in range(r):
        for k in range(n):
            x[k, i] = c[t[i], k]
    q = np.dot(K2[n:].T, x[:n])
    for i in range(r):
        for k in range(2 * n):
            q[k, i] += K2[z[t[i]], k]
    u, w, h, g = q[:n], q[n:], x[n:2 * n], x[2 * n:]
    most, near = bounds(z, t, u, w, x)
    if not near:                # the largest score itself, from the same products
        most[:] = -np.inf
        for s0 in range(0, K, keys):
            S, _ = scores(z, known, first, c, u, w, A, s0, keys)
            for j in range(len(S)):
                for i in range(first[s0 + j], r):
                    most[i] = max(most[i], S[j, i - first[s0]])
    for s0 in range(0, K, keys):
        A_s, c_s = scores(z, known, first, c, u, w, A, s0, keys)
        i0 = first[s0]
        for j in range(len(A_s)):
            row, most_s = A_s[j], most[i0:]
            for i in range(len(row)):
                row[i] -= most_s[i]
        exponentials(A_s.reshape(-1))
        for j in range(len(A_s)):
            row, h_s, ahead = A_s[j], h[z[s0 + j], i0:], first[s0 + j] - i0
            for i in range(ahead):
                row[i] = 0
            for i in range(ahead, len(row)):
                h_s[i] += row[i]
        add(g, np.dot(c_s.T, A_s), i0)
    for k in range(n):
        for i in range(r):
            inverse[i] += h[k, i]
    for i in range(r):
        inverse[i] = 1 / inverse[i]
    for k in range(n, 3 * n):
        for i in range(r):
            x[k, i] *= inverse[i]
    return w, A, inverse, x


@njit(cache=True, nogil=True)
def layer2_backward(z, known, t, first, c, K2, w, A, inverse, x, dx, dc, dK2, keys):
    """x, dx = [dc dh dg] (3n, r); adds to dc (T, n) and dK2 (2n, 2n); spoils dx."""
    r, n, K = len(t), c.shape[1], len(first)
    dh, dg, dq, mean = dx[n:2 * n], dx[2 * n:], np.zeros((2 * n, r), c.dtype), np.zeros(r, c.dtype)
    for k in range(n, 3 * n):
        for i in range(r):
            mean[i] += x[k, i] * dx[k, i]
    for k in range(n):
        for i in range(r):
            dh[k, i] = inverse[i] * (dh[k, i] - mean[i])
            dg[k, i] *= inverse[i]
    for s0 in range(0, K, keys):
        A_s, i0 = tile(A, s0, keys, first, r), first[s0]
        s1 = s0 + len(A_s)
        m = known[s1 - 1]
        c_s, w_s, dg_s = block(c, s0, s1, 0, m), block(w, 0, m, i0, r), block(dg, 0, m, i0, r)
        dS = np.dot(c_s, dg_s)
        for j in range(len(A_s)):
            row, A_j, dh_s, du = dS[j], A_s[j], dh[z[s0 + j], i0:], dq[z[s0 + j], i0:]
            for i in range(len(row)):
                row[i] = A_j[i] * (row[i] + dh_s[i])
            for i in range(len(row)):
                du[i] += row[i]
        add(dq[n:], np.dot(c_s.T, dS), i0)
        add(dc[s0:], np.dot(A_s, dg_s.T), 0)
        add(dc[s0:], np.dot(dS, w_s.T), 0)
    add(dK2[n:], np.dot(x[:n], dq.T), 0)
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
def output(z, t, target, x, T, dT, v4, scale):
    """T (4n, V), x (3n, r) -> the sum of the losses, not scaled, and dx; adds to dT[v4]. Both directions."""
    n, loss = T.shape[0] // 4, scale * 0
    logits = np.dot(x.T, T[n:])
    likeliest = np.empty(len(t), np.int64)
    for i in range(len(t)):
        row, own, k = logits[i], T[z[t[i]]], 0
        for u in range(len(row)):
            row[u] += own[u]
            if row[u] > row[k]:
                k = u
        likeliest[i], largest = k, row[k]
        loss += largest - row[target[t[i]]]
        for u in range(len(row)):
            row[u] -= largest
    exponentials(logits.reshape(-1))
    for i in range(len(t)):
        row, own, k, correct, others = logits[i], dT[v4[z[t[i]]]], likeliest[i], target[t[i]], scale * 0
        row[k] = 0
        for u in range(len(row)):
            others += row[u]
        row[k] = 1
        loss += np.log1p(others)
        # Not 1 − p at the target, which would round where p is near 1.
        row[correct] = -others if correct == k else row[correct] - 1 - others
        inverse = scale / (1 + others)
        for u in range(len(row)):
            row[u] *= inverse
            own[u] += row[u]
    dT_rows = np.dot(x, logits)
    for i in range(len(dT_rows)):
        row, more = dT[v4[n + i]], dT_rows[i]
        for u in range(len(row)):
            row[u] += more[u]
    return loss, np.dot(T[n:], logits.T)


@njit(cache=True, nogil=True)
def run_chunk(tables, exponentiated, tokens, mask, scale, most, keys):
    """tokens (b, T+1), mask (b, T) -> the sum of their losses, and Tables of gradients times scale.

    At most `most` rows of layer 2 run together, over `keys` keys at a time.
    """
    G1, B1, K2, T = tables
    content, position, factored = exponentiated
    dG1, dB1, dK2, dT = np.zeros_like(G1), np.zeros_like(B1), np.zeros_like(K2), np.zeros_like(T)
    V, loss = len(G1), scale * 0
    for b in range(len(tokens)):
        rows = np.flatnonzero(mask[b])
        if len(rows) == 0:
            continue
        v, z, known = alphabet(tokens[b, :rows[-1] + 1], V)
        v2, v4 = copies(v, V, 2), copies(v, V, 4)
        contentv, K2v, Tv = take(content, v, v), take(K2, v2, v2), T[v4]
        dG1v, dK2v = np.zeros_like(contentv), np.zeros_like(K2v)
        flat, start = position_rows(z, v, G1, B1, position, factored)
        c, total = layer1_forward(z, v, contentv, factored, flat, start)
        dc = np.zeros_like(c)
        blocks = -(-len(rows) // most)
        for i in range(blocks):
            t = rows[i * len(rows) // blocks:(i + 1) * len(rows) // blocks]
            first = first_rows(t)
            w, A, inverse, x = layer2_forward(z, known, t, first, c, K2v, keys)
            losses, dx = output(z, t, tokens[b, 1:], x, Tv, dT, v4, scale)
            layer2_backward(z, known, t, first, c, K2v, w, A, inverse, x, dx, dc, dK2v, keys)
            loss += losses
        layer1_backward(z, v, contentv, factored, flat, start, c, total, dc, dG1v, dB1)
        add_at(dG1, v, v, dG1v)
        add_at(dK2, v2, v2, dK2v)
    for a in range(V):
        if factored[a]:
            for i in range(B1.shape[1]):
                dB1[a, i] *= position[a, i]
    return loss, (dG1, dB1, dK2, dT)
