"""How steep the relaxation u = tanh(alpha z) is in the course of an attack."""

from __future__ import annotations

from torch import Tensor

from hashrobust.errors import InputError

# One value a tenth of the run: Yang et al., IEEE Trans. Cybernetics 2020.
A10 = (0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


def check_alpha(alpha: float | str) -> None:
    """Accept a positive number, "A10" or "auto"; anything else is an InputError."""
    if alpha in ("A10", "auto") or (isinstance(alpha, int | float) and alpha > 0):
        return
    raise InputError(f"alpha is {alpha!r}: give a number above 0, 'A10' or 'auto'")


def alpha_at(alpha: float | str, step: int, steps: int, outputs: Tensor) -> float | Tensor:
    """alpha at a step: the constant, the tenth's value of A10, or for "auto" that of the present outputs z (B, K).

    "auto" is `auto_alpha`, a constant to the gradient. It follows the images on their way: one fixed by the clean
    images is too flat where bits have come near zero, and saturates where they have gone far beyond.
    """
    if alpha == "A10":
        return A10[10 * step // steps]
    if alpha == "auto":
        return auto_alpha(outputs.detach())
    return float(alpha)


def auto_alpha(outputs: Tensor) -> Tensor:
    """1 / mean |z| of each row of outputs z (B, K), (B, 1); 1 for a row of zeros.

    A typical bit is then at |tanh(alpha z)| = tanh(1) = 0.76, where tanh still passes 0.42 of the gradient, however
    large the network's outputs are.
    """
    scale = outputs.abs().mean(dim=1, keepdim=True)
    return 1.0 / scale.where(scale > 0, scale.new_ones(()))
