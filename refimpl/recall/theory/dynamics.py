"""Fine-tuning of system R: the flow of the position logits and where it ends (claims R5–R10, R14).

Notation and assumptions as in logits.py; imports nothing else of the project but `check`.
"""

from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from refimpl.check import fit, numbers, positive, takes, weights, whole, wholes
from refimpl.recall.theory.logits import answer_classes, infer_margin, softmax


@takes(w=numbers("2n+1"), R=whole(1), lam=positive())
def flow(w, R, lam):
    """Gradient flow of the position logits in the infer step (claim R5; exact; derived).

    Statement. w (2n+1,) are the logits of s_0 a_0 … s_n, (u, v) = softmax(w), m as in `infer_loss`,
    sigma = (R−1) e^{−m} / (1 + (R−1) e^{−m}). On collision-free prompts dw/dt = −∂L_infer/∂w is

        dw_{s_i}/dt = 2 sigma u_i (lam v_i − m)
        dw_{a_i}/dt = 2 sigma v_i (lam u_i − m)         i < n
        dw_{s_n}/dt = −2 sigma m u_n                    and Σ dw/dt = 0.

    Every collision-free prompt moves w alike.

    Derivation. Of L = log(1 + (R−1) e^{−m}) (`infer_loss`), −∂L/∂m = sigma. The softmax gives ∂m/∂w_k = α_k
    (∂m/∂α_k − Σ_j α_j ∂m/∂α_j). Here ∂m/∂u_i = 2 lam v_i, ∂m/∂v_i = 2 lam u_i, ∂m/∂u_n = 0, and the sum is
    2m, as m is of degree 2 in α (Euler). A shift of w changes nothing, so the gradient sums to 0.

    Parameters: w (2n+1,), n ≥ 1; R ≥ 1; lam > 0. Returns (2n+1,). Raises ValueError.
    """
    alpha = softmax(w)
    u, v = alpha[0::2], alpha[1::2]
    m, sigma = infer_margin(u, v, R, lam)
    partner = np.zeros_like(alpha)
    partner[0:-1:2], partner[1::2] = v, u[:-1]
    return 2 * sigma * alpha * (lam * partner - m)


@takes(w=numbers("2n+2"), R=whole(1), N=whole("(n+1)*R"), lam=positive())
def recall_flow(w, N, R, lam):
    """Gradient flow of the position logits in the recall step (claim R5; exact; derived).

    Statement. w (2n+2,) are the logits of s_0 a_0 … s_n r, (u, v, alpha_r) = softmax(w). On a
    collision-free prompt let p_i be the probability of g(s_i, r), q_i that of the R−1 row mates of
    s_i together, and e_i = p_i − 1[i = n]. Then dw/dt = −∂L_recall/∂w is

        G_{s_i} = ∂L/∂u_i = 2 lam (e_i (u_i + alpha_r) + q_i u_i)
        G_r = ∂L/∂alpha_r = 2 lam Σ_i e_i u_i,      G_{a_i} = 0
        dw_k/dt = −α_k (G_k − Σ_j α_j G_j)              and Σ dw/dt = 0.

    Derivation. L = log Σ_c number_c e^{logit_c} − logit_true over the classes of `recall_loss`, so
    ∂L/∂logit_c = p_c − 1[c = true]. The logit of g(s_i, r) is lam (u_i² + 2 alpha_r u_i), that of
    its row mates lam u_i², that of the rest 0: their derivatives give G. Then the softmax, as in `flow`.

    Parameters: w (2n+2,), n ≥ 1; N ≥ (n+1) R; lam > 0. Returns (2n+2,). Raises ValueError.
    """
    alpha = softmax(w)
    u, alpha_r = alpha[0:-1:2], alpha[-1]
    logits, count = answer_classes(u, alpha_r, N, R, lam)
    p = softmax(logits, count)
    n = len(u) - 1
    p[n] = -np.delete(p, n).sum()       # p − 1, which loses its digits where p is nearly 1
    e, q = p[:n + 1], p[n + 1:-1]
    G = np.zeros_like(alpha)
    G[0:-1:2] = 2 * lam * (e * (u + alpha_r) + q * u)
    G[-1] = 2 * lam * (e @ u)
    return -alpha * (G - alpha @ G)


@takes(u=weights("n+1"), v=weights("n"), R=whole(1), lam=positive())
def gap_rates(u, v, R, lam):
    """Rates d/dt (w_{s_i} − w_{a_i}) of the gaps within the pairs (claim R6; exact; derived).

    Statement. On collision-free prompts d/dt (w_{s_i} − w_{a_i}) = −2 sigma m (u_i − v_i) from every start:
    every gap shrinks, and none changes its sign.

    Derivation. Subtract two lines of `flow`: lam u_i v_i occurs in both and cancels. u_i − v_i has
    the sign of w_{s_i} − w_{a_i}, and sigma m > 0 at every finite w if R ≥ 2.

    What it needs: u_i and v_i enter the loss through u_i v_i alone. In a table that is not Latin the squares
    v_i² do not drop out, and where rows collide u_i v_j votes without u_j v_i; the gap may grow.

    Parameters: u (n+1,), v (n,), R ≥ 1, lam > 0. Returns (n,). Raises ValueError on others.
    """
    m, sigma = infer_margin(u, v, R, lam)
    return -2 * sigma * m * (u[:-1] - v)


