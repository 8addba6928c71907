"""PrototypeNet: label vectors to codes, learnt from training codes; Wang et al., SIGIR 2021."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hashrobust.errors import InputError
from hashrobust.seeding import keyed_generator

from ._base import Attack, State, check_count
from ._center import hard_codes
from ._context import AttackContext, Model, label_vectors, required, resolve
from ._networks import packed, seeded, unpacked

BATCH = 64
QUANTIZATION = 1e-4

# Stands for minus infinity, where a gradient must not turn into NaN.
_NEVER = -1e4


class PrototypeNet(nn.Sequential):
    """Label vectors (L, C) to relaxed codes (L, K) in [-1, 1]."""

    def __init__(self, classes: int, bits: int) -> None:
        super().__init__(
            nn.Linear(classes, 4096), nn.ReLU(), nn.Linear(4096, 512), nn.Linear(512, bits), nn.Tanh()
        )


def prototype_loss(prototypes: Tensor, codes: Tensor, shared: Tensor) -> Tensor:
    """What PrototypeNet minimises, (L,).

    With s = <p, code> / K, positives s_p of codes that share a label and negatives s_n of those that do
    not: softplus(logsumexp([s_n + 2]+ s_n) + logsumexp(-[2 - s_p]+ s_p)) + 1e-4 |p - sign p|^2, the
    weights in brackets without gradient; an empty side is dropped. Its slope is positive in every s_n and
    negative in every s_p, so prototypes come closer to codes that share a label. Shapes: relaxed
    prototypes (L, K), codes (N, K), shared (L, N) bool. Source: Wang et al., SIGIR 2021.
    """
    similarity = prototypes @ codes.T / codes.shape[1]
    away = F.relu(similarity.detach() + 2) * similarity
    toward = -F.relu(2 - similarity.detach()) * similarity
    sides = torch.zeros_like(similarity[:, 0])
    for terms, members in ((away, ~shared), (toward, shared)):
        total = terms.masked_fill(~members, _NEVER).logsumexp(dim=1)
        sides = sides + torch.where(members.any(dim=1), total, 0.0)
    return F.softplus(sides) + QUANTIZATION * (prototypes - hard_codes(prototypes)).square().sum(dim=1)


def train_prototypes(
    codes: Tensor, labels: Tensor, *, steps: int, learning_rate: float, seed: int
) -> PrototypeNet:
    """A PrototypeNet for training codes (N, K) and their multi-hot labels (N, C).

    Adam with decays (0.5, 0.999), its rate divided by 10 at 1/2 and 3/4 of the steps. A step takes all
    distinct label vectors, or `BATCH` of them drawn by (seed, step), against all training codes; the
    publication's batch size is not known to us.
    """
    vectors, labels = label_vectors(labels).float(), labels.float()
    network = seeded(lambda: PrototypeNet(labels.shape[1], codes.shape[1]), "prototypes", seed).to(
        codes.device
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, betas=(0.5, 0.999))
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps // 2, 3 * steps // 4], gamma=0.1)
    for step in range(steps):
        chosen = vectors
        if len(vectors) > BATCH:
            order = torch.randperm(len(vectors), generator=keyed_generator("prototype labels", seed, step))
            chosen = vectors[order[:BATCH].to(vectors.device)]
        loss = prototype_loss(network(chosen), codes, chosen @ labels.T > 0).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return network


@dataclass(frozen=True, kw_only=True)
class PrototypeAttack(Attack):
    """An attack toward the prototype code of the target; its PrototypeNet is learnt once, without the model.

    Classes that no training image has are unknown to the network and left out of a target.

    Args:
        prototype_steps: of the training of the PrototypeNet, see `train_prototypes`.
        prototype_rate: its learning rate.

    Raises:
        InputError: a value out of range.
    """

    prototype_steps: int = 100
    prototype_rate: float = 1e-3

    fits = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("prototype_steps", self.prototype_steps)
        if not self.prototype_rate > 0:
            raise InputError(f"prototype_rate {self.prototype_rate:g} learns nothing: give a rate above 0")

    @property
    def needs(self) -> frozenset[str]:
        """Training codes and the targets to reach."""
        return frozenset({"train_codes", "targets"})

    @property
    def goal(self) -> str:
        """Targeted."""
        return "targeted"

    def learn(self, model: Model, context: AttackContext) -> State:
        """The weights of the PrototypeNet."""
        return self.learn_prototypes(context)

    def learn_prototypes(self, context: AttackContext) -> State:
        """The weights of the PrototypeNet, for which no model is needed."""
        labels = required(context.train_labels)
        if not bool(labels.any()):
            raise InputError(
                "train_labels hold no label to learn prototypes of: give labelled training images"
            )
        with torch.enable_grad():
            network = train_prototypes(
                required(context.train_codes).float(),
                labels[:, known_classes(context)],
                steps=self.prototype_steps,
                learning_rate=self.prototype_rate,
                seed=self.seed,
            )
        return packed(network, "prototype")

    @torch.no_grad()
    def prototypes(self, targets: Tensor, like: Tensor, context: AttackContext) -> Tensor:
        """Prototype codes (B, K) in {-1, +1} of label vectors (B, C), in the type and on the device of `like`.

        Raises:
            InputError: a target without any label that a training image has, or weights that do not fit.
        """
        known = known_classes(context)
        targets = targets[:, known.to(targets.device)]
        if not bool(targets.any(dim=1).all()):
            raise InputError(
                "targets hold a row without any label that a training image has: draw targets from the "
                "training labels (draw_targets)"
            )
        bits = required(context.train_codes).shape[1]
        network = unpacked(lambda: PrototypeNet(int(known.sum()), bits), context, "prototype", like)
        return hard_codes(network(targets.float().to(like.device))).to(like)

    def theory_codes(
        self, clean_codes: Tensor, labels: Tensor | None = None, context: AttackContext | None = None
    ) -> Tensor:
        """The prototypes; see `Attack.theory_codes`. Without `fitted` they are learnt anew."""
        _, known = resolve(self.called, self.needs, len(clean_codes), labels, context)
        if known.fitted is None:
            known = replace(known, fitted=self.learn_prototypes(known))
        return self.prototypes(required(known.targets), clean_codes.to(torch.get_default_dtype()), known)


def known_classes(context: AttackContext) -> Tensor:
    """Which classes some training image has, (C,) bool."""
    return (required(context.train_labels) != 0).any(dim=0)
