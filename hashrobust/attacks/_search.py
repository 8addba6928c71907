"""The one loop of the attacks that only ask the model: propose, ask, keep what is not worse."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hashrobust.errors import HashRobustError, InputError

from ._alpha import auto_alpha
from ._ball import ball
from ._base import Attack, call_model, check_count
from ._best import BestIterates, Scores
from ._center import guide_codes, hard_codes
from ._context import TASKS, AttackContext, AttackResult, Clean, Model, resolve
from ._logits import classes_to_leave, margin, still_right
from ._random import keyed_uniform

ORACLES = ("relaxed", "codes")

# Where the share of changed pixels is halved, in ten-thousandths of the proposals: the published code of
# Andriushchenko et al., arXiv 1912.00049.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

# Random numbers of a sample that are drawn at once.
_BLOCK = 2**16


class OracleError(HashRobustError):
    """The model failed to answer in the midst of a search; `result` holds the best images until then."""

    def __init__(self, message: str, result: AttackResult) -> None:
        super().__init__(message)
        self.result = result


def share_at(share: float, proposal: int, proposals: int) -> float:
    """The share of the pixels that proposal 0 ... proposals - 1 changes."""
    progress = 10_000 * proposal // proposals
    return share / float(2 ** sum(progress > halving for halving in _HALVINGS))


@dataclass(frozen=True, kw_only=True)
class SearchAttack(Attack):
    """Random search in the corners of the ball: a proposal takes effect if the answer is not worse.

    Minimised is the agreement of the answer with the center code of the labels where labels and training
    codes are known, else with the image's own code; targeted, minus that with the target's center code.
    Of a classifier, the margin of the true class, or without labels of the one that is predicted at first.
    Accepting equal answers lets the search cross plateaus; of all images asked about each sample keeps the
    best by hard codes. A sample whose bits are all where they should be, or that is misclassified, is done
    and asks no more, unless the images are meant for another model (`AttackContext.transfer`).
    A model that raises ends the search with an `OracleError`.

    Args:
        epsilon: radius of the ball in pixel units.
        seed: keys all draws, with the sample id.
        targeted: go toward the targets of the context; not with classifiers.
        oracle: what the model answers: "relaxed", u = tanh(alpha z) with alpha by
            `auto_alpha` of the clean image, or the logits; or "codes", sign z or the predicted class and nothing more.
        budget: queries to the model for each image; the clean image and the start are the first two.
        share: of the pixels that the first proposals change; halved on the published schedule.

    Raises:
        InputError: a value out of range.
    """

    targeted: bool = False
    oracle: str = "relaxed"
    budget: int = 5000
    share: float = 0.8

    follows_gradient = False
    tasks = TASKS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.oracle not in ORACLES:
            raise InputError(f"unknown oracle '{self.oracle}': give 'relaxed' or 'codes'")
        check_count("budget", self.budget, 2, "queries an image")
        if not 0 < self.share <= 1:
            raise InputError(f"share {self.share:g} is no share of the pixels: give one above 0 and up to 1")

    def check_task(self, task: str) -> None:
        """See `Attack.check_task`; a targeted search is for hashing alone."""
        super().check_task(task)
        if self.targeted and task == "classification":
            raise InputError(
                f"attack {self.called} can leave a class of a classifier, not aim at one: leave "
                "targeted unset"
            )

    @property
    def needs(self) -> frozenset[str]:
        """Nothing, or the targets and the training codes that give their centers."""
        return frozenset({"train_codes", "targets"}) if self.targeted else frozenset()

    @property
    def goal(self) -> str:
        """By `targeted`."""
        return "targeted" if self.targeted else "non-targeted"

    @abstractmethod
    def start_numbers(self, shape: torch.Size) -> int:
        """How many uniform numbers the start of an image of shape (C, H, W) takes."""

    @abstractmethod
    def start(self, numbers: Tensor, shape: torch.Size) -> Tensor:
        """Which pixels start at +epsilon rather than -epsilon, from uniform numbers (B, n); broadcasts."""

    @abstractmethod
    def proposal_numbers(self, shape: torch.Size) -> int:
        """How many uniform numbers a proposal takes."""

    @abstractmethod
    def propose(self, numbers: Tensor, share: float, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Which pixels change, and which of them to +epsilon, from uniform numbers (B, n); both broadcast."""

    def theory_codes(
        self, clean_codes: Tensor, labels: Tensor | None = None, context: AttackContext | None = None
    ) -> Tensor | None:
        """See `Attack.theory_codes`."""
        if context is not None and context.task == "classification":
            return None
        labels, known = resolve(self.called, self.needs, len(clean_codes), labels, context)
        return -self._to_leave(clean_codes.to(torch.get_default_dtype()), labels, known)

    def _to_leave(self, codes: Tensor, labels: Tensor | None, context: AttackContext) -> Tensor:
        guide = guide_codes(codes, labels, context, targeted=self.targeted)
        return -guide if self.targeted else guide

    @torch.no_grad()
    def perturb(
        self, model: Model, clean: Clean, labels: Tensor | None, context: AttackContext
    ) -> AttackResult:
        """See `Attack.perturb`."""
        best = self._iterates(clean, labels, context)
        queries = torch.ones_like(best.finished, dtype=torch.int64)
        lower, upper = ball(clean.images, self.epsilon)
        present, value = clean.images, torch.full_like(clean.outputs[:, 0], torch.inf)
        for number, (changed, up) in enumerate(self._moves(clean.images, context.ids), start=1):
            if best.finished.all():
                break
            proposal = torch.where(changed, torch.where(up, upper, lower), present)
            outputs = self._ask(model, proposal, number, best, queries)
            active = ~best.finished
            queries += active
            answer = best.offer(proposal, outputs)
            accepted = (answer <= value) & active
            present = torch.where(accepted[:, None, None, None], proposal, present)
            value = torch.where(accepted, answer, value)
        return best.result(queries)

    def _iterates(self, clean: Clean, labels: Tensor | None, context: AttackContext) -> BestIterates:
        """Keeps the best images, by what the task makes of the answers."""
        if context.task == "classification":
            scores, optimum = self._class_scores(clean, labels), 0.0
        else:
            scores, optimum = self._code_scores(clean, labels, context), -1.0
        return BestIterates(clean, scores, -math.inf if context.transfer else optimum)

    def _code_scores(self, clean: Clean, labels: Tensor | None, context: AttackContext) -> Scores:
        """Agreement with the code to leave."""
        leave = self._to_leave(clean.codes, labels, context)
        alpha = auto_alpha(clean.outputs)

        def scores(images: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
            hard = (hard_codes(outputs) * leave).mean(dim=1)
            relaxed = self.oracle == "relaxed"
            return hard, (torch.tanh(alpha * outputs) * leave).mean(dim=1) if relaxed else hard

        return scores

    def _class_scores(self, clean: Clean, labels: Tensor | None) -> Scores:
        """Whether the class is still predicted, and its margin."""
        classes = classes_to_leave(labels, clean.outputs)

        def scores(images: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
            hard = still_right(outputs, classes)
            return hard, margin(outputs, classes) if self.oracle == "relaxed" else hard

        return scores

    def _ask(self, model: Model, images: Tensor, number: int, best: BestIterates, queries: Tensor) -> Tensor:
        try:
            return call_model(model, images)
        except InputError:
            raise
        except Exception as error:
            raise OracleError(
                f"the model failed after {number} of {self.budget} queries an image ({error!r}): lower the "
                "budget; the best images so far are in the `result` of this error",
                best.result(queries),
            ) from error

    def _moves(self, images: Tensor, ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Which pixels change, and which of them to +epsilon: all at the start, then by each proposal."""
        shape, device = images.shape[1:], images.device
        numbers = keyed_uniform(ids, (self.start_numbers(shape),), "search start", self.seed)
        yield torch.ones((), dtype=torch.bool, device=device), self.start(numbers.to(device), shape)
        proposals, size = self.budget - 2, self.proposal_numbers(shape)
        block = max(1, _BLOCK // size)
        for first in range(0, proposals, block):
            count = min(block, proposals - first)
            drawn = keyed_uniform(ids, (count, size), "search", self.seed, first).to(device)
            for place, numbers in enumerate(drawn.unbind(dim=1), start=first):
                yield self.propose(numbers, share_at(self.share, place, proposals), shape)
