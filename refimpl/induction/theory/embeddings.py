"""Random embeddings: how far the constructed model is from its closed form (claims I6 and I12).

The rows of E, U and pos are drawn from N(0, I/d) and the entries of Phi and WV from N(0, 1/d), all
independent. The gap is the model's logits less those in the orthonormal frame. Imports only `check`.
"""

import numpy as np

from refimpl.check import number, numbers, takes, whole


def embedding_slope():
    """Slope of log gap against log d with random embeddings (claim I6; asymptotic; derived): −1/2.

    Statement. At fixed vocabulary, length and strengths the root-mean-square gap is C d^(−1/2) (1 + O(1/d)).

    Derivation. The model is a fixed smooth function of the products that its memories meet: E[v]·E[u],
    E[v]·Phi E[u], (WV x)·(WV y), U[v]·E[u], …, finitely many whatever d. Each is its value in the frame, 0 or
    1, plus d^(−1/2) times a variable of order one: for a ≠ b, Σ_i a_i b_i has mean 0 and variance d · 1/d² =
    1/d, and |a|² has variance 2/d. Expand around the frame: logits = I3 + d^(−1/2) X + d^(−1) Y +
    O(d^(−3/2)), X linear in those variables. They are Gaussian in the limit and not all degenerate
    (U[u]·E[z_t], on the direct path, has variance 1/d), so E X² > 0. E X Y is of odd order in them, hence
    O(d^(−1/2)), and E gap² = E X²/d + O(d^(−2)): slope −1/2, and the line bends by O(1/d).

    Where it stops. WF is read through V embeddings at each end and brings terms of order (V/d)^(1/2), times
    log V; S1 moves by about b1 (V/d)^(1/2), S2 by b2 times as much. Where these are not small the next order
    counts, and the line is steeper at its left end. If entries keep their variance as d grows, so do all
    products, and the gap grows. Source: BCBJB23, NLB24.
    """
    return -0.5


@takes(log_pi_b=numbers("V", "V"), z=whole(0, "V"), c=numbers("V"), h=numbers("V"), g=numbers("V"),
       bo=number())
def gap_constant(log_pi_b, z, c, h, g, bo):
    """The limit of d · E gap[u]² as d grows, attention given (claim I12; exact limit; derived).

    Statement. The query token is z. Let c[v] = Σ_s A1_ts 1[z_s = v], h[v] = Σ_s A2_ts 1[z_s = v] and
    g = Σ_s A2_ts c_s: what layer 1 brings to the query, and what layer 2 brings of tokens and of histories.
    Attention is the same whatever the embeddings, as at b1 = b2 = 0. With L = log pi_b, l = L[:, u] and
    y = bo h + L[z, :], d · E gap[u]² tends to

        (U·E)            1 + 2 bo L[z,u] h[u] + bo² |l|² |h|²
        (U·Phi E)        + |c|²
        (U·U)            + |y|² + y[u]²
        (E·E)            + bo² (|h|² + h[u]²) + |l|² + L[z,u]² + 2 bo (1[u=z] h·l + h[z] L[u,u])
        (WV: E, E)       + bo² (|h|² + h[u]²)
        (E·Phi E)        + bo² |g|² + |l|² |c|² + 2 bo L[u,u] g·c
        (WV: E, Phi E)   + bo² |g|².

    The relative remainder is O(V/d).

    Derivation. To first order in the products that are 0 or 1 in the frame,

        gap = N 1_z + P c + K y + bo ((D + D') h + (F + F') g) + Lᵀ (D 1_z + F c) + bo Lᵀ Nᵀ h,

    with N = U Eᵀ, P = U Phi Eᵀ, F = E Phi Eᵀ, K = U Uᵀ − 1, D = E Eᵀ − 1, D' = E (WVᵀWV − 1) Eᵀ and F' = E
    (WVᵀWV − 1) Phi Eᵀ. These fields are uncorrelated. The entries of N, P, F and F' have variance 1/d. K, D
    and D' are symmetric: their entries have variance (1 + 1[i = j])/d. If gap[u] is Σ_ij B_ij X_ij, a field X
    adds |B|²/d to E gap[u]², and a symmetric one (|B|² + tr BB)/d. Read B off: on N it is 1_u 1_zᵀ + bo h lᵀ,
    on K it is 1_u yᵀ, on D it is bo 1_u hᵀ + l 1_zᵀ, on F it is bo 1_u gᵀ + l cᵀ, on P, D', F' 1_u cᵀ, bo 1_u
    hᵀ, bo 1_u gᵀ.

    log_pi_b (V, V) and bo finite, z a token, c, h, g (V,). Returns (V,), nats² d. Raises ValueError.
    """
    L, is_z = log_pi_b, np.arange(len(c)) == z
    y = bo * h + L[z]
    l2, own = (L ** 2).sum(axis=0), np.diag(L)
    return (1 + 2 * bo * L[z] * h + bo ** 2 * l2 * (h @ h) + c @ c + y @ y + y ** 2
            + 2 * bo ** 2 * (h @ h + h ** 2) + l2 + L[z] ** 2 + 2 * bo * (is_z * (h @ L) + h[z] * own)
            + 2 * bo ** 2 * (g @ g) + l2 * (c @ c) + 2 * bo * own * (g @ c))
