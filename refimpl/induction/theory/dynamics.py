"""The first three gradient steps as Markov moments (claims I7, I7b–I7d). Imports only `check`.

One trigger q. Its output o is drawn once per sequence from pi_o (V,), z_0 ~ pi_u, z_{t+1} = o after q and
z_{t+1} ~ pi_b[z_t] after any other token: given o, a Markov chain with the transition matrix P_o, which is
pi_b with e_o as row q. The loss L is that of predicting o at the last position, averaged over the sequences
of T tokens with z_{T−1} = q, in the orthonormal frame with relative positions. WK1, WK2, WO and WF start at
zero. Given z_{T−1} = q, o has its posterior law, not pi_o: E is over sequence and label under this condition.

Every query t averages its t+1 keys at the start: c_s[j] = Σ_r ω_sr 1[z_r = j], ω_sr = 1[r ≤ s]/(s+1).
"""

from typing import NamedTuple

import numpy as np

from refimpl import check
from refimpl.check import Kind, fit, takes, whole


def joint(name, J):
    """J (V, T, T, V, V) as `pair_moments` returns it."""
    J = check.floats(name, J, (None,) * 5, np.float64)
    if J.size == 0:
        raise ValueError(f"{name}: expected at least one entry, got shape {J.shape}")
    fit(name, J.shape, ("V", "T", "T", "V", "V"), {})
    sums = J.sum(axis=(0, 3, 4))
    if J.min() < 0 or abs(sums - 1).max() > check.ROUNDING:
        raise ValueError(f"{name}: expected probabilities >= 0 that sum to 1 at each [:, r, s], got sums "
                         f"{sums.min()}..{sums.max()}, minimum {J.min()}")
    return J


def table(name, values):
    """A table [k, j] (V, V) whose columns sum to zero over k."""
    values = check.floats(name, values, (None, None), np.float64)
    if abs(values.sum(axis=0)).max(initial=0) > check.ROUNDING * abs(values).max(initial=0):
        raise ValueError(f"{name}: expected columns that sum to zero, got {values.sum(axis=0)}")
    return values


LAW = Kind(check.law, ("V",), dict(ndim=1))
JOINT = Kind(joint, ("V", "T", "T", "V", "V"))
TABLE = Kind(table, ("V", "V"))
ENCODING = Kind(check.choice, None, dict(allowed=("relative", "absolute")))
VECTOR = Kind(check.floats, ("V",), dict(shape=(None,), dtype=np.float64))


@takes(pi_b=Kind(check.law, ("V", "V"), dict(ndim=2)), pi_u=LAW, pi_o=LAW, q=whole(0, "V"), T=whole(1))
def pair_moments(pi_u, pi_b, pi_o, q, T):
    """J[o, r, s, i, j] = P(o, z_r = i, z_s = j | z_{T−1} = q): all that the three steps need to know.

    Statement. With α^t = pi_u P_o^t (V,), for r ≤ s,

        P(z_r = i, z_s = j, z_{T−1} = q | o) = α^r_i (P_o^{s−r})_ij (P_o^{T−1−s})_jq,

    J symmetric under (r, i) ↔ (s, j), and J = pi_o[o] P(… | o) / Σ_o' pi_o[o'] α^{T−1}_q (of o').

    Derivation (exact; derived). The Markov property splits the path at r and s, and each piece sums to a
    power of P_o. Bayes' rule gives the factor in front: o is more probable where it leads back to q.

    Parameters: pi_u, pi_o (V,); pi_b (V, V); q in 0..V−1; T ≥ 1. Returns (V, T, T, V, V), each [:, r, s]
    summing to 1. Raises ValueError on others, and if z_{T−1} = q has probability zero.
    """
    V = len(pi_b)
    J = np.zeros((V, T, T, V, V))
    for o in range(V):
        P_o = pi_b.copy()
        P_o[q] = np.arange(V) == o
        power = [np.linalg.matrix_power(P_o, n) for n in range(T)]
        for s in range(T):
            for r in range(s + 1):
                joint = (pi_u @ power[r])[:, None] * power[s - r] * power[T - 1 - s][:, q]
                J[o, r, s] = pi_o[o] * joint
                J[o, s, r] = pi_o[o] * joint.T
    probability = J[:, 0, 0].sum()
    if not probability > 0:
        raise ValueError(f"q: z_{T - 1} = {q} has probability zero, there is nothing to condition on")
    return J / probability


