"""Rules, layers and stages in study files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hashrobust.errors import InputError
from hashrobust.experiments.study.check import check_study
from hashrobust.experiments.study.file import StudyFile
from hashrobust.experiments.study.matrix import read_study
from hashrobust.experiments.study.plan import AttackCell, AuditCell, TrainCell, make_plan
from hashrobust.experiments.study.points import own_gradient

RULES = ('rules = ["bp", "frsf"]', 'rules = ["bp", "bp@2,frsf", "dfa", "usf@1,bp"]')


def cells_of(path: Path) -> list[object]:
    study = read_study(StudyFile.read(path))
    check_study(study)
    return list(make_plan(study.matrices))


def test_stages_and_layers_are_axes(study: Callable[..., Path]) -> None:
    more = ("bits = [12]", 'bits = [12]\nlayers = ["*", "backbone.*"]\nscales = ["xavier", "matched"]')
    audits = ("[attack]", '[audits]\nbudget = "quick"\n\n[attack]')
    cells = cells_of(study(RULES, more, audits))
    trained = {cell.config.rule: set() for cell in cells if isinstance(cell, TrainCell)}
    for cell in cells:
        if isinstance(cell, TrainCell):
            trained[cell.config.rule].add((cell.config.layers, cell.config.feedback_scale))
    both = {(layers, scale) for layers in ("*", "backbone.*") for scale in ("xavier", "matched")}
    assert trained == {
        "bp": {("*", "xavier")},
        "bp@2,frsf": both,
        "dfa": {("*", "xavier"), ("backbone.*", "xavier")},  # no V to scale
        "usf@1,bp": both,
    }
    gradients = {
        cell.needs[0].partition("csq-12-")[2].partition("-s0")[0]: {a.gradient for a in cell.attacks}
        for cell in cells
        if isinstance(cell, AttackCell)
    }
    assert gradients["bp"] == gradients["usf1-bp"] == {"exact", "none"}  # its own gradient is the exact one
    assert gradients["bp2-frsf-on-backbone"] == {"exact", "rule", "none"}
    for cell in cells:
        if isinstance(cell, AuditCell):
            assert "-bp-s0-" in cell.needs[1] and cell.needs[0] != cell.needs[1]


def test_a_gradient_through_other_layers_is_another_one() -> None:
    assert own_gradient("rule:frsf", "frsf") == "rule"
    assert own_gradient("rule:frsf", "frsf:head") == "rule:frsf"
    assert own_gradient("rule:frsf:head", "frsf:head") == "rule"
    assert own_gradient("rule", "frsf:head") == "rule"
    assert own_gradient("rule", "bp") == own_gradient("rule:bp", "frsf") == "exact"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"frsf"]', '"bp@3,frsf"]'), r"line 7.*never comes to frsf, as there are 3 epochs"),
        (('"frsf"]', '"bp@1,frfs"]'), r"line 7.*unknown rule 'frfs'"),
        (('"frsf"]', '"bp,frsf"]'), r"line 7.*malformed at 'bp'"),
        (("bits = [12]", 'bits = [12]\nlayers = ["*", "backbon.*"]'), r"line 7.*near are backbone"),
        (("bits = [12]", "bits = [12]\nlayers = [2]"), r"line 7.*layers: 2 is no name"),
        (("learning_rate = 2e-3", 'learning_rate = 2e-3\nlayers = "head"'), "follows from the axes"),
    ],
)
def test_mistakes_are_told_with_their_line(
    study: Callable[..., Path], change: tuple[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        cells_of(study(change))
