"""Center codes: the code nearest to the images that share a label and farthest from those that do not."""

from __future__ import annotations

import torch
from torch import Tensor


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