def averaging(T):
    """ω (T, T), ω_sr = 1[r ≤ s]/(s+1): attention at the start."""
    return np.tril(np.ones((T, T))) / np.arange(1, T + 1)[:, None]


def centring(T):
    """R (T, T) = I − 1/T: it subtracts the mean over positions, as a uniform softmax's derivative does."""
    return np.eye(T) - 1 / T


class FirstGradient(NamedTuple):
    """Minus the first gradient in memory coordinates: U[k]·(−∂L/∂W) times a stored direction j."""

    WO: np.ndarray          # (V, V) [k, j], on WV E[j]
    WO_mixed: np.ndarray    # (V, V) [k, j], on WV Phi E[j]
    WF: np.ndarray          # (V, V) [k, j], on E[j]
    WF_mixed: np.ndarray    # (V, V) [k, j], on Phi E[j]


@takes(J=JOINT)
def first_gradient(J):
    """What the first gradient of WO and WF stores (claim I7; exact; derived).

    Statement. With y_k = 1[o = k] − 1/V and w_s = (1/T) Σ_{r≥s} 1/(r+1):

        A[k, j]  = ⟨U[k], −∂L/∂WO WV E[j]⟩     = E[y_k (1/T) Σ_s 1[z_s = j]]
        B[k, j]  = ⟨U[k], −∂L/∂WO WV Phi E[j]⟩ = E[y_k Σ_s w_s 1[z_s = j]]
                   ⟨U[k], −∂L/∂WF E[j]⟩        = E[y_k] 1[j = q]
                   ⟨U[k], −∂L/∂WF Phi E[j]⟩    = E[y_k (1/T) Σ_s 1[z_s = j]] = A[k, j].

    Derivation. All scores are zero, so attention is uniform and x1_s = E[z_s] + Phi Σ_r ω_sr E[z_r]. With WO
    = WF = 0 the logits are U x1_{T−1} = 0, since U is orthogonal to E and E Phiᵀ: the softmax is 1/V, and
    −∂ℓ/∂logits_k = y_k. Backwards, −∂ℓ/∂x2 = Σ_k y_k U[k], hence −∂ℓ/∂WO = Σ_k y_k U[k] (WV h2)ᵀ with h2 =
    (1/T) Σ_s x1_s, and −∂ℓ/∂WF = Σ_k y_k U[k] x1_{T−1}ᵀ. Now read: WV is orthogonal, E[j]·h2 = (1/T) Σ_s
    1[z_s = j] and (Phi E[j])·h2 = (1/T) Σ_r Σ_s ω_rs 1[z_s = j] = Σ_s w_s 1[z_s = j]; E[j]·x1_{T−1} = 1[j =
    q] and (Phi E[j])·x1_{T−1} = (1/T) Σ_s 1[z_s = j]. Take E. Columns sum to zero over k, as y does.

    J as from `pair_moments`, or ValueError. Returns FirstGradient. Source: BCBJB23 (at leading order in V).
    """
    V, T = J.shape[:2]
    single = np.einsum("ossij->osj", J)                     # P(o, z_s = j | z_{T−1} = q)
    posterior = single[:, -1].sum(axis=1)                   # P(o | z_{T−1} = q)
    y = np.eye(V) - 1 / V                                   # [o, k]
    A = y.T @ single.mean(axis=1)
    B = y.T @ np.einsum("s,osj->oj", averaging(T).mean(axis=0), single)
    is_q = single[:, -1].sum(axis=0)                        # 1[j = q], as z_{T−1} = q
    return FirstGradient(A, B, np.outer(y.T @ posterior, is_q), A)


class SecondGradient(NamedTuple):
    """⟨E[q], −∂L/∂WK2 ·⟩ per unit of the step before it."""

    WK2: np.ndarray         # (V,) on E[j]
    WK2_mixed: np.ndarray   # (V,) on Phi E[j]: the memory of the induction head, largest at j = q


