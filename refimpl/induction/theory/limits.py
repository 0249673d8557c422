"""The hard previous-token limit, and who wins in it: context or bigram (claims I4 and I5).

Imports only `check` of the project. Everything is counted from the tokens z_0 … z_{T−1}, which end with the
trigger q; strengths b1, b2, bo; the frame and the memories are those of `logits`.
"""

from typing import NamedTuple

import numpy as np

from refimpl import check
from refimpl.check import Kind, number, numbers, takes, whole, wholes


@takes(V=whole(1), tokens=wholes("T", high="V"), b2=Kind(check.real_or_infinite, None, dict(low=0)))
def hard_mass(tokens, V, b2):
    """In-context mass of every token for a hard previous-token head (claim I4; exact limit; formalised).

    Statement. Let q = z_t be a trigger at the last position t, b1 → ∞. With
    C_u = #{1 ≤ s ≤ t: z_{s−1} = q, z_s = u} + 1[z_0 = q] 1[u = q], C = Σ_u C_u and n_u the count of u:

        p_u = (e^b2 C_u + n_u − C_u) / (e^b2 C + (t+1) − C).

    With b2 → ∞ too, p_u = C_u / C if C > 0, else n_u / (t+1).

    Derivation. For b1 → ∞, m_s(q) → 1[z_{s−1} = q] for s ≥ 1, while m_0(q) = 1[z_0 = q]: position 0 has
    itself as its only key. A trigger there matches itself: the last term of C_u. The softmax has C terms e^b2
    and t+1−C terms 1. Remainder at finite b1: `hard_remainder`.

    tokens (T,) in 0..V−1, 0 ≤ b2 ≤ ∞. Returns (V,). Raises ValueError. Source: WS24 (hard attention).
    """
    z, q, T = tokens, tokens[-1], len(tokens)
    count = np.bincount(z, minlength=V).astype(float)
    matches = np.bincount(z[1:][z[:-1] == q], minlength=V).astype(float)
    if z[0] == q:
        matches[q] += 1
    C = matches.sum()
    # Divided by e^b2, so that b2 = ∞ is met by the same line.
    rest = np.exp(-b2)
    if C == 0 and rest == 0:
        return count / T
    return (matches + rest * (count - matches)) / (C + rest * (T - C))


@takes(C=numbers(low=0), C_u=numbers(low=0), C_w=numbers(low=0), n_u=numbers(low=0), n_w=numbers(low=0),
       T=numbers(low=1), gap=numbers(), b2=numbers(high=700), bo=numbers())
def hijack_margin(C, C_u, C_w, n_u, n_w, T, gap, b2, bo):
    """By how many nats the context puts u above w (claim I5; exact as b1 → ∞; formalised).

    Statement. The prompt has T tokens and ends with the trigger q. C of them follow a q, a q at the very
    beginning being one of these (see `hard_mass`); C_u of these are u, C_w are w. In all, n_u tokens are u
    and n_w are w. The bigram prefers w by gap = Δ = log(pi_b[q, w] / pi_b[q, u]). Then, as b1 → ∞,

        logit[u] − logit[w] = bo (e^b2 (C_u − C_w) + (n_u − C_u) − (n_w − C_w)) / (e^b2 C + T − C) − Δ.


    Derivation. By I3 the difference is bo (p_u − p_w) − Δ. Insert p_u and p_w of I4. At finite b1, p_u − p_w
    moves by at most twice the total variation of `hard_remainder`, the difference by at most 2 bo tanh(η/2):
    outside this band its sign is certain.

    Parameters broadcast: C_u + C_w ≤ C ≤ T, C_u ≤ n_u, C_w ≤ n_w, n_u + n_w ≤ T, b2 ≤ 700. Returns nats.
    Raises ValueError on others. Source: WS24 (knowledge hijack).
    """
    check.broadcast(C=C.shape, C_u=C_u.shape, C_w=C_w.shape, n_u=n_u.shape, n_w=n_w.shape, T=T.shape,
                    gap=gap.shape, b2=b2.shape, bo=bo.shape)
    if not ((C_u + C_w <= C).all() and (C <= T).all() and (C_u <= n_u).all() and (C_w <= n_w).all()
            and (n_u + n_w <= T).all()):
        raise ValueError("C, C_u, C_w, n_u, n_w, T: expected C_u + C_w <= C <= T, C_u <= n_u, C_w <= n_w "
                         f"and n_u + n_w <= T, got {C}, {C_u}, {C_w}, {n_u}, {n_w}, {T}")
    match = np.exp(b2)
    return bo * (match * (C_u - C_w) + (n_u - C_u) - (n_w - C_w)) / (match * C + T - C) - gap


