"""An attack whose defaults or presets change has another version, so that stored numbers are not taken for its own."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from hashrobust.attacks import attacks

DEFAULTS: dict[str, tuple[int, str]] = {
    "ap": (2, "5a4f81b6"),
    "apgd-ce": (1, "126b2402"),
    "apgd-dlr": (1, "126b2402"),
    "center": (2, "7663bb9d"),
    "center-multi": (2, "9ede875c"),
    "dhta": (2, "896cb782"),
    "fgsm": (1, "bdb6ad74"),
    "hag": (2, "e1184ce9"),
    "noise": (1, "f0497e62"),
    "p2p": (2, "83655a90"),
    "pgd": (1, "c553040e"),
    "prosgan": (2, "98879972"),
    "random-search": (1, "c7978376"),
    "sdha": (2, "15a0daab"),
    "square": (1, "6b3f3083"),
    "tha": (2, "115c8088"),
    "uap": (2, "bf1a3253"),
}
"""For each attack its version, and a digest of its defaults and presets."""


def digest(name: str) -> str:
    defaults = {key: parameter.default for key, parameter in attacks.parameters(name).items()}
    presets: dict[str, Any] = getattr(attacks[name], "presets", {})
    text = repr(
        [sorted(defaults.items()), sorted((key, sorted(own.items())) for key, own in presets.items())]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@pytest.mark.parametrize("name", list(attacks))
def test_defaults_change_with_the_version(name: str) -> None:
    found = attacks.build(name).version, digest(name)
    assert DEFAULTS[name] == found, (
        f"if {name} gives other numbers, raise its version; then write {found} here"
    )
