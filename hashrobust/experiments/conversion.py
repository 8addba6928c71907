"""A configuration's learning rule put on a network, and what is said and kept of it."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.experiments.config import RuleConfig
from hashrobust.experiments.store import Folder
from hashrobust.models import Network
from hashrobust.options import BACKPROPAGATION
from hashrobust.progress import Progress
from hashrobust.rules import ConversionReport
from hashrobust.training import StagedRule

CONVERSION = "conversion.json"


def staged_rule(config: RuleConfig, model: Network) -> StagedRule:
    """How the network of a configuration is converted to its rule, or to one after the other."""
    return StagedRule.parse(
        config.rule,
        seed=config.seed,
        scale=config.feedback_scale,
        layers=config.layers,
        probe=_probe(model),
    )


def record_conversion(folder: Folder, reports: list[ConversionReport], progress: Progress) -> None:
    """Say which layers follow which rule, and keep those of the last, which is the run's."""
    for report in reports:
        if report.rule != BACKPROPAGATION:
            progress.say(f"rule {report.rule}: {len(report.converted)} layers converted")
        elif len(reports) == 1:
            progress.say("rule bp: plain backpropagation in every layer")
        for name, reason in report.left.items():
            progress.say(f"  {name or 'model'} stays on backpropagation: {reason}")
    folder.write_json(CONVERSION, {"converted": reports[-1].converted, "left": reports[-1].left})


def _probe(model: Network) -> Tensor:
    """An input batch of the right shape, which tells the layers that are called from the others."""
    return torch.zeros(2, *model.input_shape, device=model.device)
