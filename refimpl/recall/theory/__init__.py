"""Closed forms of system R: what the model must compute, derived without it."""

from refimpl.recall.theory.convergence import (
    LeaderBounds, Trap, context_bounds, decided_loss, leader_bounds, leader_loss_bound, leading_pair,
    trap_law, way_back)
from refimpl.recall.theory.dynamics import (
    GrowthRates, flow, gap_rates, gradient_support, growth_rates, infer_end_loss, query_rate,
    recall_end_point, recall_flow, trajectory)
from refimpl.recall.theory.logits import (
    infer_logits, infer_loss, recall_logits, recall_loss, relu_recall_logits, relu_recall_loss)
from refimpl.recall.theory.noise import (
    collision_free_probability, collision_loss, noisy_accuracy, noisy_loss, population_bounds)
from refimpl.recall.theory.samples import (
    Drift, Law, drift_law, recall_floor, score_factors, training_law, transfer_law)

__all__ = ["Drift", "GrowthRates", "Law", "LeaderBounds", "Trap", "collision_free_probability",
           "collision_loss", "context_bounds", "decided_loss", "drift_law", "flow", "gap_rates",
           "gradient_support", "growth_rates", "infer_end_loss", "infer_logits", "infer_loss",
           "leader_bounds", "leader_loss_bound", "leading_pair", "noisy_accuracy", "noisy_loss",
           "population_bounds", "query_rate", "recall_end_point", "recall_floor", "recall_flow",
           "recall_logits", "recall_loss", "relu_recall_logits", "relu_recall_loss", "score_factors",
           "training_law", "trajectory", "transfer_law", "trap_law", "way_back"]
