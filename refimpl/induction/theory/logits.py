"""Closed forms of system I (claims I1–I3, I11), counted from the tokens. Imports only `check` of the project.

A formula that called the code it must check would be no oracle; checks of arguments hold no formula.
Notation: tokens z_0 … z_{T−1}, query position t, key position s, trigger q, strengths b1, b2, bo; all
statements hold in an orthonormal frame, with the memories of `construct` in it.
"""

from typing import NamedTuple

import numpy as np

from refimpl import check
from refimpl.check import Kind, number, takes, whole, wholes

# What several formulas take; log pi_b may hold −∞, which stands for the logarithm of 0.
POSITIONS = dict(encoding=Kind(check.choice, None, dict(allowed=("relative", "absolute"))),
                 train_length=whole(1, optional=True))
PROMPT = dict(log_pi_b=Kind(check.logarithms, ("V", "V")), tokens=wholes("T", high="V"),
              triggers=wholes("K", high="V"))


def softmax(scores):
    """e^scores / Σ e^scores over the last axis, for any numbers that NumPy can hold."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def one_key(b1, others):
    """e^b1 / (e^b1 + others) and 1 / (e^b1 + others), without forming e^b1, which may not fit."""
    key, other = np.exp(min(b1, 0)), np.exp(-max(b1, 0))
    return key / (key + others * other), other / (key + others * other)


def lower(rows):
    """Rows of 1, 2, … T numbers as the lower triangle of (T, T), zero above the diagonal."""
    return np.array([np.append(row, np.zeros(len(rows) - len(row))) for row in rows])


@takes(T=whole(1), b1=number(), **POSITIONS)
def previous_token_attention(T, b1, encoding="relative", train_length=None):
    """Attention of layer 1 (claims I1 and I2; exact; formalised).

    Statement. Relative positions, for t ≥ 1 and any length:

        A1[t, t−1] = e^b1 / (e^b1 + t),   A1[t, s] = 1 / (e^b1 + t) for the other s ≤ t.

    Absolute positions: the same for t < L0 = train_length; for t ≥ L0, A1[t, s] = 1 / (t + 1).

    Derivation. Relative: S1_ts = E[z_t]·WK1 (E[z_s] + pos[t−s]) with WK1 = b1 Σ_v E[v] pos[1]ᵀ. In
    the frame pos[1]·E[z_s] = 0 and pos[1]·pos[t−s] = 1[t−s = 1], while Σ_v E[z_t]·E[v] = 1: hence
    S1_ts = b1 1[s = t−1]. Absolute: x0_t = E[z_t] + pos[t] meets WK1 = b1 Σ_{1≤r<L0} pos[r] pos[r−1]ᵀ,
    so S1_ts = b1 1[1 ≤ t < L0] 1[s = t−1]: nothing was stored beyond L0. The softmax over the t+1
    keys then has one term e^b1 and t terms 1, or t+1 equal ones.

    T ≥ 1; b1 finite; train_length ≥ 1 or None, absolute only. Returns (T, T). Raises ValueError. Source:
    BCBJB23, WS24.
    """
    L0, rows = memory_length(T, encoding, train_length), []
    for t in range(T):
        previous, other = one_key(b1 if 0 < t < L0 else 0 * b1, t)
        rows.append(np.array([previous if s == t - 1 else other for s in range(t + 1)]))
    return lower(rows)


def memory_length(T, encoding, train_length):
    """Up to which position the previous-token memory reaches: T if relative, else min(T, L0)."""
    if encoding == "relative":
        if train_length is not None:
            raise ValueError("train_length: expected None with relative positions")
        return T
    return T if train_length is None else min(T, train_length)


def match(z, q, b1, L0):
    """m_s(q) of `in_context_mass`, (T,): the weight that position s gives to copies of q in layer 1."""
    s, is_q = np.arange(len(z)), (z == q).astype(float)
    count, previous = np.cumsum(is_q), np.concatenate([[0.0], is_q[:-1]])
    marked, other = one_key(b1, s)
    equal = one_key(0 * b1, s)[1]       # 1 / (s + 1), as with strength 0: nothing is stored
    return np.where((s == 0) | (s >= L0), count * equal, (count - previous) * other + previous * marked)


def attention(z, triggers, b1, b2, L0):
    """A2 of `in_context_mass`, (T, T)."""
    Q = {*triggers.tolist()}
    scores = {v: (b2 if v in Q else 0 * b2) * match(z, v, b1, L0) for v in {*z.tolist()}}
    return lower([softmax(scores[v][:t + 1]) for t, v in enumerate(z.tolist())])


@takes(z=wholes("T"), triggers=wholes("K"), b1=number(), b2=number(), **POSITIONS)
def in_context_mass(z, triggers, b1, b2, encoding="relative", train_length=None):
    """Σ_s A2[t, s] 1[z_s = u]: the weight of token u in layer 2 (first half of I3; exact; formalised).

    Statement. With n_q(s) = #{j ≤ s: z_j = q}, m_0(q) = 1[z_0 = q], and for 1 ≤ s (< L0 if absolute)

        m_s(q) = (n_q(s) + (e^b1 − 1) 1[z_{s−1} = q]) / (e^b1 + s),

    and m_s(q) = n_q(s) / (s + 1) for s ≥ L0. Then A2[t, ·] = softmax_{s≤t}(b2 1[z_t ∈ Q] m_s(z_t)).

    Derivation. x1_s = E[z_s] + Phi Σ_r A1_sr E[z_r], and WK2 = b2 Σ_q E[q] (Phi E[q])ᵀ. In the frame
    E[q]·x1_t = 1[z_t = q] and (Phi E[q])·x1_s = Σ_r A1_sr 1[z_r = q], which is m_s(q) by I1 and I2.

    z (T,) and triggers (K,) integers ≥ 0, K ≥ 1; b1, b2 finite. Returns (attention (T, T),
    mass (T, max token + 1)). Raises ValueError.
    """
    A2 = attention(z, triggers, b1, b2, memory_length(len(z), encoding, train_length))
    return A2, A2 @ np.eye(z.max() + 1)[z]


@takes(**PROMPT, b1=number(), b2=number(), bo=number(), **POSITIONS)
def logits(tokens, log_pi_b, triggers, b1, b2, bo, encoding="relative", train_length=None):
    """Logits of the constructed model on any prompt (claims I2 and I3; exact; formalised).

    Statement.

        logits_t[u] = log pi_b[z_t, u] + bo Σ_{s≤t} A2[t, s] 1[z_s = u]

    with A2 as in `in_context_mass`.

    Derivation. x2_t = E[z_t] + (part in E Phiᵀ) + WO WV Σ_s A2_ts x1_s, with WO = bo Σ_v U[v](WV E[v])ᵀ.
    WV is orthogonal, so (WV E[v])·(WV x1_s) = E[v]·x1_s = 1[z_s = v], and the last term is
    bo Σ_s A2_ts U[z_s]. WF reads the E part alone: WF x2_t = Σ_u log pi_b[z_t, u] U[u] (the parts in
    U and E Phiᵀ are orthogonal to every E[v]). U[u]· picks the two sums.

    Parameters: tokens (T,) in 0..V−1; log_pi_b (V, V), where −∞ makes a logit −∞ whatever the context says;
    triggers (K,), K ≥ 1; b1, b2, bo finite; encoding and train_length as in `previous_token_attention`.
    Returns (T, V). Raises ValueError. Source: WS24 (on designed prompts).
    """
    A2 = attention(tokens, triggers, b1, b2, memory_length(len(tokens), encoding, train_length))
    return log_pi_b[tokens] + bo * (A2 @ np.eye(len(log_pi_b))[tokens])


class WithoutPositions(NamedTuple):
    """Three attention maps (T, T), zero above the diagonal, and the logits (T, V)."""

    attention1: np.ndarray
    attention2: np.ndarray
    attention3: np.ndarray
    logits: np.ndarray


@takes(**PROMPT, b1=number(), beta=number(), gamma=number(), b3=number(), bo=number())
def without_positions(tokens, log_pi_b, triggers, b1, beta, gamma, b3, bo):
    """Three layers that find the previous token without position vectors (claim I11; exact; derived).

    Statement. If z_0 = κ occurs nowhere else, then with c = e^b1 and m_s(q) = Σ_r A2[s, r] 1[z_r = q]

        A1[t, 0] = c / (c + t),   A1[t, s] = 1 / (c + t) for 1 ≤ s ≤ t,
        A2[t, ·] = softmax_{s≤t}(−γ 1[z_s = z_t] − β c/(c + s)),
        A3[t, ·] = softmax_{s≤t}(b3 1[z_t ∈ Q] m_s(z_t)),
        logits_t[u] = log pi_b[z_t, u] + bo Σ_{s≤t} A3[t, s] 1[z_s = u].

    Assumptions: the rows of E, E Phi1ᵀ, E Phi2ᵀ, E Phi1ᵀ Phi2ᵀ, U are one orthonormal set, WV is
    orthogonal, the memories are those of `nopos.construct`.

    Derivation. 1 = Σ_v E[v] meets every E[z_t] with 1. Layer 1: S1_ts = b1 1[z_s = κ] = b1 1[s = 0], one key
    of e^b1 among t of 1. So Phi1 E[κ] meets x1_s with A1[s, 0] = c/(c + s), which falls with s: a clock.
    Layer 2: E[v] and 1 meet x1_t in its part E[z_t] alone, so S2_ts = −γ 1[z_s = z_t] − β c/(c + s): late
    keys are preferred, its own token is pushed away. Layer 3 reads at Phi2 E[q] what layer 2 has brought from
    the E part of x1: m_s(q); the rest is as in `logits`. `sharp_bounds` says where it is sharp.

    Parameters: tokens (T,) in 0..V−1, T ≥ 1, the first of which is κ; log_pi_b (V, V), may hold −∞; triggers
    (K,) token ids, K ≥ 1; b1, beta, gamma, b3, bo finite. Returns WithoutPositions. Raises ValueError on
    others. Source: this project; WS24 v2 mentions such layers.
    """
    z = tokens
    if (z[1:] == z[0]).any():
        raise ValueError(f"tokens: expected the marker z_0 = {z[0]} nowhere else, got {tokens!r}")
    T = len(z)
    s = np.arange(T)
    clock, other = one_key(b1, s)
    A1 = np.tril(other[:, None] * np.ones(T))
    A1[:, 0] = clock
    same = (z[:, None] == z).astype(float)
    A2 = causal_softmax(-gamma * same - beta * clock)
    matches = A2 @ same                 # [s, t]: Σ_r A2[s, r] 1[z_r = z_t]
    A3 = causal_softmax(b3 * np.isin(z, triggers)[:, None] * matches.T)
    return WithoutPositions(A1, A2, A3, log_pi_b[z] + bo * A3 @ np.eye(len(log_pi_b))[z])


def causal_softmax(scores):
    """softmax over s ≤ t of each row t of (T, T)."""
    return lower([softmax(row[:t + 1]) for t, row in enumerate(scores)])


@takes(T=whole(2))
def sharp_strengths(T):
    """b1, beta, gamma of a sharp previous-token head up to T ≥ 2 tokens: see `sharp_bounds`."""
    beta = 8 * T * np.log(T)
    return np.log(T), beta, 2 * beta / T


@takes(T=whole(2))
def sharp_bounds(T):
    """How sharp the head of `without_positions` is, and where it is blind (claim I11b; exact; derived).

    Statement. Let c = T, β = 8 T log T, γ = 2β/c (`sharp_strengths`) and 1 ≤ t < T. Then

        A2[t, t−1] ≥ 1 / (1 + 1/(T² − 1) + T^−8)    if z_{t−1} ≠ z_t,
        A2[t, t−1] ≤ 1 / (1 + T²)                   if z_{t−1} = z_t.

    Derivation. By I11, going one key back from s lowers the score by β c/((c + s)(c + s − 1)), which is at
    least β c/(4T²) = 2 log T. If z_{t−1} ≠ z_t, the key t−1 is not pushed away, and the keys before it weigh
    at most T^−2 + T^−4 + … = 1/(T² − 1) times as much. The key t gains at most β/c and loses γ: it weighs at
    most e^(−β/c) = T^−8. If z_{t−1} = z_t, both are pushed away equally, and t weighs at least T² times t−1.

    Blind spot. An immediate repetition is pushed away with the token itself. If the last s with z_s ≠ z_t has
    t − s < 2 (c + s)(c + t)/c², which lies between 2 and 8, A2[t, ·] looks there; further into a run it
    looks at t itself. So in "q q" the second q is not seen to follow a q: an output o_q = q is not found.

    T ≥ 2. Returns (lower, upper). Raises ValueError.
    """
    T = float(T)    # T^8 is no int64
    return 1 / (1 + 1 / (T ** 2 - 1) + T ** -8), 1 / (1 + T ** 2)
