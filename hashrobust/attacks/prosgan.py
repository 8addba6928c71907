"""ProS-GAN: Wang et al., "Prototype-supervised Adversarial Network", CVPR 2021, arXiv 2105.07553."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hashrobust.attacks import AttackContext, AttackResult, Clean, attacks, ball, project
from hashrobust.errors import InputError
from hashrobust.seeding import keyed_generator

from ._alpha import alpha_at, check_alpha
from ._base import State, call_model, check_count
from ._center import hard_codes
from ._context import Model, label_vectors, required, training_images
from ._generator import Discriminator, Generator
from ._networks import packed, seeded, unpacked
from ._prototypes import PrototypeAttack


@attacks.register("prosgan")
@dataclass(frozen=True, kw_only=True)
class ProSGAN(PrototypeAttack):
    """ProS-GAN: one network draws the change toward any target; knows training images, labels, codes.

    Wang et al., arXiv 2105.07553. The generator sees the image and the target's prototype, that of `tha`, and
    is trained once on training images with targets drawn from the training labels; an attack is one forward
    pass, without a gradient or a best iterate. Minimised over generators is
    weight MSE(x', x) + 5 (1 - mean u o p) + (D(x') - 1)^2, while the discriminator D minimises
    ((D(x) - 1)^2 + D(x')^2) / 2; Adam with decays (0.5, 0.999) for both. The networks are smaller than the
    published ones. Other parameters are those of `PrototypeAttack`.

    Args:
        epsilon: radius of the ball in pixel units; the change is epsilon tanh(...).
        seed: keys the first weights, the order of images and the targets.
        bounded: keep to the ball. The published attack does not: with False the change is tanh(...), clipped
            to [0, 1], and epsilon is not used.
        weight: of the mean squared error; 100, published for multi-label data 50.
        epochs: passes over the training images at the full learning rate.
        decay_epochs: further passes, during which it falls linearly to zero.
        learning_rate: of generator and discriminator.
        batch: training images a step; the published size is not known to us.
        alpha: of u = tanh(alpha z) in training, as in `GradientAttack`.

    Raises:
        InputError: a value out of range, or training that ends in weights that are not numbers.
    """

    bounded: bool = True
    weight: float = 100.0
    epochs: int = 5
    decay_epochs: int = 5
    learning_rate: float = 1e-3
    batch: int = 32
    alpha: float | str = "auto"

    version = 2  # alpha "auto" follows the images
    presets = {  # noqa: RUF012 - a class attribute, declared ClassVar by Attack
        "original": {
            "epochs": 50,
            "decay_epochs": 50,
            "learning_rate": 1e-4,
            "alpha": 1.0,
            "prototype_steps": 30_000,
            "prototype_rate": 1e-4,
        },
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("epochs", 1), ("decay_epochs", 0), ("batch", 1)):
            check_count(name, getattr(self, name), least)
        if not isinstance(self.bounded, bool):
            raise InputError(f"bounded is {self.bounded!r}: give True or False")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate {self.learning_rate:g} learns nothing: give a rate above 0")
        if not self.weight >= 0:
            raise InputError(f"weight {self.weight:g} rewards large changes: give 0 or more")
        check_alpha(self.alpha)

    @property
    def needs(self) -> frozenset[str]:
        """Training images and codes, and the targets to reach."""
        return frozenset({"train_codes", "train_images", "targets"})

    def learn(self, model: Model, context: AttackContext) -> State:
        """The weights of the PrototypeNet and of the generator."""
        fitted = self.learn_prototypes(context)
        first = training_images(context, torch.tensor([0]))
        vectors = label_vectors(required(context.train_labels))
        known = AttackContext(
            train_codes=context.train_codes, train_labels=context.train_labels, fitted=fitted
        )
        like = first.float()  # as the networks here compute; the model does so in the precision of the images
        prototypes = self.prototypes(vectors, like, known)
        generator = self._train(lambda images: model(images.to(first.dtype)), prototypes, like, context)
        if not all(bool(weight.isfinite().all()) for weight in generator.parameters()):
            raise InputError(
                f"the generator of prosgan diverged: give a learning rate below {self.learning_rate:g}"
            )
        return fitted | packed(generator, "generator")

    def _train(self, model: Model, prototypes: Tensor, like: Tensor, context: AttackContext) -> Generator:
        """A generator for images as `like` (B, C, H, W) and the prototypes (L, K) of all targets."""
        channels, count = like.shape[1], len(required(context.train_labels))
        generator = seeded(
            lambda: Generator(channels, prototypes.shape[1]), "prosgan generator", self.seed
        ).to(like.device)
        discriminator = seeded(lambda: Discriminator(channels), "prosgan discriminator", self.seed).to(
            like.device
        )
        drawers, judges = list(generator.parameters()), list(discriminator.parameters())
        optimizers = [
            torch.optim.Adam(weights, lr=self.learning_rate, betas=(0.5, 0.999))
            for weights in (drawers, judges)
        ]
        epochs, step = self.epochs + self.decay_epochs, 0
        for epoch in range(epochs):
            rate = self.learning_rate * min(1.0, (epochs - epoch) / (self.decay_epochs + 1))
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = rate
            order = torch.randperm(count, generator=keyed_generator("prosgan images", self.seed, epoch))
            draws = keyed_generator("prosgan targets", self.seed, epoch)
            aims = torch.randint(len(prototypes), (count,), generator=draws)
            for rows in torch.split(order, self.batch):
                if context.before_step is not None:
                    context.before_step(0, step)
                step += 1
                images, aim = training_images(context, rows).to(like), prototypes[aims[rows].to(like.device)]
                changed = (images + self._radius * generator(images, aim)).clamp(0, 1)
                genuine, drawn = discriminator(images), discriminator(changed.detach())
                judgement = ((genuine - 1).square().mean() + drawn.square().mean()) / 2
                _step(optimizers[1], judgement, judges)
                z = call_model(model, changed)
                u = torch.tanh(alpha_at(self.alpha, epoch, epochs, z) * z)
                loss = (
                    self.weight * (changed - images).square().mean()
                    + 5 * (1 - (u * aim).mean())
                    + (discriminator(changed) - 1).square().mean()
                )
                _step(optimizers[0], loss, drawers)
        return generator

    @property
    def _radius(self) -> float:
        return self.epsilon if self.bounded else 1.0

    @torch.no_grad()
    def perturb(
        self, model: Model, clean: Clean, labels: Tensor | None, context: AttackContext
    ) -> AttackResult:
        """See `Attack.perturb`."""
        like = clean.images.float()
        prototypes = self.prototypes(required(context.targets), like, context)
        channels, bits = like.shape[1], prototypes.shape[1]
        generator = unpacked(lambda: Generator(channels, bits), context, "generator", like)
        change = self._radius * generator(like, prototypes).to(clean.images)
        images = project(clean.images + change, *ball(clean.images, self._radius))
        codes = hard_codes(call_model(model, images))
        return AttackResult.at_once(
            images, -(codes * prototypes).mean(dim=1), -(clean.codes * prototypes).mean(dim=1)
        )


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, weights: list[torch.nn.Parameter]) -> None:
    """One step along the loss's gradient by these weights alone: those of the model get none."""
    optimizer.zero_grad()
    torch.autograd.backward(loss, inputs=weights)
    optimizer.step()
