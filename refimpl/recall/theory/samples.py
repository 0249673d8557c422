"""How many samples fine-tuning needs (claim R11).

Notation and assumptions as in logits.py; imports nothing of the project but `check`.
"""

import numpy as np

from refimpl.check import takes, whole


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

    Consequence. The training loss sees scores c times as large as what transfers: in the infer step,
    1 + 3/M. M prompts suffice where the loss bears its scores to be divided by c; this does not
    depend on N but through the scores that N answers ask for.

    Derivation. Score i adds up four entries of WKQ: of the last token or position, by token or
    position i. As all prompts have equal scores, each gets the same −∂L/∂score_i = F_i(score)
    (`flow`, `recall_flow`), and an entry gets F_i times the share of the prompts that read it. In the
    infer step that is 1 for position–position, and 1/M for the three that hold a token. In the recall
    step the last token is r: (r, position i) is read by M/k prompts, (r, z_i) and (position, z_i) by
    one; for i = 2n+1 the token z_i is r itself, and all three by M/k. By symmetry the scores stay
    equal. Momentum is linear, and changes nothing.

    Parameters: n ≥ 1; M ≥ 1 prompts; k relations, a divisor of M, for the recall step, or None.
    Returns c (2n+1,), or (2n+2,) with k. Raises ValueError on other sizes.
    """
    if k is None:
        return np.full(2 * n + 1, 1 + 3 / M)
    if M % k:
        raise ValueError(f"k: expected a divisor of M = {M}, got {k}")
    return np.append(np.full(2 * n + 1, 1 + 1 / k + 2 / M), 1 + 3 / k)
