"""How many samples fine-tuning needs, and how much time (claims R11, R16).

Notation and assumptions as in logits.py; imports nothing of the project but `check`. Full WKQ reads content
and position. Its training prompts share no subject and no answer; a test prompt holds new tokens.
"""

from typing import NamedTuple

import numpy as np

from refimpl.check import numbers, positive, takes, whole
from refimpl.recall.theory.dynamics import infer_end_loss, recall_end_point
from refimpl.recall.theory.logits import losing


@takes(n=whole(1), M=whole(1), k=whole(1, optional=True))
def score_factors(n, M, k=None):
    """How much full attention multiplies what the positions learn (claim R11; exact; derived).

    Statement. Train full WKQ by SGD without weight decay on M collision-free prompts that share no
    subject and no answer, and in the recall step use k relations equally often, from a start w0 in
    the position–position block, the same at every prompt. Let w be that block's row later on. Then
    the scores of every training prompt are w0 + c (w − w0), with

        infer     c_i = 1 + 3/M
        recall    c_i = 1 + 1/k + 2/M for i < 2n+1,     c_{2n+1} = 1 + 3/k

    and w moves as position-only attention does at these scores: dw/dt = flow(w0 + c (w − w0)), or a
    step of SGD. A prompt of tokens that no training prompt held has the scores w alone.

    Consequence (claim R16). Where c is one number, the training scores y have dy/dt = c flow(y). So y(t) =
    Y(c t), Y the position-only flow from w0, and a test prompt has the scores w0 + (Y(c t) − w0)/c. SGD with
    step eta is position-only SGD with step c eta. In the infer step N does not occur: the prompts needed do
    not depend on it. In the recall step c is one number only if k = M; else see `drift_law`.

    Derivation. Score i adds up four entries of WKQ: of the last token or position, by token or position i. As
    all prompts have equal scores, each gets the same −∂L/∂score_i = F_i(score) (`flow`, `recall_flow`), and
    an entry gets F_i times the share of the prompts that read it. In the infer step that is 1 for
    position–position, and 1/M for the three that hold a token. In the recall step the last token is r: (r,
    position i) is read by M/k prompts, (r, z_i) and (position, z_i) by one; for i = 2n+1 the token z_i is r
    itself, and all three by M/k. By symmetry the scores stay equal. Momentum is linear, and changes nothing.

    n, M ≥ 1; k a divisor of M in the recall step, else None. Returns c (2n+1,) or (2n+2,). Raises ValueError.
    """
    if k is None:
        return np.full(2 * n + 1, 1 + 3 / M)
    if M % k:
        raise ValueError(f"k: expected a divisor of M = {M}, got {k}")
    return np.append(np.full(2 * n + 1, 1 + 1 / k + 2 / M), 1 + 3 / k)


class Law(NamedTuple):
    """A loss that falls to a floor: floor + excess at each time, in nats."""

    floor: float
    excess: np.ndarray      # like the times


@takes(n=whole(1), times=numbers(None, low=1), R=whole(2), lam=positive(500))
def training_law(n, times, R, lam):
    """Infer loss and losing weights of position-only training, late (claim R16a; asymptotic; derived).

    Statement. As t → ∞ every weight but those of the winning pair is 2/((2n+1) sigma lam t), with sigma =
    sigma(lam/2), and the loss is `infer_end_loss` + 2 (2n−1)/((2n+1) t): no lam, R or N in the excess. For
    full WKQ the time of its training prompts is c t (R16).

    Derivation. Let ε be the sum of the 2n−1 losing weights. Near the end `flow` gives dw_j/dt =
    −sigma lam α_j for each of them, the query included, and sigma lam ε/2 for both winners. So d(1/α_j)/dt =
    sigma lam (1 + ε/(2 α_j)). The ratios of two of them go to 1, like t^{−2/(2n+1)}; then ε = (2n−1) α.
    The margin is m = lam (1 − ε)²/2 + O(ε²), and dL/dm = −sigma.

    n ≥ 1; times (k,) ≥ 1; R ≥ 2; 0 < lam ≤ 500. Returns weight (k,), Law. Raises ValueError.
    """
    weight = 2 / ((2 * n + 1) * losing(lam / 2, R) * lam * times)
    return weight, Law(infer_end_loss(R, lam), 2 * (2 * n - 1) / ((2 * n + 1) * times))


@takes(w0=numbers("2n+1", low=-100, high=100), pair=whole(0), times=numbers(None, low=1), M=whole(1),
       R=whole(2), lam=positive(500))
