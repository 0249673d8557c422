"""The kernels that both models are made of: `<op>_forward`, and `<op>_backward` right below it.

Every kernel works on one sequence, in loops that read like the index notation above them. A backward
takes the derivative of the loss by the forward's output (`d` + its name) and returns, or adds to, the
derivatives by the inputs. Causality is a loop bound, `s <= t`: nothing above the diagonal is read, and
zeros stand there.

Letters: T positions, t (query) and s (key) among them; V tokens, v or u; d the width of an activation;
L position vectors, δ = t − s; m hidden units, i; z token ids.

All kernels take float64 and float32. The forward ones also take complex128, so that a complex step
goes through the very code that it checks; maxima and signs are then those of the real part. With
`NUMBA_DISABLE_JIT=1` they run as plain Python: a debugger can step through them, and they take arrays of
objects, such as balls of interval arithmetic, whose comparisons are True only when certain.

The kernels trust their arguments: the public functions check them first. They call kernels of this
module and no others, since Numba's disk cache notices changes in a function's own file only.
"""

import numpy as np
from numba import njit


# embed: x_t = W[z_t]
#
# dW[v] = Σ_t 1[z_t = v] dx_t

@njit(cache=True)
def embed_forward(W, z):
    """W (V, d), z (T,) -> x (T, d)."""
    x = np.empty((z.shape[0], W.shape[1]), W.dtype)
    for t in range(z.shape[0]):
        for i in range(W.shape[1]):
            x[t, i] = W[z[t], i]
    return x


@njit(cache=True)
def embed_backward(z, dx, dW):
    """z (T,), dx (T, d); adds to dW (V, d), in the order of t."""
    for t in range(z.shape[0]):
        for i in range(dW.shape[1]):
            dW[z[t], i] += dx[t, i]


# relative_scores: S_ts = content_ts + offset_{t,t−s}, s ≤ t
#
# Two products give every score: content_ts = q_t · k_s and offset_tδ = q_t · pos_δ.
# dcontent_ts = dS_ts,  doffset_tδ = dS_{t,t−δ}

@njit(cache=True)
def relative_scores_forward(content, offset):
    """content (T, T), offset (T, L) with L ≥ T -> S (T, T), zero above the diagonal."""
    T = content.shape[0]
    S = np.zeros_like(content)
    for t in range(T):
        for s in range(t + 1):
            S[t, s] = content[t, s] + offset[t, t - s]
    return S


@njit(cache=True)
def relative_scores_backward(dS, L):
    """dS (T, T), zero above the diagonal -> doffset (T, L). (dcontent is dS itself.)"""
    T = dS.shape[0]
    doffset = np.zeros((T, L), dS.dtype)
    for t in range(T):
        for s in range(t + 1):
            doffset[t, t - s] = dS[t, s]
    return doffset


# softmax: p_i = exp(s_i) / Σ_j exp(s_j)
#
# ∂p_i/∂s_j = p_i (1[i = j] − p_j), hence ds_j = p_j (dp_j − Σ_i dp_i p_i).
# Subtracting the largest score changes nothing and keeps exp within range.

@njit(cache=True)
def softmax_forward(s):
    """s (n,) -> p (n,), n ≥ 1."""
    p = np.empty_like(s)
    largest = s[0].real
    for i in range(1, s.shape[0]):
        largest = max(largest, s[i].real)
    total = s[0] * 0
    for i in range(s.shape[0]):
        p[i] = np.exp(s[i] - largest)
        total += p[i]
    for i in range(s.shape[0]):
        p[i] /= total
    return p


@njit(cache=True)
def softmax_backward(p, dp):
    """p, dp (n,) -> ds (n,)."""
    mean = p[0] * 0
    for i in range(p.shape[0]):
        mean += dp[i] * p[i]
    ds = np.empty_like(p)
    for i in range(p.shape[0]):
        ds[i] = p[i] * (dp[i] - mean)
    return ds


