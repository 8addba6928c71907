"""Training by one rule up to an epoch, and by another after it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from hashrobust.options import ALL_LAYERS, BACKPROPAGATION, Stage, parse_stages
from hashrobust.rules import ConversionReport, convert


@dataclass(frozen=True)
class StagedRule:
    """The rules of a training in their order, and how a model is converted to them (see `rules.convert`).

    Feedback is drawn when its stage begins, keyed as ever; with scale "matched" it gets the norm that weights have
    then. Weights and the optimizer's state go on across a switch. The best epoch is chosen among those of the last
    stage, and patience counts from its beginning: the run is one of that rule.
    """

    stages: tuple[Stage, ...]
    seed: int = 0
    scale: str = "xavier"
    layers: str = ALL_LAYERS
    probe: Tensor | None = None

    @classmethod
    def parse(cls, text: str, **how: object) -> StagedRule:
        """From a text such as `bp@5,frsf`; `how` are the other fields.

        Raises:
            InputError: see `parse_stages`.
        """
        return cls(parse_stages(text), **how)  # type: ignore[arg-type]

    @property
    def last(self) -> str:
        """The rule that the training ends with."""
        return self.stages[-1].rule

    @property
    def before_last(self) -> int:
        """How many epochs there are before the last stage."""
        return (self.stages[-2].until or 0) if len(self.stages) > 1 else 0

    def at(self, epoch: int) -> str:
        """The rule of an epoch, counted from 1."""
        return next(stage.rule for stage in self.stages if stage.until is None or epoch <= stage.until)

    def begins(self, epoch: int) -> bool:
        """Whether a stage begins with this epoch."""
        return epoch == 1 or self.at(epoch) != self.at(epoch - 1)

    def convert(self, model: nn.Module, rule: str) -> ConversionReport:
        """Convert a model to one of the rules; backpropagation has no layers to choose."""
        layers = ALL_LAYERS if rule == BACKPROPAGATION else self.layers
        device = next((parameter.device for parameter in model.parameters()), None)
        probe = None if self.probe is None else self.probe.to(device)
        return convert(model, rule, seed=self.seed, scale=self.scale, layers=layers, probe=probe)

    def convert_to_first(self, model: nn.Module) -> list[ConversionReport]:
        """Convert a model to the first rule, once to each of the others before; a report for each rule, in their order.

        Raises:
            UnknownNameError: there is no such rule.
            InputError: the model cannot be converted to one of them, or a pattern of layers fits none.
        """
        reports = [self.convert(model, stage.rule) for stage in reversed(self.stages)]
        return reports[::-1]
