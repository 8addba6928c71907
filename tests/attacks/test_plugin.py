"""The example of docs/adding.md is complete and works as a user's plugin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from hashrobust.attacks import attacks, build_attack, inside_ball
from hashrobust.registry import load_plugin

GUIDE = Path(__file__).parents[2] / "docs" / "adding.md"


def test_the_example_attack_loads_and_runs(tmp_path: Path, scene: Any) -> None:
    section = GUIDE.read_text().split("## An attack", 1)[1].split("\n## ", 1)[0]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    assert len(code.splitlines()) < 30
    plugin = tmp_path / "margin.py"
    plugin.write_text(code)
    load_plugin(plugin)
    try:
        assert "margin" in attacks and attacks.describe("margin")
        attack = build_attack("margin", steps=20, margin=0.2)
        result = attack.run(scene.model, scene.images)
        assert inside_ball(result.images, scene.images, attack.epsilon)
        assert (result.objective < result.clean_objective).any()
        codes = torch.where(scene.model(scene.images) >= 0, 1.0, -1.0)
        theory = attack.theory_codes(codes)
        assert theory is not None and torch.equal(theory, -codes)
    finally:
        attacks._builders.pop("margin")
