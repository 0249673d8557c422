"""The model on V×V tables, one sequence, in plain NumPy: what the fast path computes (claim I8)."""

import numpy as np

from refimpl import check, ops
from refimpl.induction import model
from refimpl.induction.tables.fast import tables_forward


def histories(params, tokens):
    """The histories c, h, g (T, V) of one sequence, from the tables; tokens (T,) as for `forward`."""
    params = model.check_params(params)
    z = check.integers("tokens", tokens, 0, len(params.E), ndim=1)
    model.check_length(len(z), params)
    with np.errstate(**check.QUIET):
        G1, B1, K2, _ = tables_forward(params)[0]
        one_hot = np.eye(len(G1), dtype=G1.dtype)[z]
        scores1 = ops.relative_scores_forward(G1[z][:, z], B1[z, ::-1])
        c = ops.causal_softmax_forward(scores1) @ one_hot
        x1 = np.concatenate([one_hot, c], axis=1)
        attention2 = ops.causal_softmax_forward(x1 @ K2 @ x1.T)
        return check.computed((c, attention2 @ one_hot, attention2 @ c), params)


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
    with np.errstate(**check.QUIET):
        T0, T1, T2, T3 = np.split(tables_forward(model.check_params(params))[0].T, 4)
        return check.computed((T0[np.asarray(tokens)] + c @ T1 + h @ T2 + g @ T3,), params)[0]
