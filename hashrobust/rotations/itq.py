"""ITQ: see the function."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.rotations import rotations

ITERATIONS = 50


@rotations.register("itq")
def itq(outputs: Tensor, *, seed: int) -> Tensor:
    """ITQ: iterative quantisation, codes and rotation fitted to each other in turn.

    Source: Gong and Lazebnik, "Iterative Quantization: A Procrustean Approach to Learning Binary Codes",
    CVPR 2011: minimises |sign(z R) - z R|^2 over orthogonal R by 50 rounds of B = sign(z R), then R = U V^T
    from the singular value decomposition z^T B = U S V^T. No round raises the error. It begins
    with no rotation, where the paper draws one, so that what training has brought near to signs stays the
    start; nothing is drawn. Outputs are not centred: codes are the signs of what the model gives.
    """
    z = outputs.double()
    rotation = torch.eye(z.shape[1], dtype=z.dtype)
    for _ in range(ITERATIONS):
        codes = torch.where(z @ rotation >= 0, 1.0, -1.0).to(z)
        left, _, right = torch.linalg.svd(z.T @ codes)
        rotation = left @ right
    return rotation.to(outputs)
