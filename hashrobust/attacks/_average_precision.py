"""Average precision of codes against the training codes, from histograms of Hamming distances."""

from __future__ import annotations

import torch
from torch import Tensor

from ._context import AttackContext, required

State = dict[str, Tensor]


def training_counts(codes: Tensor, labels: Tensor, context: AttackContext) -> State:
    """Distinct training codes (T, K), and how many training images with each share a label or none, (B, T)."""
    table, place = torch.unique(required(context.train_codes).to(codes), dim=0, return_inverse=True)
    relevant = labels.to(codes) @ required(context.train_labels).to(codes).T > 0
    empty = codes.new_zeros(len(codes), len(table))
    return {
        "codes": table,
        "relevant": empty.index_add(1, place, relevant.to(codes)),
        "others": empty.index_add(1, place, (~relevant).to(codes)),
    }


def histograms(u: Tensor, counts: State) -> tuple[Tensor, Tensor]:
    """Relevant and other training images at each distance 0 ... K from relaxed codes u (B, K): (B, K + 1) twice.

    A distance between two whole numbers counts in part at both (the triangular kernel of FastAP, Cakir et
    al., CVPR 2019), so that the counts have a gradient; for codes they are exact.
    """
    bits = u.shape[1]
    distance = ((bits - u @ counts["codes"].T) / 2.0).clamp(0.0, bits)
    # Codes that are no numbers have a place, where their counts are none either.
    below = distance.detach().nan_to_num().floor().clamp(max=bits - 1)
    part, level = distance - below, below.long()

    def histogram(weights: Tensor) -> Tensor:
        empty = u.new_zeros(len(u), bits + 1)
        return empty.scatter_add(1, level, weights * (1.0 - part)).scatter_add(1, level + 1, weights * part)

    return histogram(counts["relevant"]), histogram(counts["others"])


def training_average_precision(codes: Tensor, counts: State) -> Tensor:
    """Average precision (B,) of codes (B, K) in expectation over ties, 0 where nothing is relevant; float64.

    The closed form over groups of equal distance: McSherry and Najork, ECIR 2008.
    """
    r, others = (part.double() for part in histograms(codes, counts))
    n = r + others
    before, relevant_before = n.cumsum(dim=1) - n, r.cumsum(dim=1) - r
    # The sum of 1 / (before + i) over i = 1 ... n.
    harmonic = torch.digamma(before + n + 1.0) - torch.digamma(before + 1.0)
    crowding = (r - 1.0) / (n - 1.0).clamp(min=1.0) * (n - (before + 1.0) * harmonic)
    gained = r / n.clamp(min=1.0) * ((relevant_before + 1.0) * harmonic + crowding)
    return gained.sum(dim=1) / r.sum(dim=1).clamp(min=1.0)


def smooth_average_precision(u: Tensor, counts: State, temperature: float) -> Tensor:
    """Surrogate (B,) of the average precision of relaxed codes u (B, K) that has a gradient everywhere.

    The mean over relevant images of P / (P + F), where P and F count the relevant and other images before
    it, each by s((d - d') / temperature) for distances d and d' in bits: ranks smoothed by the sigmoid s as
    in Smooth-AP (Brown et al., ECCV 2020), taken from the histograms of FastAP.
    """
    relevant, others = histograms(u, counts)
    levels = torch.arange(u.shape[1] + 1, dtype=u.dtype, device=u.device)
    before = torch.sigmoid((levels[None, :] - levels[:, None]) / temperature)
    p, f = relevant @ before, others @ before
    # 1 - F / (P + F) rather than P / (P + F): its gradient survives rounding where F is tiny, that is
    # where the ranking is still perfect.
    false = f / (p + f).clamp(min=torch.finfo(u.dtype).eps)
    return 1.0 - (relevant * false).sum(dim=1) / relevant.sum(dim=1).clamp(min=1.0)


def lowest(candidates: Tensor, counts: State) -> Tensor:
    """Of the candidate codes (B, n, K) of each sample the one with the lowest average precision, (B, K)."""
    scores = [training_average_precision(codes, counts) for codes in candidates.unbind(dim=1)]
    best = torch.stack(scores, dim=1).argmin(dim=1)
    return candidates[torch.arange(len(candidates), device=best.device), best]
