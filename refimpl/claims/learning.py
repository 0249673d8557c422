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
    z = np.array([[*z, q, o] for z in product(range(len(pi_u)), repeat=T - 1) for o in range(len(pi_o))])
    before, after = z[:, :-2], z[:, 1:-1]
    output = pi_o[after] if redrawn else after == z[:, -1:]
    steps = np.where(before == q, output, pi_b[before, after])
    probabilities = pi_u[z[:, 0]] * pi_o[z[:, -1]] * steps.prod(axis=1)
    keep = probabilities > 0
    return z[keep], probabilities[keep] / probabilities.sum()


def in_memories(frame, gradient):
    """What a gradient of WO and WF stores, each U[k] by each stored direction."""
    E, images, WO = frame.E, frame.E @ frame.Phi.T, frame.U @ gradient.WO @ frame.WV
    WF = frame.U @ gradient.WF
    return moments.FirstGradient(WO @ E.T, WO @ images.T, WF @ E.T, WF @ images.T)


OUTPUTS: dict = dict(outputs=("random", "uniform"), V=(2, 3), provenance="derived",
                     control="output drawn anew at every visit, not once per sequence")
ORDERS: dict = dict(OUTPUTS, kind="limit", cases=6)
STEP = 0.05     # of gradient descent: small enough for leading order, far above rounding


def order_of(remainder, order):
    """`order`; log2 of how much a remainder shrinks when the step is halved, or `order`; and what is allowed.

    Where its coefficient vanishes (two tokens, uniform outputs) the remainder shrinks faster, or is 0.
    """
    whole, half = np.linalg.norm(remainder(STEP)), np.linalg.norm(remainder(STEP / 2))
    return order, min(np.log2(whole / half), order) if half > 0 else order, 0.1


@claim("I7", "the first gradient of WO and WF is a Markov moment", source="BCBJB23", cases=10,
       derivation=moments.first_gradient, control_space=dict(T=(2, 5)), T=(1, 5), **OUTPUTS)
def first_gradient_is_a_moment(case, outputs, V, T):
    """All four tables, against backpropagation summed over all sequences."""
    chain = TriggerChain(case, outputs, V, T)
    return (moments.first_gradient(moments.pair_moments(*chain.laws)),
            in_memories(chain.frame, chain.descent(chain.frame)))


@claim("I7b", "the second step, of WK2: leading order, remainder one higher", source="BCBJB23",
       derivation=moments.second_gradient, T=(2, 4), **ORDERS,
       reason="the remainder is η² (C + O(η)): from η = 0.05 to 0.025 its order is at least 2 − 0.1")
def second_gradient_at_leading_order(case, outputs, V, T):
    """The order of what is left of ∂L/∂WK2, after a gradient step of WO, when theory is taken off."""
    chain = TriggerChain(case, outputs, V, T)
    J = moments.pair_moments(*chain.laws)
    leading = moments.second_gradient(J, *moments.first_gradient(J)[:2])
    WO = chain.descent(chain.frame).WO
    return order_of(lambda step: np.subtract(chain.descent_of_WK2(chain.frame._replace(WO=step * WO)),
                                             step * np.array(leading)), 2)


def third_step(case, encoding, path, outputs, V, T):
    """The order of what is left of ∂L/∂WK1 after steps of WO and WK2, when theory is taken off."""
    chain = TriggerChain(case, outputs, V, T, encoding)
    frame, J = chain.frame, moments.pair_moments(*chain.laws)
    A, B = moments.first_gradient(J)[:2]
    WO, values, images = chain.descent(frame).WO, frame.E @ frame.WV.T, frame.E @ frame.Phi.T
    if path == "values":
        leading, order = moments.third_gradient_by_values(J, B, encoding), 2
    else:
        d = moments.second_gradient(J, A, np.zeros((V, V))).WK2_mixed
        leading, order = moments.third_gradient_by_keys(J, A, d, encoding), 4
        WO = WO @ values.T @ values

    def remainder(step):
        params = frame._replace(WO=step * WO)
        WK2 = chain.descent(params).WK2
        if path == "keys":      # the match alone
            WK2 = np.outer(frame.E[chain.q], frame.E[chain.q] @ WK2 @ images.T @ images)
        return chain.descent_of_WK1(params._replace(WK2=step * WK2)) - step ** (order - 1) * leading
    return order_of(remainder, order)


THIRD: dict = dict(ORDERS, derivation=moments.third_gradient_by_keys, path=("keys", "values"), T=(3, 4))


@claim("I7c", "the third step, of WK1: leading order, remainder one higher", source="BCBJB23",
       reason="as I7b; order 2 or, where the match alone teaches, 4", **THIRD)
def third_gradient_at_leading_order(case, **drawn):
    """One memory for every distance."""
    return third_step(case, "relative", **drawn)


@claim("I7d", "the third step of WK1 with absolute positions", source="this project",
       reason="as I7c", **THIRD)
def third_gradient_at_absolute_positions(case, **drawn):
    """One memory for every pair of positions."""
    return third_step(case, "absolute", **drawn)
