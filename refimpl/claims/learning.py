"""The claims on what system I learns in its first three steps (I7).

Each step is checked on a small chain whose sequences are all enumerated.
"""

from itertools import product

import numpy as np

from refimpl.claims.claim import claim
from refimpl.induction import moments
from refimpl.induction.memory import orthonormal_frame
from refimpl.induction.model import Params, loss_and_grads
from refimpl.induction.task import Bigram

class TriggerChain:
    """A chain with one trigger, in the orthonormal frame, and every sequence that ends with it."""

    def __init__(self, case, outputs, V, T, encoding="relative"):
        self.q, self.T, self.encoding = int(case.rng.integers(V)), T, encoding
        bigram = Bigram.random(V, case.rng)
        # With T = 1 there is no context: what is learned is by how much the output is not uniform.
        pi_o = np.full(V, 1 / V) if outputs == "uniform" and T > 1 else \
            case.rng.dirichlet(np.full(V, 1.0 if T > 1 else 0.1))
        self.laws = (bigram.pi_u, bigram.pi_b, pi_o, self.q, T)
        self.sequences, self.probabilities = sequence_distribution(*self.laws, redrawn=case.control)
        self.frame = orthonormal_frame(V, T, case.rng, encoding)

    def descent(self, params):
        """Minus the gradient of the expected loss at the last position: all sequences, one by one."""
        last = np.arange(self.T)[None] == self.T - 1
        total = Params(*(np.zeros_like(field) for field in params))
        for z, probability in zip(self.sequences, self.probabilities):
            for sum_z, grad in zip(total, loss_and_grads(params, z[None], last, self.encoding)[1]):
                sum_z -= probability * grad
        return total

    def descent_of_WK2(self, params):
        """⟨E[q], −∂L/∂WK2 ·⟩ on E and on Phi E."""
        row = self.frame.E[self.q] @ self.descent(params).WK2
        return moments.SecondGradient(self.frame.E @ row, self.frame.E @ self.frame.Phi.T @ row)

    def descent_of_WK1(self, params):
        """⟨Σ_v E[v], −∂L/∂WK1 pos[δ]⟩ for every δ; if absolute, ⟨pos[t], −∂L/∂WK1 pos[s]⟩ (T, T)."""
        E, pos = self.frame.E, self.frame.pos
        return (pos if self.encoding == "absolute" else E.sum(axis=0)) @ self.descent(params).WK1 @ pos.T


def sequence_distribution(pi_u, pi_b, pi_o, q, T, redrawn=False):
    """All sequences z_0 … z_{T−1} = q with their label o as token T, and their probabilities.

    `redrawn` draws the output anew at every visit of q: each is then as likely as the label.
    """
    V = len(pi_u)
    sequences = np.array([[*z, q, o] for z in product(range(V), repeat=T - 1) for o in range(V)])
    probabilities = []
    for z in sequences:
        steps = [(pi_o[u] if redrawn else u == z[-1]) if v == q else pi_b[v, u]
                 for v, u in zip(z[:-2], z[1:-1])]
        probabilities.append(pi_u[z[0]] * pi_o[z[-1]] * np.prod(steps))
    keep = np.array(probabilities) > 0
    return sequences[keep], np.array(probabilities)[keep] / np.sum(probabilities)


REDRAWN = "output drawn anew at every visit, not once per sequence"
OUTPUTS = ("random", "uniform")
STEP = 0.05     # of gradient descent: small enough for leading order, far above rounding
ORDER = 0.1     # how far below a whole number the observed order of a remainder may stay


def order_of(remainder, order):
    """`order`, and log2 of how much a remainder shrinks when the step is halved, `order` at most.

    Where its coefficient vanishes (two tokens, uniform outputs) the remainder shrinks faster, or is 0.
    """
    whole, half = np.linalg.norm(remainder(STEP)), np.linalg.norm(remainder(STEP / 2))
    return order, min(np.log2(whole / half), order) if half > 0 else order, ORDER


@claim("I7", "the first gradient of WO and WF is a Markov moment", source="BCBJB23", provenance="derived",
       derivation=moments.first_gradient, cases=10, control=REDRAWN, control_space=dict(T=(2, 5)),
       outputs=OUTPUTS, V=(2, 3), T=(1, 5))
