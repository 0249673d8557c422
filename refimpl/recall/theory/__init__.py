"""Closed forms of system R: what the model must compute, derived without it."""

from refimpl.recall.theory.dynamics import (
    GrowthRates, flow, gap_rates, gradient_support, growth_rates, infer_end_loss, query_rate,
    recall_end_point, recall_flow, trajectory)
from refimpl.recall.theory.logits import (
    infer_logits, infer_loss, recall_logits, recall_loss, relu_recall_logits, relu_recall_loss)
from refimpl.recall.theory.samples import score_factors

__all__ = ["GrowthRates", "flow", "gap_rates", "gradient_support", "growth_rates", "infer_end_loss",
           "infer_logits", "infer_loss", "query_rate", "recall_end_point", "recall_flow", "recall_logits",
           "recall_loss", "relu_recall_logits", "relu_recall_loss", "score_factors", "trajectory"]