@takes(J=JOINT, A=TABLE, B=TABLE)
def second_gradient(J, A, B):
    """What WK2 learns after a step of WO (claim I7b; leading order in the step; derived).

    Statement. After WO = η Σ_kj U[k] (A[k, j] WV E[j] + B[k, j] WV Phi E[j])ᵀ, all else at zero,

        ⟨E[q], −∂L/∂WK2 Phi E[j]⟩ = η (1/T) Σ_s E[(γ_s − mean γ) c_s[j]] + O(η²),
        γ_s = A[o, z_s] + Σ_i B[o, i] c_s[i],

    and the same on E[j] with 1[z_s = j] in place of c_s[j]. Columns of A and B sum to zero over k. With those
    of `first_gradient`, WO is a step of gradient descent; with B = 0, that step projected on WV E.

    Derivation. Attention is still uniform. If y_k = 1[o = k] − p_k with p the softmax of the logits, a
    unit of attention on s is worth g_s = Σ_k y_k U[k]·WO WV x1_s = η Σ_k y_k (A[k, z_s] + Σ_i B[k, i]
    c_s[i]). The logits are O(η), so p = 1/V + O(η); and since the columns sum to zero,
    Σ_k (1[o = k] − 1/V) A[k, ·] = A[o, ·]: g_s = η γ_s + O(η²). The softmax over s turns this into
    −∂ℓ/∂S2_{T−1,s} = (g_s − mean g)/T, and −∂ℓ/∂WK2 = Σ_s −∂ℓ/∂S2_{T−1,s} x1_{T−1} x1_sᵀ, where
    E[q]·x1_{T−1} = 1 and (Phi E[j])·x1_s = c_s[j]. In matrices, with the centring R = I − 1/T,
    Σ_s (γ_s − mean γ) c_s[j] = Σ_{r,s,i} (A[o, i] (R ω)_rs + B[o, i] (ωᵀR ω)_rs) 1[z_r = i] 1[z_s = j],
    whose expectation is in J. The rows Phi E[i] of WK2 are left out: they need moments of three tokens.

    Returns SecondGradient, per unit of η. Raises ValueError on other J, A, B. Source: BCBJB23 (second step).
    """
    _, T = J.shape[:2]
    R, omega = centring(T), averaging(T)
    by_A, by_B = np.einsum("oi,orsij->rsj", A, J), np.einsum("oi,orsij->rsj", B, J)

    def column(key):
        return (np.einsum("rs,rsj->j", R @ key, by_A) + np.einsum("rs,rsj->j", omega.T @ R @ key, by_B)) / T
    return SecondGradient(column(np.eye(T)), column(omega))


@takes(J=JOINT, B=TABLE, encoding=ENCODING)
def third_gradient_by_values(J, B, encoding="relative"):
    """What WK1 learns first, straight through the values (claims I7c and I7d; leading order; derived).

    Statement. After full gradient steps of size η, first of WO, then of WK2, for δ = 0 … T−1,

        F[δ] = ⟨Σ_v E[v], −∂L/∂WK1 pos[δ]⟩
             = η (1/T) Σ_{t≥δ} 1/(t+1) E[B[o, z_{t−δ}] − Σ_r ω_tr B[o, z_r]] + O(η²).

    Neither A nor WK2 is in it: WK2 = O(η²) enters at η³ only, see `third_gradient_by_keys`.

    Derivation. As Σ_v E[v]·x0_t = 1 and pos[δ] meets the key t−δ alone, F[δ] = Σ_{t≥δ} −∂ℓ/∂S1_{t,t−δ}.
    Layer 1 acts through c_t. WO reads c_t at Phi E[j]: −∂ℓ/∂c_t[j] = A2_t Σ_k y_k η B[k, j] =
    (η/T) B[o, j] + O(η²), as in `second_gradient`, with A2 = 1/T + O(η²). The derivative of the uniform
    softmax is −∂ℓ/∂S1_ts = (1/(t+1)) Σ_j (−∂ℓ/∂c_t[j]) (1[z_s = j] − c_t[j]).

    Absolute positions: x0_s = E[z_s] + pos[s], and the first step of WO also stores E[y_k] w_s on
    WV Phi pos[s], by the derivation of B with a token that stands at s alone. With P the law of o given
    z_{T−1} = q, so that E y_o = P(o) − 1/V, and g_s = E B[o, z_s] + w_s Σ_o P(o) (P(o) − 1/V), for s ≤ t,

        ⟨pos[t], −∂L/∂WK1 pos[s]⟩ = η (1/T) 1/(t+1) (g_s − Σ_r ω_tr g_r) + O(η²).

    Returns (T,), or (T, T) if absolute, per unit of η. Raises ValueError on other J, B. Source: this project;
    in BCBJB23 WO holds the memory of E alone, so that there is no such term.
    """
    V, T = J.shape[:2]
    gain = np.einsum("oj,ossij->s", B, J)                   # E[B[o, z_s]]
    if encoding == "absolute":
        P = np.einsum("ossij->o", J) / T
        gain = gain + averaging(T).mean(axis=0) * (P @ P - 1 / V)
    return by_place(np.broadcast_to(gain, (T, T)), encoding)


