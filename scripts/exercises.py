"""The tours' exercises: `check(system, number, answer)` says whether an answer is right, or gives a hint.

An answer of `...`, or a function that returns nothing, leaves the exercise open. Whatever an answer raises is
said in one line. Solutions are in solutions.py.
"""

from itertools import combinations

import numpy as np
from refimpl import claims, gradcheck, induction, ops, recall

CASES = 8       # instances of a claim of one's own


def close(answer, right, rtol=0.01):
    """Whether an answer is a number near the right one."""
    return np.ndim(answer) == 0 and np.isclose(float(answer), right, rtol=rtol, atol=0)


def head_positions(answer):
    """The second and the third t of "a t o m a t o t"."""
    return sorted(answer) == [5, 7]


def pairs_at_64(answer):
    """2 (1 + 2/d)/d + (N − 2)/d² ≤ 1/16."""
    return close(answer, 126, 1e-9)


def writes_WK2(answer):
    """Read between every token and every previous token, at two random frames."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        E, _, _, Phi, *_ = induction.orthonormal_frame(6, 4, rng)
        triggers = rng.permutation(6)[:2]
        found = answer(E, Phi, triggers, 3.0)
        if found is None:
            return None
        wanted = np.zeros((6, 6))
        wanted[triggers, triggers] = 3.0
        if np.shape(found) != Phi.shape or np.abs(E @ found @ (E @ Phi.T).T - wanted).max() > 1e-9:
            return False
    return True


def sharpness(answer):
    """e^b1 / (e^b1 + 39) = 0.99."""
    return close(answer, np.log(99 * 39))


def one_repetition(answer, gap):
    """bo > Δ (1 + (T − 1) e^−b2): enough, and not more than a tenth too much."""
    enough = gap * (1 + 39 * np.exp(-2))
    return np.ndim(answer) == 0 and enough < float(answer) < 1.1 * enough


def breaks_the_assumption(answer, read, model, gap, b2, bo):
    """A prompt of distinct continuations: the formula with k says context, the model says habit."""
    z, (t, h, o) = read(answer), read("tho")
    if not 2 <= len(z) <= 40 or z[-1] != t or z[0] == t or h in z:
        return False
    k = int(np.sum((z[:-1] == t) & (z[1:] == o)))
    if k == 0 or np.sum(z == o) != k:
        return False
    logits = induction.forward(model, z).logits[-1]
    return bool(induction.theory.hijack(k, len(z), gap, b2, bo).context_wins) and logits[h] > logits[o]


def softmax_backward(answer):
    """Against the complex step, with random cotangents."""
    rng = np.random.default_rng(0)
    for n in (1, 3, 7):
        s, dp = rng.normal(0, 2, n), rng.normal(size=n)
        p = ops.softmax_forward(s)
        found = answer(p, dp)
        if found is None:
            return None
        exact = gradcheck.complex_step(lambda s: (ops.softmax_forward(s) * dp).sum(), s)
        if np.shape(found) != (n,) or not np.allclose(found, exact, rtol=0, atol=1e-12):
            return False
    return True


def passes_its_audit(answer):
    """A claim that holds, and whose control fails in every instance."""
    if not isinstance(answer, claims.Claim):
        return False
    return claims.audit(answer, "the theory of the other tenth", cases=CASES).passed


def month_relation(answer):
    """(relation, answer): two months later, February."""
    relation, month = answer
    return (relation, str(month).strip().lower()) in ((1, "february"), (2, "february"))


def votes_by_hand(answer):
    """Squares give 2 to each relation, each vote 0.8 more."""
    return np.shape(answer) == (4,) and np.allclose(answer, [2, 2.8, 3.6, 2.8], rtol=0.005)


def margin_in_lam(answer):
    """lam (1/2 + 1/2)² − lam (1/4 + 1/4), as a multiple of lam."""
    return close(answer, 0.5, 1e-9)


def counts_votes(answer):
    """R2 by loops, at random attention on random prompts."""
    rng = np.random.default_rng(0)
    for R in (2, 5):
        facts = recall.Facts.latin(11, R, rng)
        prompt = recall.sample(facts, 3, 1, rng)
        alpha = rng.dirichlet(np.ones(7))
        relation_of = facts.relation(prompt.subjects[0][:, None], prompt.answers[0][:-1])
        found = answer(alpha[0::2], alpha[1::2], relation_of, R, 4.0)
        if found is None:
            return None
        wanted = recall.theory.infer_logits(alpha[0::2], alpha[1::2], relation_of, R, 4.0)
        if np.shape(found) != (R,) or not np.allclose(found, wanted, rtol=1e-9):
            return False
    return True


def four_places(answer):
    """WKQ meets each score in four places."""
    return close(answer, 4, 1e-9)


def flows(answer):
    """Minus the derivative of the loss by the position logits, at random starts."""
    rng = np.random.default_rng(0)
    for n, R, lam in ((1, 2, 3.0), (3, 6, 8.0)):
        w = rng.normal(size=2 * n + 1)
        found = answer(w, R, lam)
        if found is None:
            return None
        if np.shape(found) != w.shape or np.abs(found - recall.theory.flow(w, R, lam)).max() > 1e-9:
            return False
    return True


def strength_for_a_hundredth(answer):
    """log(1 + (R − 1) e^(−lam/2)) = 0.01 at R = 4."""
    return close(answer, 2 * np.log(3 / np.expm1(0.01)))


def free_triples(answer):
    """Subjects four months apart."""
    table = recall.Facts.months().answer(np.arange(12)[:, None], np.arange(4))
    right = {s for s in combinations(range(12), 3) if len(np.unique(table[list(s)])) == 12}
    return {tuple(sorted(int(v) for v in triple)) for triple in answer} == right


EXERCISES = {
    "induction": {
        1: (
            head_positions,
            "Count the copies of t up to each position: from the second copy on, the text has said what "
            "follows t."),
        2: (
            pairs_at_64,
            "The variance of a wrong score is 2 (1 + 2/d)/d + (N - 2)/d^2. Set it to 1/16 and solve for "
            "N."),
        3: (
            writes_WK2,
            "A sum of outer products: the query E[q] by the key Phi E[q], for every trigger q, times b2. "
            "As a matrix of [query, key], E[q] comes first."),
        4: (
            sharpness,
            "The key one back has weight e^b1/(e^b1 + t), here with t = 39."),
        5: (
            one_repetition,
            "Put k = 1 and T = 40 into k > T/(1 + e^b2 (bo/gap - 1)), solve for bo, and take a little "
            "more."),
        6: (
            breaks_the_assumption,
            "Let t be followed by other letters too, often. Layer 2 then looks at them as well, and o "
            "gets a smaller share than k copies alone would give it."),
        7: (
            softmax_backward,
            "Each p_i depends on each s_j: dp_i/ds_j = p_i (1[i = j] - p_j). Sum dp_i times that over i."),
        8: (
            passes_its_audit,
            "Return (predicted, observed) from a function under @claim, with a range for each argument; "
            "where case.control is True, break the assumption. `control_space` keeps the control to "
            "instances in which there is something to break.")},
    "recall": {
        1: (
            month_relation,
            "From March to May and from October to December: how many months? The answer is a pair "
            "(months later, name)."),
        2: (
            votes_by_hand,
            "The squares give lam (5/25) to every relation, each vote 2 lam/25 more. Which of the six "
            "subject-answer pairs have a relation?"),
        3: (
            margin_in_lam,
            "A unit whose whole key is present squares to 1; the others of the row have half a key. "
            "Answer as a multiple of lam."),
        4: (
            counts_votes,
            "lam times: the squares of u, the squares of v, and 2 u_i v_j for each pair whose relation is "
            "r'. Where relation_of is -1 there is no vote."),
        5: (
            four_places,
            "The row [E z_i; P i] of a token holds two ones, and so does that of the query."),
        6: (
            flows,
            "With alpha = softmax(w) and L = log(1 + (R-1) e^-m), m = 2 lam sum_i u_i v_i: dw_k/dt = "
            "sigma alpha_k (dm/dalpha_k - 2m), where dm/dalpha of the query is 0."),
        7: (
            strength_for_a_hundredth,
            "log(1 + (R - 1) e^(-lam/2)) = 0.01 with R = 4."),
        8: (
            free_triples,
            "Each subject's row holds the four months after it. Three rows of four must fill the year. "
            "Answer with a list of triples, months counted from 0.")}}


def check(system, number, answer, **given):
    """Print the verdict on an answer, and return it: True, False, or None while the exercise is open."""
    test, hint = EXERCISES[system][number]
    words = ""
    try:
        verdict = None if answer is ... else test(answer, **given)
    except Exception as error:
        verdict, words = False, f" ({type(error).__name__}: {error})".partition("\n")[0]
    print(f"exercise {number}: " + {None: "open", True: "right", False: f"not yet{words}. Hint: {hint}"}[
        None if verdict is None else bool(verdict)])
    return None if verdict is None else bool(verdict)