def first_gradient_is_a_moment(case, outputs, V, T):
    """All four tables, against backpropagation summed over all sequences."""
    chain = TriggerChain(case, outputs, V, T)
    down = chain.descent(chain.frame)
    E, E_image, U, WV = chain.frame.E, chain.frame.E @ chain.frame.Phi.T, chain.frame.U, chain.frame.WV
    return (moments.first_gradient(moments.pair_moments(*chain.laws)),
            moments.FirstGradient(U @ down.WO @ WV @ E.T, U @ down.WO @ WV @ E_image.T,
                                  U @ down.WF @ E.T, U @ down.WF @ E_image.T))


@claim("I7b", "the second step, of WK2: leading order, remainder one higher", source="BCBJB23",
       provenance="derived", derivation=moments.second_gradient, kind="limit", cases=6, control=REDRAWN,
       reason="the remainder is η² (C + O(η)): from η = 0.05 to 0.025 its order is at least 2 − 0.1",
       outputs=OUTPUTS, V=(2, 3), T=(2, 4))
def second_gradient_at_leading_order(case, outputs, V, T):
    """The order of what is left of ∂L/∂WK2, after a gradient step of WO, when theory is taken off."""
    chain = TriggerChain(case, outputs, V, T)
    J = moments.pair_moments(*chain.laws)
    leading = moments.second_gradient(J, *moments.first_gradient(J)[:2])
    down = chain.descent(chain.frame)

    def remainder(step):
        return np.subtract(chain.descent_of_WK2(chain.frame._replace(WO=step * down.WO)),
                           step * np.array(leading))
    return order_of(remainder, 2)


def third_step(chain, path):
    """What is left of ∂L/∂WK1 after steps of WO and WK2 of some size, when theory is taken off; its order."""
    frame, q, V = chain.frame, chain.q, len(chain.frame.E)
    J = moments.pair_moments(*chain.laws)
    A, B = moments.first_gradient(J)[:2]
    down = chain.descent(frame)
    if path == "values":
        by_values = moments.third_gradient_by_values(J, B, chain.encoding)

        def remainder(step):
            params = frame._replace(WO=step * down.WO)
            params = params._replace(WK2=step * chain.descent(params).WK2)
            return chain.descent_of_WK1(params) - step * by_values
        return remainder, 2
    values, images = frame.E @ frame.WV.T, frame.E @ frame.Phi.T
    d = moments.second_gradient(J, A, np.zeros((V, V))).WK2_mixed
    leading = moments.third_gradient_by_keys(J, A, d, chain.encoding)

    def remainder_of_match(step):
        params = frame._replace(WO=step * down.WO @ values.T @ values)
        learned = chain.descent_of_WK2(params).WK2_mixed
        params = params._replace(WK2=step * np.outer(frame.E[q], learned @ images))
        return chain.descent_of_WK1(params) - step ** 3 * leading
    return remainder_of_match, 4


THIRD = dict(path=("keys", "values"), outputs=OUTPUTS, V=(2, 3), T=(3, 4))


@claim("I7c", "the third step, of WK1: leading order, remainder one higher", source="BCBJB23",
       provenance="derived", derivation=moments.third_gradient_by_keys, kind="limit", cases=6,
       control=REDRAWN, reason="as I7b; order 2 or, where the match alone teaches, 4", **THIRD)
def third_gradient_at_leading_order(case, path, outputs, V, T):
    """The order of what is left of ∂L/∂WK1, after steps of WO and WK2, when theory is taken off."""
    return order_of(*third_step(TriggerChain(case, outputs, V, T), path))


@claim("I7d", "the third step of WK1 with absolute positions", source="this project",
       provenance="derived", derivation=moments.third_gradient_by_keys, kind="limit", cases=6,
       control=REDRAWN, reason="as I7c", **THIRD)
def third_gradient_at_absolute_positions(case, path, outputs, V, T):
    """The same for every pair of positions."""
    return order_of(*third_step(TriggerChain(case, outputs, V, T, "absolute"), path))