@takes(J=JOINT, A=TABLE, d=VECTOR, encoding=ENCODING)
def third_gradient_by_keys(J, A, d, encoding="relative"):
    """What WK1 learns from the match in layer 2 (claims I7c and I7d; leading order; derived).

    Statement. After WO = η_O Σ_kj A[k, j] U[k] (WV E[j])ᵀ and WK2 = η_K Σ_j d[j] E[q] (Phi E[j])ᵀ,

        F[δ] = ⟨Σ_v E[v], −∂L/∂WK1 pos[δ]⟩ = η_O η_K (1/T) Σ_{t≥δ} 1/(t+1)
               E[(A[o, z_t] − (1/T) Σ_s A[o, z_s]) (d[z_{t−δ}] − Σ_r ω_tr d[z_r])] + higher orders.

    With d the WK2_mixed of `second_gradient(J, A, 0)` these are the first three steps, each projected on the
    memory that the construction uses: with step size η throughout, η_O = η and η_K = η² + O(η³): F is of
    order η³, its remainder of order η⁴.

    Derivation. F[δ] = Σ_{t≥δ} −∂ℓ/∂S1_{t,t−δ} as before, but now WK2 reads c_t and WO does not: S2_{T−1,t} =
    x1_{T−1}·WK2 x1_t = η_K Σ_j d[j] c_t[j], so −∂ℓ/∂c_t[j] = −∂ℓ/∂S2_{T−1,t} η_K d[j]; and x1_{T−1} is read
    at E[q] alone, where layer 1 changes nothing. By `second_gradient`, −∂ℓ/∂S2_{T−1,t} = (η_O/T) (A[o, z_t] −
    mean) at leading order. The softmax of layer 1 centres d as it centred B.

    Absolute positions: pos[t] and pos[s] meet S1_ts alone, so ⟨pos[t], −∂L/∂WK1 pos[s]⟩ is the one term of
    F[t − s] that belongs to t. What one relative memory pools is kept apart as t+1 ≤ T memories, each with
    its own factor 1/(t+1): late positions learn last.

    d (V,). Returns (T,) or (T, T), per unit of η_O η_K. Raises ValueError. Source: BCBJB23 (third step).
    """
    _, T = J.shape[:2]
    product = np.einsum("oi,j,orsij->rs", A, d, J)          # E[A[o, z_r] d[z_s]]
    return by_place(centring(T) @ product, encoding)


def by_place(gain, encoding):
    """f_ts = (1/T) (gain_ts − Σ_r ω_tr gain_tr)/(t+1) for s ≤ t; if relative, Σ_t f_{t,t−δ} for every δ."""
    T = len(gain)
    mean = np.einsum("tr,tr->t", averaging(T), gain)
    table = averaging(T) * (gain - mean[:, None]) / T
    return table if encoding == "absolute" else np.array([np.trace(table, -delta) for delta in range(T)])
