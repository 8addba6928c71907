"""What all defences share: their contract with the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from hashrobust.datasets import Split
from hashrobust.models import Network


class Defence(ABC):
    """A second term of the loss, for which the model may be asked again.

    Training resumes at the beginning of an epoch: what a defence keeps must follow from the weights then,
    and what it draws from its seed, the step and the sample ids. Where several processes train together each is asked
    for the images of its share: the loss must be a mean over images.
    """

    def start_epoch(self, model: Network, train: Split) -> None:  # noqa: B027 - most have nothing to prepare
        """Called before an epoch's first step."""

    @abstractmethod
    def loss(self, model: Network, images: Tensor, labels: Tensor, ids: Tensor, step: int) -> Tensor:
        """What is added to the objective's loss of one step, a scalar.

        Args:
            model: in training mode, to be left so; the gradient reaches its weights by its own rule.
            images: the augmented batch (B, C, H, W), in [0, 1].
            labels: multi-hot (B, classes).
            ids: of the samples (B,), in the dataset.
            step: training steps done so far.
        """
