"""Which memory says what: every logit, and every score of layer 2, split into named parts (claim I9)."""

import numpy as np

from refimpl.induction.model import check_params, forward
from refimpl.induction.tables.plain import histories

COMPOSITE = ("WF WO on E", "WF WO on P")


def logits(params, tokens):
    """The logits of one sequence as a sum of eight memories (claim I9; exact; derived).

    Statement. For any weights and embeddings, relative positions, and with P = E Phiᵀ,

        logits_t[u] = U[u]·E[z_t]           + U[u]·WF E[z_t]              direct on E, WF on E
                    + Σ_v c_t[v] U[u]·P[v]  + Σ_v c_t[v] U[u]·WF P[v]     direct on P, WF on P
                    + Σ_v h_t[v] U[u]·M E[v] + Σ_v h_t[v] U[u]·WF M E[v]  WO on E, WF WO on E
                    + Σ_v g_t[v] U[u]·M P[v] + Σ_v g_t[v] U[u]·WF M P[v]  WO on P, WF WO on P

    with M = WO WV, c_t[v] = Σ_s A1_ts 1[z_s = v], h_t[v] = Σ_s A2_ts 1[z_s = v], g_t = Σ_s A2_ts c_s.

    Derivation. x1_t = E[z_t] + Phi Σ_s A1_ts E[z_s] = E[z_t] + Σ_v c_t[v] P[v]. Averaged over
    A2_t· it is Σ_v h_t[v] E[v] + Σ_v g_t[v] P[v], and M of that is what layer 2 adds: x2_t has four
    terms. logits_t = U x2_t + U WF x2_t reads each of them twice.

    tokens (T,), params float64 or float32. Returns a dict from the eight names, in this order, to
    arrays (T, V). Raises ValueError as `forward` does.
    """
    c, h, g = histories(params, tokens)
    E, U, _, Phi, WV, _, _, WO, WF = check_params(params)
    z = np.asarray(tokens)
    P, M = E @ Phi.T, WO @ WV
    parts = {}
    for name, stream in (("direct on E", E[z]), ("direct on P", c @ P),
                         ("WO on E", h @ E @ M.T), ("WO on P", g @ P @ M.T)):
        parts[name] = stream @ U.T
        parts[name.replace("direct", "WF").replace("WO", "WF WO")] = stream @ WF.T @ U.T
    return parts


def scores(params, tokens):
    """The scores of layer 2 as a sum of four blocks (claim I9; exact; derived).

    Statement. S2_ts = EE + EP + PE + PP, first letter the query's part, second the key's:

        EE = E[z_t]·WK2 E[z_s],  EP = Σ_v c_s[v] E[z_t]·WK2 P[v],
        PE = Σ_v c_t[v] P[v]·WK2 E[z_s],  PP = Σ_vu c_t[v] c_s[u] P[v]·WK2 P[u],  s ≤ t.

    Derivation. S2_ts = x1_t·WK2 x1_s is bilinear, and x1_t = E[z_t] + Σ_v c_t[v] P[v]. The induction
    head of `construct` lives in EP alone.

    Returns a dict from the four names to arrays (T, T), zero above the diagonal.
    """
    trace = forward(params, tokens)
    WK2, own, history = params.WK2, trace.x0, trace.x1 - trace.x0
    streams = {"E": own, "P": history}
    return {query + key: np.tril(streams[query] @ WK2 @ streams[key].T)
            for query in streams for key in streams}