@takes(u=weights("n+1"), v=weights("n"), R=whole(1), lam=positive())
def query_rate(u, v, R, lam):
    """Rate dw_{s_n}/dt of the query's logit in the infer step (claim R7; exact; derived).

    Statement. On collision-free prompts dw_{s_n}/dt = −2 sigma m u_n < 0 at every finite w, if R ≥ 2.

    Derivation. The last line of `flow`: m does not depend on u_n, so the query only takes attention away. The
    logit falls. The weight, d(log u_n)/dt = dw_{s_n}/dt − Σ_k α_k dw_k/dt, can rise for a while: where u_n is
    tiny, n = 1 and (u_0, v_0) = (0.9, 0.1), the mean is < 0. Parameters and errors as `gap_rates`.
    """
    m, sigma = infer_margin(u, v, R, lam)
    return -2 * sigma * m * u[-1]


class GrowthRates(NamedTuple):
    """Eigenvalues of the linearised flow where all pairs are equal; the last one, of a shift of w, is 0."""

    between: float      # n−1 modes: one pair against another
    within: float       # n modes: s_i against a_i
    together: float     # 1 mode: all pairs against the query


@takes(n=whole(1), R=whole(1), lam=positive(), u=positive("1/(2*n)", optional=True))
def growth_rates(n, R, lam, u=None):
    """Linearised flow of the infer step where all pairs are equal (claim R8; exact; derived).

    Statement. At u_i = v_i = u, any u_n = 1 − 2nu, with m = 2 n lam u², the eigenvalues of ∂(dw/dt)/∂w are

        between     2 sigma u (2 lam u − m)                             n−1 times
        within      −2 sigma m u                                        n times
        together    2 (2n+1) lam sigma u² u_n (3 u_n − 1 − 2 (1 − sigma) m u_n)         once
        shift       0                                                   once

    As n u ≤ 1/2, between = 4 lam sigma u² (1 − n u) > 0: differences of pairs grow, if R ≥ 2.

    Derivation. Let δ move the pairs against each other or within themselves, Σ_{i<n} (δ_{s_i} +
    δ_{a_i}) = 0 and δ_{s_n} = 0. Then Σ α δ = 0, so δu_i = u δ_{s_i}, δv_i = u δ_{a_i}; δm =
    2 lam u Σ (δu_i + δv_i) = 0 and δsigma = 0. `flow` gives

        δ(dw_{s_i}/dt) = 2 sigma u ((lam u − m) δ_{s_i} + lam u δ_{a_i}),

    with eigenvalue (2 lam u − m) for δ_{a_i} = δ_{s_i}, and −m for δ_{a_i} = −δ_{s_i}, each times
    2 sigma u. For δ equal on all pairs let y = w_{s_i} − w_{s_n}: as lam u − m = lam u u_n,
    dy/dt = 2 (2n+1) lam sigma u² u_n. Its eigenvalue is d(ẏ)/dy = ẏ d(log ẏ)/dy, where
    du/dy = u u_n, du_n/dy = −2nu u_n = −(1 − u_n) u_n, dm/dy = 2 m u_n, dsigma/dm = −sigma (1 − sigma).

    Unless u_n = 0 the point moves along equal pairs. The modes stay; a difference grows by exp(∫ rate dt).

    Parameters: n, R ≥ 1; lam > 0; 0 < u ≤ 1/(2n), by default 1/(2n+1), uniform attention. Raises ValueError.
    """
    u = 1 / (2 * n + 1) if u is None else u
    last = 1 - 2 * n * u
    m, sigma = infer_margin(np.append(np.full(n, u), last), np.full(n, u), R, lam)
    return GrowthRates(2 * sigma * u * (2 * lam * u - m), -2 * sigma * m * u,
                       2 * (2 * n + 1) * lam * sigma * u ** 2 * last
                       * (3 * last - 1 - 2 * (1 - sigma) * m * last))


@takes(R=whole(1), lam=positive())
def infer_end_loss(R, lam):
    """Infimum of the infer loss over all attention, in nats (claim R9; exact; derived).

    Statement. L_infer ≥ log(1 + (R−1) e^{−lam/2}) on collision-free prompts, with equality if and
    only if one pair has ½ + ½ (or R = 1): a limit that no finite w reaches.

    Derivation. L falls with m, and Σ u_i v_i ≤ Σ ((u_i + v_i)/2)² ≤ (Σ (u_i + v_i)/2)² ≤ 1/4, hence m ≤
    lam/2. They are equalities where u_i = v_i, where one pair has all of it, and where the query has none.

    From equal pairs the flow keeps them equal (`growth_rates`) and ends at 1/(2n) each, log(1 + (R−1)
    e^{−lam/(2n)}). Returns a float. Raises ValueError unless R ≥ 1 and lam > 0.
    """
    return np.log1p((R - 1) * np.exp(-lam / 2))


