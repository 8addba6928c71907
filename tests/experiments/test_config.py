from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashrobust.errors import InputError, UnknownNameError
from hashrobust.experiments.config import (
    AttackConfig,
    FinetuneConfig,
    PretrainConfig,
    TrainingConfig,
    added,
    parse_epsilon,
    preset_values,
    slug,
)
from hashrobust.experiments.store import Folder
from hashrobust.experiments.training_runs import objective_params_of_preset
from hashrobust.objectives import build_objective, objectives


def test_names_of_published_runs_do_not_change() -> None:
    """Folders are found again by these names: a changed default would orphan them."""
    assert FinetuneConfig(rule="frsf").run_name == "digits-lenet-dpsh-32-frsf-s0-2771d6f0"
    assert PretrainConfig().run_name == "digits-lenet-pretrained-s0-89eb62d6"
    assert AttackConfig(attack="center", epsilon=8 / 255).folder_name == "center-d11c134d"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"bits": 16},
        {"epochs": 21},
        {"weights_digest": "ab"},
        {"threads": 1},
        {"defence": "center-at"},
        {"rotate": "itq"},
        {"defence": "center-at", "defence_params": {"weight": 2.0}},
    ],
)
def test_every_setting_changes_the_name(change: dict[str, Any]) -> None:
    assert (
        FinetuneConfig(**change).run_name.rpartition("-")[2] != FinetuneConfig().run_name.rpartition("-")[2]
    )


def test_the_defence_stands_in_the_name() -> None:
    name = FinetuneConfig(rule="frsf", defence="center-at", seed=3).run_name
    assert name.startswith("digits-lenet-dpsh-32-frsf+center-at-s3-")


def test_added_fields_are_stored_once_they_are_used() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Grown(TrainingConfig):
        word: str = added("usual")
        numbers: tuple[int, ...] = added(())
        params: Mapping[str, Any] = added({})

    assert Grown().to_dict() == TrainingConfig().to_dict()
    assert Grown.from_dict(TrainingConfig().to_dict()) == Grown()
    own = {"word": "other", "numbers": (1,), "params": {"a": 1}}
    used = Grown(**own)
    assert used.to_dict() == {**TrainingConfig().to_dict(), **own}
    assert Grown.from_dict(used.to_dict()) == used


@given(
    st.builds(
        FinetuneConfig,
        seed=st.integers(0, 9),
        patience=st.none() | st.integers(1, 9),
        image_size=st.none() | st.just(28),
        threads=st.none() | st.integers(1, 4),
        learning_rate=st.floats(1e-8, 1.0),
        defence=st.sampled_from(["none", "center-at"]),
        rotate=st.sampled_from(["none", "itq"]),
        objective_params=st.dictionaries(
            st.sampled_from(["a", "b"]), st.floats(-1, 1) | st.integers(0, 3) | st.none()
        ),
    )
)
@settings(deadline=None, max_examples=30)
def test_configurations_come_back_from_their_folder(config: FinetuneConfig) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as place:
        folder = Folder.create(Path(place) / "run", {"task": "finetune", **config.to_dict()})
        back = FinetuneConfig.from_dict(Folder.open(folder.path).config)
    given = {name: value for name, value in config.objective_params.items() if value is not None}
    assert back.to_dict() == config.to_dict() | {"objective_params": given}


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (FinetuneConfig, {"bits": 0}, "bits is 0"),
        (FinetuneConfig, {"bits": 2**16 + 1}, "bits is 65537: .* at most 4096"),
        (FinetuneConfig, {"threads": 2**12 + 1}, "threads is 4097: .* at most 4096"),
        (FinetuneConfig, {"epochs": 2**63}, "epochs is more than 64 bits hold"),
        (PretrainConfig, {"seed": 10**5000}, "seed is more than 64 bits hold"),
        (AttackConfig, {"query_seed": -(2**64)}, "query_seed is more than 64 bits hold"),
        (FinetuneConfig, {"feedback_scale": "big"}, "unknown feedback scale 'big'"),
        (FinetuneConfig, {"threads": 0}, "threads is 0"),
        (PretrainConfig, {"threads": -1}, "threads is -1"),
        (PretrainConfig, {"epochs": 0}, "epochs is 0"),
        (AttackConfig, {"queries": 0}, "queries is 0"),
        (AttackConfig, {"batch_size": 0}, "batch_size is 0"),
        (AttackConfig, {"threads": 0}, "threads is 0"),
        (AttackConfig, {"params": {"epsilon": 0.5}}, "give it as --epsilon"),
        (AttackConfig, {"params": {"seed": 5}}, "give it as --seed"),
    ],
)
def test_impossible_values_are_refused(kind: type, values: dict[str, Any], message: str) -> None:
    needed = {"attack": "hag", "epsilon": 0.1} if kind is AttackConfig else {}
    with pytest.raises(InputError, match=message):
        kind(**needed, **values)


@pytest.mark.parametrize("text", ["8/255", "0.03", "1", "1e-3"])
def test_epsilon_reads_fractions_and_numbers(text: str) -> None:
    assert parse_epsilon(text) == eval(text)


@pytest.mark.parametrize(
    ("text", "mend"),
    [("8", "write 8/255"), ("0", "8/255"), ("-1/255", "8/255"), ("x", "is no number"), ("8/0", "is no number"),
     ("8/255/2", "is no number"), ("nan", "outside"), ("", "is no number")],
)  # fmt: skip
def test_epsilon_that_is_none_is_refused(text: str, mend: str) -> None:
    with pytest.raises(InputError, match=mend):
        parse_epsilon(text)


def test_datasets_with_folders_have_short_names() -> None:
    assert slug("digits") == "digits"
    assert slug("folder:/data/my birds/") == "folder-my-birds"
    assert slug("list:..") == "list-data"


@pytest.mark.parametrize("objective", list(objectives))
def test_the_published_preset_fits_every_objective(objective: str) -> None:
    params = objective_params_of_preset("berriche2025", objective)
    assert set(params) <= set(objectives.parameters(objective))
    weighted = "quantization_weight" in objectives.parameters(objective)
    assert params == ({"quantization_weight": 0.01} if weighted else {})
    build_objective(objective, bits=32, num_classes=10, similar_share=0.1, **params)


def test_the_published_preset_is_the_papers_training() -> None:
    values, unknown = preset_values("berriche2025")
    config = TrainingConfig(**{name: value for name, value in values.items() if name != "objective_params"})
    assert (config.optimizer, config.learning_rate, config.head_learning_rate_factor) == ("adam", 1e-5, 10.0)
    assert (config.weight_decay, config.batch_size, config.epochs, config.patience) == (5e-4, 128, 20, 10)
    assert "leaves unknown" in unknown
    with pytest.raises(UnknownNameError, match="did you mean 'berriche2025'"):
        preset_values("berriche")
