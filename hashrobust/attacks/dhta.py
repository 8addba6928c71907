"""P2P and DHTA: Bai et al., "Targeted Attack for Deep Hashing based Retrieval", arXiv 2004.07955."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hashrobust.attacks import AttackContext, Clean, GradientAttack, attacks
from hashrobust.errors import InputError
from hashrobust.seeding import keyed_generator

from ._base import State, check_count
from ._center import hard_codes
from ._context import required

# The authors' ball and step lie in ImageNet-normalised space; this is the mean of its three deviations.
_IMAGENET_STD = (0.229 + 0.224 + 0.225) / 3


@attacks.register("dhta")
@dataclass(frozen=True, kw_only=True)
class DHTA(GradientAttack):
    """DHTA: toward the majority of nine database codes of the target; knows database codes and labels.

    Bai et al., arXiv 2004.07955. Minimises -(u . a) / K, where the anchor a is the bitwise majority of
    `anchors` database codes with exactly the target label, drawn with replacement by (seed, sample id).
    The shared parameters are those of `GradientAttack`.

    Args:
        anchors: number of codes that vote.
    """

    anchors: int = 9

    presets = {  # noqa: RUF012 - a class attribute, declared ClassVar by Attack
        "original": {
            "epsilon": 0.032 * _IMAGENET_STD,
            "steps": 2000,
            "step_size": 1.0 * _IMAGENET_STD,
            "optimizer": "normalized",
            "alpha": "A10",
            "random_start": False,
        },
        "saat": {
            "epsilon": 0.032,
            "steps": 2000,
            "step_size": 1 / 255,
            "alpha": "A10",
            "random_start": False,
        },
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("anchors", self.anchors, of="codes to aim at")

    @property
    def needs(self) -> frozenset[str]:
        """Database codes and the targets to reach."""
        return frozenset({"database_codes", "targets"})

    @property
    def goal(self) -> str:
        """Targeted."""
        return "targeted"

    def prepare(self, codes: Tensor, labels: Tensor | None, context: AttackContext) -> State:
        """The anchor codes (B, K)."""
        targets = required(context.targets).float()
        table_labels = required(context.database_labels).to(targets)
        table = required(context.database_codes)
        # Two label sets are equal if they share all of their labels.
        shared = targets @ table_labels.T
        equal = (shared == targets.sum(dim=1)[:, None]) & (shared == table_labels.sum(dim=1)[None, :])
        anchors = []
        for row, sample in enumerate(context.ids.tolist()):
            matching = equal[row].nonzero().flatten().cpu()
            if not len(matching):
                raise InputError(
                    f"sample {sample}: no database item has exactly its target label; draw targets from the "
                    "database (draw_targets)"
                )
            generator = keyed_generator("anchors", self.seed, sample)
            drawn = matching[torch.randint(len(matching), (self.anchors,), generator=generator)]
            anchors.append(hard_codes(table[drawn.to(table.device)].float().sum(dim=0)))
        return {"anchor": torch.stack(anchors).to(codes)}

    def objective(self, u: Tensor, images: Tensor, clean: Clean, state: State) -> Tensor:
        """See the class."""
        return -(u * state["anchor"]).mean(dim=1)

    def goal_codes(self, codes: Tensor, state: State) -> Tensor:
        """The anchor."""
        return state["anchor"]


@attacks.register("p2p")
@dataclass(frozen=True, kw_only=True)
class P2P(DHTA):
    """P2P: toward one random database code of the target; DHTA with a single anchor.

    Bai et al., arXiv 2004.07955. Parameters and presets are those of `DHTA`.
    """

    anchors: int = 1