@takes(R=whole(2), N=whole("R"), lam=positive())
def recall_end_point(N, R, lam):
    """Weight u_n = x* on the query where the recall loss is least (claim R9; exact; derived).

    Statement. Over all attention, on collision-free prompts, L_recall is least at u_n = x*,
    alpha_r = 1 − x*, with x* in [½, 1) the only root of

        2x − 1 = (N−R)/(R−1) (1 − x) e^{−lam x²}.

    It falls as lam grows, from (N−1)/(N+R−2) at lam → 0 to ½: x* − ½ ≈ (N−R)/(4 (R−1)) e^{−lam/4}.

    Derivation. Give the attention of all other tokens to s_n and r in proportion: by `recall_loss`
    the margin of the true answer over every class rises, so the minimum has u_n = x, alpha_r = 1 − x:

        L(x) = log(1 + (R−1) e^{−2 lam x (1−x)} + (N−R) e^{−lam (2x − x²)}).

    Its exponents are convex in x, so L is, and its derivative is a positive factor times (left −
    right). That is ≤ 0 at x = ½, > 0 at x = 1, and rises in x on the way, and in lam.

    Returns a float, to rounding. Raises ValueError unless N ≥ R ≥ 2 and lam > 0 (with R = 1, x* = 1).
    """
    return brentq(end_residual, 0.5, 1.0, (N, R, lam), xtol=4e-16)


def end_residual(x, N, R, lam):
    """Left minus right of the equation of x* (`recall_end_point`)."""
    return 2 * x - 1 - (N - R) * (1 - x) * np.exp(-lam * x ** 2) / (R - 1)


@takes(w0=numbers(None), times=numbers(None, low=0, high=1e13), R=whole(1), lam=positive(),
       N=whole(1, optional=True), factors=numbers(None, low=0, high=1e3)._replace(optional=True))
def trajectory(w0, times, R, lam, N=None, factors=None):
    """Position logits along the gradient flow: (len(times), len(w0)) (claim R10; numerical).

    Solves dw/dt = c flow(w) from w(0) = w0, or c recall_flow(w) if N is given. By default c = 1; c of
    `score_factors` gives the scores of the training prompts of full WKQ (R16). A step of SGD with learning
    rate eta is Euler's step of length eta: after t/eta of them its gap is of order eta.

    Parameters: w0 as in `flow`, or `recall_flow`; times (k,) in 0..1e13, increasing; factors like w0. By
    LSODA in log(1 + t), as weights fall like 1/t. The local error is 1e-12 up to t = 1e8, and 1e-20 t
    beyond, where the rounding of rates that vanish is larger. Raises ValueError; RuntimeError if it fails.
    """
    sizes: dict = {}
    fit("w0", w0.shape, ("2n+1" if N is None else "2n+2",), sizes)
    if N is not None and N < (sizes["n"] + 1) * R:
        raise ValueError(f"N: expected N >= (n+1) R, got {N}")
    if not times.any() or (np.diff(times) <= 0).any():
        raise ValueError(f"times: expected increasing numbers >= 0, not 0 alone, got {times}")
    factors = np.ones(len(w0)) if factors is None else factors
    fit("factors", factors.shape, w0.shape, {})
    error, at = 1e-12 * max(1, times[-1] / 1e8), np.log1p(times)
    # Without the checks of arguments, which cost as much as the formulas.
    law, rest = (flow.__wrapped__, (R, lam)) if N is None else (recall_flow.__wrapped__, (N, R, lam))
    solution = solve_ivp(lambda s, w: np.exp(s) * factors * law(w, *rest), (0, at[-1]), w0, "LSODA", at,
                         rtol=error, atol=error)
    if not solution.success:
        raise RuntimeError(f"solve_ivp: {solution.message}")
    return solution.y.T


@takes(V=whole(1), tokens=wholes(None, "T", high="V"), L=whole("T"))
def gradient_support(tokens, V, L):
    """Where the gradient of WKQ can be nonzero (claim R14; exact; derived).

    Statement. With one-hot embeddings and positions, whatever the weights, the memory and the loss,
    a prompt z of length T gives a gradient on the two rows z_{T−1} and V + T − 1 and there on the
    2T columns z_i and V + i only; prompts give the union. Trained from zero, WKQ stays zero elsewhere,
    so a prompt that shares no token with these (its last one included) has the scores
    WKQ[V + T − 1, V + i]: the position–position block alone.

    Derivation. score_i = x_last · WKQ x_i with x_i = [E z_i; P i], so ∂L/∂WKQ = Σ_i (∂L/∂score_i)
    x_last x_iᵀ, and x_i has ones at z_i and V + i, zeros elsewhere.

    In the recall step the last token is the relation: one that was seen speaks of positions on every prompt.

    Parameters: tokens (count, T) in 0..V−1; L ≥ T. Returns (V+L, V+L) booleans. Raises ValueError.
    """
    T = tokens.shape[1]
    support = np.zeros((V + L, V + L), dtype=bool)
    for z in tokens:
        columns = np.concatenate([z, V + np.arange(T)])
        support[z[-1], columns] = support[V + T - 1, columns] = True
    return support