def transfer_law(w0, pair, times, M, R, lam):
    """Infer loss on prompts of unseen tokens, full WKQ, late (claim R16b; asymptotic; derived).

    Statement. Train on M prompts. Let `pair` win, c = 1 + 3/M, q = 1 − 1/c, gamma = q (w0_{s_i} − w0_{a_i}),
    m_f = lam/(2 cosh²(gamma/2)), sigma_f = sigma(m_f), and S = Σ_k e^{q w0_k} / (e^{q w0_{s_i}} + e^{q
    w0_{a_i}}) over all k but that pair. As t → ∞ the loss is

        log(1 + (R−1) e^{−m_f}) + 2 sigma_f m_f S (4/((2n+1) sigma(lam/2) lam c t))^{1/c}.

    One sequence is enough at every N, up to the floor. The floor is `infer_end_loss` if the pair's gap is 0
    at the start, or M → ∞: full WKQ does not finish closing the gap at test. The excess falls with the
    exponent 1/c = M/(M+3) alone, where training has 1. So fewer samples ask for more time, of order K^c for a
    loss that is K times smaller. From equal pairs no pair wins (R8), and the law does not apply.

    Derivation. By R16 the test scores are q w0 + y/c, where y are the training scores. There the winners tie,
    and y_k − y_{s_i} = log 2α_k, with α_k by `training_law` at the time c t. So at test a loser has e^{q
    w0_k} (2α_k)^{1/c} / (e^{q w0_{s_i}} + e^{q w0_{a_i}}) of the pair's weight. If all of them have ε of it,
    m = m_f (1 − ε)² + O(ε²), and dL/dm = −sigma_f. The relative remainder: (c t)^{−1/c}, (c t)^{−2/(2n+1)}.

    w0 (2n+1,) in −100..100; pair < n; times, M ≥ 1; R ≥ 2; 0 < lam ≤ 500. Returns Law. Raises ValueError.
    """
    n, c = len(w0) // 2, 1 + 3 / M
    if pair >= n:
        raise ValueError(f"pair: expected one of {n}, got {pair}")
    beta = np.exp((1 - 1 / c) * w0)
    subject, answer = beta[2 * pair:2 * pair + 2]
    winners = subject + answer
    m = 2 * lam * subject * answer / winners ** 2
    loser = 2 * training_law(n, c * times, R, lam)[0]
    share = (beta.sum() - winners) / winners * loser ** (1 / c)
    return Law(np.log1p((R - 1) * np.exp(-m)), 2 * losing(m, R) * m * share)


class Drift(NamedTuple):
    """Full WKQ in the recall step, late."""

    unseen: float       # log-log slope of u_n/alpha_r against t, prompts of an unseen relation
    seen: float         # the same on new subjects of a seen relation
    subject: float      # α_k t in the training prompts, for a subject of the context
    answer: float       # the same for an answer


@takes(n=whole(1), M=whole(1), k=whole(1), R=whole(2), N=whole("R+1"), lam=positive(500))
def drift_law(n, M, k, N, R, lam):
    """How the recall step drifts apart on test prompts (claim R16c; asymptotic; derived).

    Statement. With c_s = 1 + 1/k + 2/M, c_r = 1 + 3/k, H = c_s c_r/(c_s + c_r), rho = 2nH/(c_s + 2nH), and
    p, p_0 the probabilities at x* (`recall_end_point`) of the truth and of one answer outside all rows,

        α_k = 1/(A_k (c_s + 2nH) t)       A = 2 lam (1 − p) x* (answers), + 2 lam p_0 (1 − x*) (subjects)

    in training. On test prompts log(u_n/alpha_r) goes like rho (1/c_s − 1/c_r) log t with an unseen relation,
    and like −rho (2/M)/c_s log t with a seen one on new subjects. So the loss there rises again in the end,
    unless k = M and the relation is new: "few samples suffice" is a statement about times.

    On the pair (s_n, r) alone nothing collapses (exact): z = y_{s_n} − y_r has dz/dt = −(c_s + c_r) x (1−x)
    L'(x), so it goes to logit x*. w_{s_n} + w_r stays; the test difference ends at z_0 + 2 (z − z_0)/(c_s +
    c_r).

    Derivation. Near the end dy_k/dt = −c_s A_k α_k for the context. Since x stays at x*, both of the pair
    rise alike: c_s F_{s_n} = c_r F_r, and F sums to 0, so both are H Σ_k A_k α_k. All A_k α_k become equal,
    to 1/((c_s + 2nH) t); so y_{s_n} ~ y_r ~ rho log t. At test an unseen relation has w = y/c. A seen one
    adds 1/k of (r, position i), and for r all four entries: (1 + 1/k) y_{s_n}/c_s against y_r.

    n ≥ 1; k ≥ 1 relations, a divisor of M; N > R ≥ 2; 0 < lam ≤ 500. Returns Drift. Raises ValueError.
    """
    c_s, c_r = score_factors(n, M, k)[[0, -1]]
    x, H = recall_end_point(N, R, lam), c_s * c_r / (c_s + c_r)
    rows, rest = np.exp(-2 * lam * x * (1 - x)), np.exp(-lam * (2 * x - x ** 2))
    others = (R - 1) * rows + (N - R) * rest
    answer, subject = 2 * lam * x * others / (1 + others), 2 * lam * (1 - x) * rest / (1 + others)
    speed = c_s + 2 * n * H
    rho = 2 * n * H / speed
    return Drift(rho * (1 / c_s - 1 / c_r), -rho * 2 / (M * c_s), 1 / ((answer + subject) * speed),
                 1 / (answer * speed))


@takes(R=whole(1), N=whole("R"), lam=positive())
def recall_floor(N, R, lam):
    """Recall loss that no attention goes below, in nats (claim R16d; exact; derived).

    Statement. L_recall ≥ log(1 + (N−1) e^{−lam}) on every prompt, at every attention. So a loss of at most ε
    needs lam ≥ log((N−1)/(e^ε − 1)): the memory must be as strong as the logarithm of the number of answers,
    whatever is fine-tuned, and on however many prompts. To infer, N does not occur (R16).

    Derivation. In `recall_logits` the truth has lam (alpha_r + u_n)² and at most lam u_i² for each other
    subject in whose row it is, at most lam (alpha_r + Σ_i u_i)² ≤ lam in all. No logit is below 0.

    Returns a float. Raises ValueError unless N ≥ R ≥ 1 and lam > 0.
    """
    return np.log1p((N - 1) * np.exp(-lam))
