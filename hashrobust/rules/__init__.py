"""Learning rules: which feedback weight V carries a layer's error back to its input."""

from hashrobust.rules._agreement import SignalAgreement, signal_agreement
from hashrobust.rules._convert import SCALES, ConversionReport, convert, takes_scale
from hashrobust.rules._exact import exact_gradient
from hashrobust.rules._feedback import (
    LayerAlignment,
    alignment,
    feedback_scale,
    feedback_seed,
    feedback_state,
    layers_of,
    load_feedback_state,
    redraw_feedback,
    rule_of,
)
from hashrobust.rules._folding import Folding
from hashrobust.rules._layers import ConvertedLayer, FeedbackLayer, fix_weights
from hashrobust.rules._rule import LearningRule, Rule, rules

__all__ = [
    "SCALES",
    "ConversionReport",
    "ConvertedLayer",
    "FeedbackLayer",
    "Folding",
    "LayerAlignment",
    "LearningRule",
    "Rule",
    "SignalAgreement",
    "alignment",
    "convert",
    "exact_gradient",
    "feedback_scale",
    "feedback_seed",
    "feedback_state",
    "fix_weights",
    "layers_of",
    "load_feedback_state",
    "redraw_feedback",
    "rule_of",
    "rules",
    "signal_agreement",
    "takes_scale",
]