# causal_softmax: A_t· = softmax of S_t0 … S_tt, one row at a time

@njit(cache=True)
def causal_softmax_forward(S):
    """S (T, T) -> A (T, T), rows summing to 1, zero above the diagonal."""
    A = np.zeros_like(S)
    for t in range(S.shape[0]):
        A[t, :t + 1] = softmax_forward(S[t, :t + 1])
    return A


@njit(cache=True)
def causal_softmax_backward(A, dA):
    """A, dA (T, T) -> dS (T, T), zero above the diagonal."""
    dS = np.zeros_like(A)
    for t in range(A.shape[0]):
        dS[t, :t + 1] = softmax_backward(A[t, :t + 1], dA[t, :t + 1])
    return dS


# cross_entropy over the slot start ≤ u < stop of the vocabulary, with k the largest logit there:
# loss_t = log Σ_u exp(logits_tu) − logits_{t,target}
#        = log(1 + Σ_{u≠k} exp(logits_tu − logits_tk)) + (logits_tk − logits_{t,target})
#
# dlogits_tu = dloss_t (p_tu − 1[u = target]), p_t = softmax over the slot; zero outside it.
# At the target that is −dloss_t Σ_{u≠target} p_tu. Neither form subtracts from 1 what is nearly 1, so
# that a confident prediction keeps its digits. A row with dloss_t = 0 is not in the loss: it is skipped.

@njit(cache=True)
def cross_entropy_forward(logits, target, start, stop):
    """logits (T, V), target (T,) within the slot -> loss (T,), in nats."""
    loss = np.empty(logits.shape[0], logits.dtype)
    for t in range(logits.shape[0]):
        k = start
        for u in range(start + 1, stop):
            if logits[t, u].real > logits[t, k].real:
                k = u
        others = logits[t, k] * 0
        for u in range(start, stop):
            if u != k:
                others += np.exp(logits[t, u] - logits[t, k])
        loss[t] = np.log1p(others) + (logits[t, k] - logits[t, target[t]])
    return loss


@njit(cache=True)
def cross_entropy_backward(logits, target, start, stop, dloss):
    """logits (T, V), target (T,), dloss (T,) -> dlogits (T, V)."""
    dlogits = np.zeros_like(logits)
    for t in range(logits.shape[0]):
        if not dloss[t] == 0:
            p = softmax_forward(logits[t, start:stop])
            for u in range(start, stop):
                if u != target[t]:
                    dlogits[t, u] = dloss[t] * p[u - start]
                    dlogits[t, target[t]] -= dloss[t] * p[u - start]
    return dlogits


# square: h_i = x_i²,  dx_i = 2 x_i dh_i

@njit(cache=True)
def square_forward(x):
    """x (m,) -> h (m,)."""
    h = np.empty_like(x)
    for i in range(x.shape[0]):
        h[i] = x[i] * x[i]
    return h


@njit(cache=True)
def square_backward(x, dh):
    """x, dh (m,) -> dx (m,)."""
    dx = np.empty_like(x)
    for i in range(x.shape[0]):
        dx[i] = 2 * x[i] * dh[i]
    return dx


# relu: h_i = max(x_i, 0),  dx_i = 1[x_i > 0] dh_i: the derivative at exactly 0 is taken as 0
#
# NaN is neither > 0 nor ≤ 0, and stays NaN. Nor is a ball that contains 0: it encloses its own maximum
# with 0, and its derivative is unknown, NaN.

@njit(cache=True)
def relu_forward(x):
    """x (m,) -> h (m,)."""
    h = np.zeros_like(x)
    for i in range(x.shape[0]):
        if not x[i].real <= 0:
            h[i] = x[i]
    return h


@njit(cache=True)
def relu_backward(x, dh):
    """x, dh (m,) -> dx (m,)."""
    dx = np.zeros_like(x)
    for i in range(x.shape[0]):
        if x[i] > 0:
            dx[i] = dh[i]
        elif not x[i] <= 0:
            dx[i] = np.nan
    return dx
