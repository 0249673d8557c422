"""The claims on random embeddings (I6, I12): how far the model is from its closed form, at any width.

The model meets 2V + L embeddings, and what Phi makes of V of them. Its logits depend on their inner products
alone, so that `narrow` needs 3V + L coordinates at every width d: a model of width 10⁶ costs what one of
width 40 costs.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import linregress, t as student

from refimpl.claims.claim import claim
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


def flat_bigram(case, V):
    """No rare pair that rules the gap."""
    return Bigram.from_counts(case.rng.integers(1, 5, (V, V)))


WIDTHS = 2.0 ** np.arange(8, 20.1, 1.5)
DRAWS = 40          # of embeddings and prompt, at each width
CONFIDENCE = 0.999


@claim("I6", "random embeddings: the gap to I3 falls as d^(-1/2)", source="BCBJB23, NLB24",
       provenance="derived", derivation=theory.embedding_slope, kind="limit", cases=1,
       reason="the slope's 99.9 % interval holds −1/2 (one true line in 1000 fails that)",
       control="entries of E with variance 1/256 at every width", V=(4, 12), T=(8, 16), strength=(0.5, 1.0))
def gap_of_random_embeddings(case, V, T, strength):
    """A line through log rms gap against log d, from 2^8 to 2^20."""
    bigram, strengths, gaps = flat_bigram(case, V), (strength, strength, 1.0), []
    prompts = sample(bigram, DRAWS * (10 if case.full else 1), T, case.rng, [0]).tokens[:, :T]
    expected = [theory.logits(z, np.log(bigram.pi_b), [0], *strengths) for z in prompts]
    for d in WIDTHS:
        squares = []
        for z, logits in zip(prompts, expected):
            frame = narrow(draw_coordinates(case.rng, V, T, d), V)
            if case.control:
                frame = frame._replace(E=frame.E * (d / WIDTHS[0]) ** 0.5)
            params = construct(frame, bigram, [0], *strengths)
            squares.append(np.mean((forward(params, z).logits - logits) ** 2))
        gaps.append(np.sqrt(np.mean(squares)))
    line = linregress(np.log(WIDTHS), np.log(gaps))
    return (theory.embedding_slope(), line.slope,
            line.stderr * student.ppf((1 + CONFIDENCE) / 2, len(WIDTHS) - 2))


def uniform_attention(z, V):
    """c, h and g of `theory.gap_constant` where every position weighs its keys alike."""
    c = np.cumsum(np.eye(V)[z], axis=0) / np.arange(1, len(z) + 1)[:, None]
    return c[-1], c[-1], c.mean(axis=0)


@claim("I12", "constant of the gap to I3, attention given", source="this project", provenance="derived",
       derivation=theory.gap_constant, cases=6, reason="rounding of sums of squared derivatives",
       control="WV orthogonal, not Gaussian", law=("flat", "random"), V=(2, 3), T=(1, 5), bo=(0.2, 5.0))
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
    predicted = theory.gap_constant(np.log(bigram.pi_b), z[-1], *uniform_attention(z, V), bo)[u]
    return predicted, sum((variance * slope ** 2).sum() for variance, slope in zip(variances, slopes))


@claim("I12b", "d times the mean square gap tends to that constant", source="this project",
       provenance="derived", derivation=theory.gap_constant, kind="limit", cases=2,
       reason="five standard errors of a mean: one in two million", control="embeddings of half the width",
       V=(2, 6), T=(3, 8), bo=(0.5, 5.0))
def samples_reach_the_constant(case, V, T, bo):
    """Σ_u d · gap[u]² over its limit, at d = 2^20."""
    bigram, z, d = flat_bigram(case, V), case.rng.integers(0, V, T), 2 ** 20
    ratios = []
    for _ in range(4000 if case.full else 300):
        coordinates = draw_coordinates(case.rng, V, T, d // 2 if case.control else d)
        params = construct(narrow(coordinates, V), bigram, [0], 0, 0, bo)
        gap = forward(params, z).logits[-1] - theory.logits(z, np.log(bigram.pi_b), [0], 0, 0, bo)[-1]
        ratios.append(d * (gap ** 2).sum())
    expected = theory.gap_constant(np.log(bigram.pi_b), z[-1], *uniform_attention(z, V), bo).sum()
    return 1.0, np.mean(ratios) / expected, 5 * np.std(ratios) / len(ratios) ** 0.5 / expected
