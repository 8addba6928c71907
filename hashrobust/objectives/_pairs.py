"""Pairs of images in a batch.

An image is never paired with itself: such a pair is similar whatever the labels are and says nothing
about retrieval, its share (1/B) would make the loss depend on the batch size, and the `similar_share`
of a dataset counts pairs of different images. A batch of one image has no pairs, and their mean is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def similarity(labels: Tensor) -> Tensor:
    """S (B, B) from multi-hot labels (B, C): 1 if two images share a label, else 0; in labels' dtype."""
    return (labels @ labels.T > 0).to(labels)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is 1; 0 where it never is."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def distinct_pairs(like: Tensor) -> Tensor:
    """Mask (B, B) of the pairs of two different images: 0 on the diagonal, 1 elsewhere."""
    return 1 - torch.eye(len(like), dtype=like.dtype, device=like.device)


def pair_mean(values: Tensor) -> Tensor:
    """Mean of `values` (B, B) over pairs of different images."""
    return masked_mean(values, distinct_pairs(values))


def pair_weights(similar: Tensor, share: float) -> Tensor:
    """w = S/p + (1-S)/(1-p), so that similar and dissimilar pairs count alike over the training set.

    A kind of pair that the training set does not hold (p = 0 or 1) has weight 1, not infinity.
    """
    of_similar = 1 / share if share > 0 else 1.0
    of_dissimilar = 1 / (1 - share) if share < 1 else 1.0
    return similar * of_similar + (1 - similar) * of_dissimilar
