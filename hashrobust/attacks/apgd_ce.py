"""APGD-CE: Croce and Hein, "Reliable Evaluation of Adversarial Robustness", ICML 2020, arXiv 2003.01690."""

from __future__ import annotations

from dataclasses import dataclass

from hashrobust.attacks import attacks

from ._apgd import AutoPGD


@attacks.register("apgd-ce")
@dataclass(frozen=True, kw_only=True)
class APGDCE(AutoPGD):
    """APGD-CE, classification: Auto-PGD up the cross-entropy, each sample with a step size of its own.

    Croce and Hein, ICML 2020, arXiv 2003.01690. The loop and the parameters are those of `AutoPGD`.
    """
