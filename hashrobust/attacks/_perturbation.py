"""How visible a perturbation is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hashrobust.errors import InputError


def perturbation(clean: Tensor, adversarial: Tensor) -> dict[str, Tensor]:
    """Size of the perturbation of each image (B, C, H, W): float64 (B,) for each measure.

    `linf` the largest change of a pixel, `l2` the 2-norm over all pixels and channels, `mse` their mean
    square, `psnr` in decibels for a peak of 1 (infinite for equal images), `ssim` see `ssim`.

    Raises:
        InputError: the shapes differ.
    """
    if clean.shape != adversarial.shape or clean.ndim != 4:
        raise InputError(
            f"images of shape {tuple(adversarial.shape)} cannot be compared with {tuple(clean.shape)}: "
            "give two batches (B, C, H, W)"
        )
    first, second = clean.detach().double(), adversarial.detach().double()
    change = (second - first).flatten(1)
    mse = change.square().mean(dim=1)
    return {
        "linf": change.abs().amax(dim=1),
        "l2": change.norm(dim=1),
        "mse": mse,
        "psnr": -10.0 * torch.log10(mse),
        "ssim": ssim(first, second),
    }


def ssim(first: Tensor, second: Tensor, *, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity of images (B, C, H, W) in [0, 1], (B,): mean over channels and windows.

    Gaussian windows that lie inside the image, K1 = 0.01, K2 = 0.03; in images smaller than the window
    it shrinks to the largest odd size that fits. Source: Wang et al., IEEE Trans. Image Processing 2004.
    """
    fits = min(window, *first.shape[-2:])
    size = fits if fits % 2 else fits - 1
    offsets = torch.arange(size, dtype=first.dtype, device=first.device) - size // 2
    profile = torch.exp(-(offsets**2) / (2.0 * sigma**2))
    kernel = torch.outer(profile, profile)
    kernel = (kernel / kernel.sum())[None, None]

    def local_mean(images: Tensor) -> Tensor:
        return F.conv2d(images.flatten(0, 1)[:, None], kernel)

    mean1, mean2 = local_mean(first), local_mean(second)
    variance1 = local_mean(first * first) - mean1**2
    variance2 = local_mean(second * second) - mean2**2
    covariance = local_mean(first * second) - mean1 * mean2
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    structure = (2 * covariance + c2) / (variance1 + variance2 + c2)
    return (luminance * structure).view(len(first), -1).mean(dim=1)
