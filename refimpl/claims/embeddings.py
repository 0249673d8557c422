"""The claims on random embeddings (I6, I12): how far the model is from its closed form, at any width.

The model meets 2V + L embeddings, and what Phi makes of V of them. Its logits depend on their inner products
alone, so that `narrow` needs 3V + L coordinates at every width d.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import linregress, t as student

from refimpl.claims.claim import OURS, claim
from refimpl.gradcheck import complex_step
from refimpl.induction import theory
from refimpl.induction.memory import construct
from refimpl.induction.model import Params, forward
from refimpl.induction.task import Bigram, sample


class Coordinates(NamedTuple):
    """What is random, in an orthonormal basis that begins with the embeddings; variances are times d."""

    rows: np.ndarray        # (2V+L, 2V+L) lower triangular: E, U, pos
    images: np.ndarray      # (V, 3V+L), lower triangular from column 2V+L on: Phi of the first V axes
    values: np.ndarray      # (3V+L, 3V+L) lower triangular: rows are WV of each axis


def mean_and_spread(V, L):
    """Coordinates as d → ∞, the orthonormal frame, and the variances of d^(1/2) times what is added to it.

    They are 1, and 1/2 on the diagonal, which holds lengths: |x|² has variance 2/d.
    """
    n, m = 2 * V + L, 3 * V + L

    def triangle(size):
        return np.tril(np.ones((size, size))) - np.eye(size) / 2
    return (Coordinates(np.eye(n), np.eye(m)[n:], np.eye(m)),
            Coordinates(triangle(n), np.hstack([np.ones((V, n)), triangle(V)]), triangle(m)))


def draw_coordinates(rng, V, L, d):
    """Coordinates of Gaussian embeddings of width d ≥ 3V + L.

    A Gaussian matrix with d columns is a triangular one times an orthogonal one: Gaussians stand below the
    diagonal, and on it lengths of Gaussian vectors in d, d − 1, … dimensions.
    """
    def triangle(size, dimensions):
        lower = np.tril(rng.normal(size=(size, size)), -1)
        return (lower + np.diag(np.sqrt(rng.chisquare(dimensions - np.arange(size))))) / np.sqrt(d)
    n = 2 * V + L
    across = rng.normal(size=(V, n)) / np.sqrt(d)
    return Coordinates(triangle(n, d), np.hstack([across, triangle(V, d - n)]), triangle(n + V, d))


def narrow(coordinates, V):
    """Params of width 3V + L with these inner products, the trained weights zero."""
    rows, images, values = coordinates
    n, m = len(rows), len(values)
    E, U, pos = np.split(np.hstack([rows, np.zeros((n, V))]), [V, 2 * V])
    Phi = np.hstack([images.T, np.zeros((m, n))])
    return Params(E, U, pos, Phi, values.T, *np.zeros((4, m, m), rows.dtype))


def draw_logits(case, bigram, z, d, *strengths, length=1.0):
    """Logits of the model with one draw of embeddings of width d; those of tokens have this length."""
    V = len(bigram.pi_u)
    frame = narrow(draw_coordinates(case.rng, V, len(z), d), V)
    return forward(construct(frame._replace(E=length * frame.E), bigram, [0], *strengths), z).logits


def flat_bigram(case, V):
    """No rare pair that rules the gap."""
    return Bigram.from_counts(case.rng.integers(1, 5, (V, V)))


WIDTHS = 2.0 ** np.arange(8, 20.1, 1.5)
DRAWS = 40          # of embeddings and prompt, at each width


@claim("I6", "random embeddings: the gap to I3 falls as d^(-1/2)", source="BCBJB23, NLB24",
       provenance="derived", derivation=theory.embedding_slope, kind="limit", cases=1,
       reason="the slope's 99.9 % interval holds −1/2 (one true line in 1000 fails that)",
       control="entries of E with variance 1/256 at every width", V=(4, 12), T=(8, 16), strength=(0.5, 1.0))
def gap_of_random_embeddings(case, V, T, strength):
    """A line through log rms gap against log d, from 2^8 to 2^20."""
    bigram, strengths = flat_bigram(case, V), (strength, strength, 1.0)
    prompts = sample(bigram, DRAWS * (10 if case.full else 1), T, case.rng, [0]).tokens[:, :T]
    expected = [theory.logits(z, np.log(bigram.pi_b), [0], *strengths) for z in prompts]
    squares = []
    for d in WIDTHS:
        length = (d / WIDTHS[0]) ** (0.5 * case.control)
        logits = [draw_logits(case, bigram, z, d, *strengths, length=length) for z in prompts]
        squares.append(np.square(np.subtract(logits, expected)).mean())
    line = linregress(np.log(WIDTHS), np.log(squares) / 2)
    return theory.embedding_slope(), line.slope, line.stderr * student.ppf(0.9995, len(WIDTHS) - 2)


def limit_of_the_gap(bigram, z, bo):
    """`theory.gap_constant` where every position weighs its keys alike."""
    c = np.cumsum(np.eye(len(bigram.pi_u))[z], axis=0) / np.arange(1, len(z) + 1)[:, None]
    return theory.gap_constant(np.log(bigram.pi_b), z[-1], c[-1], c[-1], c.mean(axis=0), bo)


@claim("I12", "constant of the gap to I3, attention given", derivation=theory.gap_constant, cases=6,
       reason="rounding of sums of squared derivatives", control="WV orthogonal, not Gaussian",
       law=("flat", "random"), V=(2, 3), T=(1, 5), bo=(0.2, 5.0), **OURS)
def constant_of_the_gap(case, law, V, T, bo):
    """d · E gap[u]² in the limit: the squared derivatives of the logit by all coordinates, times variances.

    The gap is of first order in what is added to the frame, so that its mean square is just this sum.
    """
    bigram = flat_bigram(case, V) if law == "flat" else Bigram.random(V, case.rng)
    z, u = case.rng.integers(0, V, T), int(case.rng.integers(V))
    frame, variances = mean_and_spread(V, T)

    def logit(coordinates):
        params = construct(narrow(coordinates, V), bigram, [0], 0, 0, bo)
        return forward(params, z).logits[-1, u]
    slopes = complex_step(logit, frame)
    if case.control:
        variances = variances._replace(values=0 * variances.values)
    return (limit_of_the_gap(bigram, z, bo)[u],
            sum((variance * slope ** 2).sum() for variance, slope in zip(variances, slopes)))


@claim("I12b", "d times the mean square gap tends to that constant", derivation=theory.gap_constant,
       kind="limit", cases=2, reason="five standard errors of a mean: one in two million",
       control="embeddings of half the width", V=(2, 6), T=(3, 8), bo=(0.5, 5.0), **OURS)
def samples_reach_the_constant(case, V, T, bo):
    """Σ_u d · gap[u]² over its limit, at d = 2^20."""
    bigram, z, d = flat_bigram(case, V), case.rng.integers(0, V, T), 2 ** 20
    logits = [draw_logits(case, bigram, z, d // (1 + case.control), 0, 0, bo)[-1]
              for _ in range(4000 if case.full else 300)]
    gaps = logits - theory.logits(z, np.log(bigram.pi_b), [0], 0, 0, bo)[-1]
    ratios = d * (gaps ** 2).sum(axis=1) / limit_of_the_gap(bigram, z, bo).sum()
    return 1.0, ratios.mean(), 5 * ratios.std() / len(ratios) ** 0.5
