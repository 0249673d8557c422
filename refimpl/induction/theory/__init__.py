"""Closed forms of system I: what the model must compute, derived without it."""

from refimpl.induction.theory.dynamics import (
    FirstGradient, SecondGradient, first_gradient, pair_moments, second_gradient, third_gradient_by_keys,
    third_gradient_by_values)
from refimpl.induction.theory.embeddings import embedding_slope, gap_constant
from refimpl.induction.theory.limits import Hijack, hard_mass, hard_remainder, hijack, hijack_margin
from refimpl.induction.theory.logits import (
    WithoutPositions, in_context_mass, logits, previous_token_attention, sharp_bounds, sharp_strengths,
    without_positions)

__all__ = ["FirstGradient", "Hijack", "SecondGradient", "WithoutPositions", "embedding_slope",
           "first_gradient", "gap_constant", "hard_mass", "hard_remainder", "hijack", "hijack_margin",
           "in_context_mass", "logits", "pair_moments", "previous_token_attention", "second_gradient",
           "sharp_bounds", "sharp_strengths", "third_gradient_by_keys", "third_gradient_by_values",
           "without_positions"]