@takes(T=whole(1), b1=number(high=700), b2=number(low=0))
def hard_remainder(T, b1, b2):
    """How far a finite b1 is from the hard limit (claim I4b; exact inequality; derived).

    Statement. With t = T − 1 and η = b2 t / (e^b1 + t), the total variation ½ Σ_u |p_u − p_u'| between the
    in-context masses of I3 at b1 and those of `hard_mass` is at most tanh(η/2). Against C_u / C, b2 = ∞ in
    `hard_mass`, it is at most tanh(η/2) + (T − C) / (e^b2 C + T − C).

    So the limits are iterated: first b1 → ∞, so that b2 T e^−b1 → 0, then b2 → ∞. In the other order, b2 → ∞
    at fixed b1, all mass goes to the match with the largest m_s(q). That is the first match if no two q are
    adjacent and it is at some s ≤ e^b1: then its m_s(q) ≥ ½, and from one match to the next n_q(s) grows by 1
    and s by 2 or more.

    Derivation. For s ≥ 1, m_s(q) − 1[z_{s−1} = q] lies in [−s/(e^b1 + s), 0] at a match and in
    [0, s/(e^b1 + s)] elsewhere, while m_0(q) is exact. So the scores b2 m_s(q) move by at most η, those of
    matches down and the others up. The odds of any set of positions, the ratio of its mass to that of all
    others, then change by a factor of at most e^2η. Write the mass of the set as 1/(1 + e^−y): y moves by at
    most 2η, and the mass by at most 1/(1 + e^−η) − 1/(1 + e^η) = tanh(η/2). The total variation is the
    largest such change over all sets. The second term is the share of `hard_mass` that is not on matches.

    T ≥ 1, b1 ≤ 700, 0 ≤ b2 finite. Returns tanh(η/2). Raises ValueError.
    """
    t = T - 1
    return np.tanh(b2 * t / (np.exp(b1) + t) / 2)


class Hijack(NamedTuple):
    """The boundary between context and global knowledge, read in both directions."""

    context_wins: np.ndarray        # bool: repetitions k at length T are enough
    critical_length: np.ndarray     # T*: the context wins at every T < T*
    critical_repetitions: np.ndarray  # k*: the context wins at every k > k*


@takes(repetitions=numbers(low=0), length=numbers(low=1), gap=numbers(), b2=numbers(high=700),
       bo=numbers(), continuations=numbers(low=0)._replace(optional=True))
def hijack(repetitions, length, gap, b2, bo, continuations=None):
    """When does the context win, and when is it hijacked (claim I5; exact as b1 → ∞; formalised).

    Statement. The prompt has T tokens and ends with the trigger q. q is followed C times, k times of these by
    u; u stands nowhere else, and w nowhere. With gap = Δ = log(pi_b[q, w] / pi_b[q, u]) > 0, u wins iff

        T < T* = C + e^b2 (k bo/Δ − C),   or, the same boundary,   k > k* = (Δ/bo) (C + e^−b2 (T − C)).

    If q is always followed by u, C = k moves with k, and k* = T / (1 + e^b2 (bo/Δ − 1)). If k/C ≤ Δ/bo the
    global knowledge wins at every length (T* ≤ C < T).

    Which prompts exist. If another token comes first and c of the C continuations are q itself, the prompt
    holds the first token, C + 1 times q and C − c other continuations: T ≥ 2C − c + 2, with c ≤ C − k. If q
    comes first it counts among the C and the c, and T ≥ 2C − c. So T ≥ C + k, and T ≥ 2k + 2 if C = k.

    Derivation. `hijack_margin` with C_w = n_w = 0 and C_u = n_u = k is positive iff
    bo e^b2 k > Δ (e^b2 C + T − C). Collect T, or k.

    Parameters broadcast: repetitions k ≥ 0, length T, gap Δ > 0 and bo > 0 in nats, b2 ≤ 700, continuations C
    ≥ k, None for C = k. k* = ∞ where no number of repetitions is enough. Raises ValueError on others, and on
    a k and T that no prompt has. Source: WS24 (knowledge hijack).
    """
    C = repetitions if continuations is None else continuations
    check.broadcast(repetitions=repetitions.shape, length=length.shape, gap=gap.shape, b2=b2.shape,
                    bo=bo.shape, continuations=C.shape)
    if not (gap > 0).all() or not (bo > 0).all():
        raise ValueError("gap and bo: expected positive numbers; with gap <= 0 the context has won")
    k, T, gap, b2, bo, C = np.broadcast_arrays(repetitions, length, gap, b2, bo, C)
    if (C < k).any() or (T < C + k + 2 * (C == k)).any():
        raise ValueError("repetitions, length, continuations: expected k, T and C of a prompt, C >= k and "
                         f"T >= C + k, T >= 2k + 2 if C = k, got {repetitions}, {length}, {continuations}")
    T_star = C + np.exp(b2) * (k * bo / gap - C)
    if continuations is not None:
        return Hijack(T < T_star, T_star, gap / bo * (C + np.exp(-b2) * (T - C)))
    tokens_per_repetition = 1 + np.exp(b2) * (bo / gap - 1)
    with np.errstate(divide="ignore"):
        k_star = np.where(tokens_per_repetition > 0, T / tokens_per_repetition, np.inf)
    return Hijack(T < T_star, T_star, k_star)
