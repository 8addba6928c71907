"""Center codes: the code nearest to the images that share a label and farthest from those that do not."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.errors import InputError

from ._context import AttackContext, required


def hard_codes(outputs: Tensor) -> Tensor:
    """Codes in {-1, +1} of outputs (B, K); sign(0) is +1."""
    return torch.where(outputs >= 0, 1.0, -1.0).to(outputs.dtype)


def center_codes(labels: Tensor, codes: Tensor, code_labels: Tensor, *, fallback: Tensor) -> Tensor:
    """Center code of each label vector, (B, K) in {-1, +1}.

    c = sign(mean of the codes that share a label, weighted by the cosine of the label vectors, minus
    the mean of those that share none); an empty side is dropped. A row without labels gets its row of
    `fallback` (B, K). Shapes: labels (B, C), codes (N, K), code_labels (N, C). Source: Wang et al.,
    arXiv 2204.10779; Yuan et al., arXiv 2310.14637.
    """
    rows, table = labels.double(), code_labels.double()
    norms = rows.norm(dim=1)[:, None] * table.norm(dim=1)[None, :]
    cosine = rows @ table.T / norms.clamp(min=torch.finfo(torch.float64).tiny)
    center = _mean(cosine, codes) - _mean((cosine == 0).double(), codes)
    labelled = rows.any(dim=1, keepdim=True)
    return torch.where(labelled, hard_codes(center).to(fallback.dtype), fallback)


def _mean(weights: Tensor, codes: Tensor) -> Tensor:
    """Weighted mean of the codes, (B, K); zero where all weights are zero."""
    total = weights.sum(dim=1, keepdim=True)
    return weights @ codes.double() / total.where(total > 0, total.new_ones(()))


def guide_codes(codes: Tensor, labels: Tensor | None, context: AttackContext, *, targeted: bool) -> Tensor:
    """The code (B, K) to leave, or to reach if targeted: the center code of the labels, or of the targets.

    Without labels or training codes to go by it is the sample's own code, a row of `codes` (B, K).

    Raises:
        InputError: a target without any label.
    """
    guide = context.targets if targeted else labels
    if guide is None or context.train_codes is None or context.train_labels is None:
        return codes
    if targeted and not bool(guide.any(dim=1).all()):
        raise InputError("targets hold a row without any label: give each sample a target label")
    table, table_labels = context.train_codes.to(codes), context.train_labels.to(codes.device)
    return center_codes(guide.to(codes.device), table, table_labels, fallback=codes)


def other_centers(own: Tensor, labels: Tensor, context: AttackContext, count: int) -> Tensor:
    """Center codes (B, count, K) of the nearest label vectors that share no label with each sample's.

    They are those of the training images, nearest by Hamming distance to the sample's own center code
    (B, K). A sample with fewer than `count` of them gets them in turn; one with none the opposite of its own.
    """
    codes, code_labels = required(context.train_codes).to(own), required(context.train_labels)
    vectors = torch.unique(code_labels.to(own), dim=0)
    disjoint = (labels.to(own) @ vectors.T == 0) & vectors.any(dim=1)
    # In parts, as a multi-label set has thousands of label vectors.
    centers = torch.cat(
        [
            center_codes(part, codes, code_labels.to(own), fallback=own.new_ones(len(part), own.shape[1]))
            for part in torch.split(vectors, 256)
        ]
    )
    agreement = (own @ centers.T).masked_fill(~disjoint, -torch.inf)
    nearest = agreement.argsort(dim=1, descending=True, stable=True)
    known = disjoint.sum(dim=1, keepdim=True)
    turns = torch.arange(count, device=own.device)[None, :] % known.clamp(min=1)
    chosen = centers[nearest.gather(1, turns)]
    return torch.where(known[:, :, None] > 0, chosen, -own[:, None, :])
