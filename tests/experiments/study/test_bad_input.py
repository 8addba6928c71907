"""What cannot be run is refused before anything runs: with the file, the line, the reason and the mend."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hashrobust.errors import InputError
from hashrobust.experiments.study import plan_study, run_study

# What is changed in the study of conftest.py, the line that is named, and words of what is said.
CASES: dict[str, tuple[list[tuple[str, str]], int, str]] = {
    "an unknown key": ([("rules =", "rule =")], 7, "unknown key 'rule': did you mean 'rules'"),
    "a missing axis": ([('rules = ["bp", "frsf"]\n', "")], 1, "rules are missing: give a list such as"),
    "no name": ([('name = "tiny"\n', "")], 1, 'the study has no name: write name = "'),
    "a name that is no folder": ([('"tiny"', '"a/b"')], 1, "name 'a/b' is no name for a folder"),
    "text in place of a list": ([('["bp", "frsf"]', '"bp"')], 7, 'rules is no list: write rules = ["bp"'),
    "a number among names": ([('["bp", "frsf"]', '["bp", 3]')], 7, "rules: 3 is no name"),
    "text among numbers": ([("[12]", '["12"]')], 6, "bits: '12' is no whole number of at least 1"),
    "a truth among numbers": ([("[12]", "[true]")], 6, "bits: True is no whole number"),
    "a number that 64 bits do not hold": (
        [("[12]", f"[0x{'f' * 5000}]")],
        6,
        "bits is more than 64 bits hold",
    ),
    "a rate that 64 bits do not hold": ([("2e-3", f"0x{'f' * 500}")], 23, "learning_rate is more than 64"),
    "no bits": ([("[12]", "[0]")], 6, "bits: 0 is no whole number of at least 1"),
    "an empty axis": ([('["bp", "frsf"]', "[]")], 7, "rules is empty, so that nothing would be run"),
    "a negative seed": ([("queries = 12", "seeds = [-1]")], 10, "seeds: -1 is no whole number of at least 0"),
    "steps that are no number": (
        [("queries = 12", 'steps = ["most"]')],
        10,
        "steps: 'most' is no whole number of at least 0: write steps",
    ),
    "an epsilon in 255ths": ([('"16/255"', "16")], 9, "epsilon '16' is outside (0, 1]"),
    "an unknown rule": ([('"frsf"', '"frfs"')], 7, "unknown rule 'frfs': did you mean 'frsf'"),
    "an unknown backbone": ([('"lenet"', '"lent"')], 4, "unknown backbone 'lent': did you mean 'lenet'"),
    "an unknown dataset": (
        [('["digits"]', '["digit"]')],
        3,
        "unknown dataset 'digit': did you mean 'digits'",
    ),
    "a dataset without its folder": (
        [('["digits"]', '["list"]')],
        3,
        "lacks its folder: write 'list:FOLDER'",
    ),
    "a dataset with a folder too many": ([('["digits"]', '["digits:x"]')], 3, "takes no folder"),
    "an unknown objective": ([('"csq"', '"cqs"')], 5, "unknown objective 'cqs': did you mean 'csq'"),
    "an unknown attack": ([('"noise"', '"nois"')], 8, "unknown attack 'nois': did you mean 'noise'"),
    "an unknown gradient": ([("queries = 12", 'gradients = ["exakt"]')], 10, "unknown gradient 'exakt'"),
    "an unknown rule's gradient": ([("queries = 12", 'gradients = ["rule:x"]')], 10, "unknown rule 'x'"),
    "an unknown task": (
        [("queries = 12", 'tasks = ["hash"]')],
        10,
        "tasks: unknown 'hash': did you mean 'hashing'",
    ),
    "unknown weights": ([("queries = 12", 'weights = ["imagnet"]')], 10, "did you mean 'imagenet'"),
    "an unknown scale": ([("queries = 12", 'scales = ["match"]')], 10, "did you mean 'matched'"),
    "an attack's unknown parameter": (
        [("steps = 6", "step = 6")],
        8,
        "attack 'center' has no parameter 'step'",
    ),
    "an attack's impossible value": ([("steps = 6", "steps = 0")], 8, "steps is 0: give a whole number"),
    "an attack's unknown preset": (
        [("steps = 6", 'preset = "sat"')],
        8,
        "attack 'center' has no preset 'sat': did you mean 'saat'",
    ),
    "an attack with an epsilon of its own": ([("steps = 6", "epsilon = 0.1")], 8, "write epsilons"),
    "an attack's empty list": ([("steps = 6", "epsilons = []")], 8, "epsilons of an attack are a list"),
    "an attack's unknown gradient": ([("steps = 6", 'gradients = ["x"]')], 8, "unknown gradient 'x'"),
    "an attack for another task": (
        [('"noise"', '"pgd"')],
        8,
        "attack 'pgd' is for classification, the tasks here",
    ),
    "an attack without a name": ([('attack = "center", ', "")], 8, "the table lacks its attack"),
    "an objective's unknown parameter": (
        [('"csq"', '{ objective = "csq", weight = 1 }')],
        5,
        "objective 'csq' has no parameter 'weight'",
    ),
    "an unknown setting": ([("learning_rate", "learning_rat")], 23, "did you mean 'learning_rate'"),
    "a setting that is an axis": (
        [("learning_rate = 2e-3", 'rule = "bp"')],
        23,
        "'rule' follows from the axes",
    ),
    "a setting of the wrong type": ([("epochs = 3", 'epochs = "ten"')], 21, "which is not a whole number"),
    "an impossible setting": (
        [("epochs = 3", "epochs = 0")],
        21,
        "epochs is 0: give a whole number of at least 1",
    ),
    "an impossible setting of pre-training": ([("epochs = 2", "epochs = 0")], 17, "epochs is 0"),
    "settings of no task": ([("finetune.hashing", "finetune.hash")], 20, "unknown 'hash'"),
    "an unknown preset of training": (
        [("learning_rate = 2e-3", 'preset = "berriche"')],
        23,
        "unknown preset 'berriche': did you mean 'berriche2025'",
    ),
    "an unknown rotation": (
        [("learning_rate = 2e-3", 'rotate = "itk"')],
        23,
        "unknown rotation 'itk': did you mean 'itq'",
    ),
    "an unknown setting of attacks": ([("batch_size = 8", "batch = 8")], 14, "unknown setting 'batch'"),
    "no ImageNet weights": (
        [("queries = 12", 'weights = ["imagenet"]')],
        10,
        "there are no ImageNet weights for backbone 'lenet'",
    ),
    "images too small": ([("= 16", "= 4")], 11, "images of 4 pixels are too small for backbone 'lenet'"),
    "audits without a control": (
        [('["bp", "frsf"]', '["frsf"]'), ("queries = 12", "audits = {}")],
        10,
        'audits compare other rules with "bp"',
    ),
    "audits by an unknown budget": (
        [("queries = 12", 'audits.budget = "quik"')],
        10,
        "unknown budget 'quik': did you mean 'quick'",
    ),
    "broken TOML": ([("[12]", "[12")], 7, "is no TOML"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_with_its_line(study: Callable[..., Path], case: str, tmp_path: Path) -> None:
    changes, line, words = CASES[case]
    path = study(*changes)
    with pytest.raises(InputError) as refused:
        plan_study(path)
    sentence = str(refused.value)
    assert words in sentence
    assert str(path) in sentence
    assert re.search(rf"line {line}\b", sentence), sentence
    assert not list(tmp_path.glob("results*"))


def test_the_line_is_that_of_the_matrix_at_fault(study: Callable[..., Path]) -> None:
    blocks = (
        '\n[[matrix]]\n\n[[matrix]]\nrules = ["bp"]\n\n[[matrix]]\nrules = [\n  "usf",\n  "nothing",\n]\n'
    )
    path = study(text=study().read_text() + blocks)
    with pytest.raises(InputError, match=r"line 33: unknown rule 'nothing'"):
        plan_study(path)
    nested = "\n[[matrix]]\n[matrix.finetune.hashing]\nepochs = -1\n"
    with pytest.raises(InputError, match=r"line 27: epochs is -1"):
        plan_study(study(text=path.read_text().replace(blocks, nested)))
    tables = "\n[[matrix]]\n[[matrix.attacks]]\nattack = 'hag'\n[[matrix.attacks]]\nattack = 'hagg'\n"
    with pytest.raises(InputError, match=r"line 28: unknown attack 'hagg'"):
        plan_study(study(text=study().read_text() + tables))


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        plan_study(tmp_path / "nothing.toml")
    (tmp_path / "study.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is no text file"):
        plan_study(tmp_path / "study.toml")
    with pytest.raises(InputError, match="is no text file"):
        plan_study(tmp_path)


@pytest.mark.parametrize(
    ("changes", "line", "words"),
    [
        ([("queries = 12", "queries = 2000")], 10, "2000 queries are asked for, digits has 200"),
        ([('["digits"]', '["folder:/nowhere"]')], 3, "/nowhere"),
        ([("bits = [12]", "bits = [3]")], 3, "3 bits hold no 10 different centres"),
    ],
)
def test_what_only_the_data_tell_is_refused_before_anything_runs(
    study: Callable[..., Path], tmp_path: Path, changes: list[tuple[str, str]], line: int, words: str
) -> None:
    results = tmp_path / "results"
    with pytest.raises(InputError, match=f"line {line}: .*{re.escape(words)}"):
        run_study(plan_study(study(*changes), results))
    assert [path.name for path in results.iterdir()] == [".study"]
