from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hashrobust.attacks import build_attack
from hashrobust.attacks.center import Center
from hashrobust.errors import HashRobustError, InputError, StoreError
from hashrobust.experiments import attack_runs, bench, crafting, environment
from hashrobust.experiments.attack_runs import attack_cost, attack_run
from hashrobust.experiments.bench import choose_queries
from hashrobust.experiments.gradient_path import differentiated, gradient_path
from hashrobust.experiments.retrieval_runs import encode_run
from hashrobust.experiments.store import Folder, read_arrays
from hashrobust.experiments.subject import Subject
from hashrobust.experiments.trained_runs import load_run, load_run_data
from hashrobust.experiments.training_runs import finetune_run
from hashrobust.metrics import average_precision, chance_average_precision
from hashrobust.models import frozen, sign
from hashrobust.progress import Silent
from hashrobust.rules import convert, exact_gradient, feedback_state, rule_of

EPSILON = 0.2


def queries(folder: Folder) -> pd.DataFrame:
    return folder.read_table("queries.parquet", made_by="attack")


def metrics(folder: Folder) -> dict[str, Any]:
    found: dict[str, Any] = folder.read_json("metrics.json", made_by="attack")
    return found


def test_an_attack_folder_is_whole_and_names_its_settings(made: Folder, small: Any) -> None:
    (attack,) = made.attacks()
    assert set(attack.checksums) == {
        "config.toml", "environment.json", "examples/examples.npz", "metrics.json", "queries.parquet"
    }  # fmt: skip
    assert attack.damaged() == [] and not (attack.path / "parts").exists()
    assert attack.read_json("environment.json", made_by="attack")["threads"] == 1
    found = metrics(attack)
    assert (found["goal"], found["steps"], found["queries"]) == ("non-targeted", 6, 30)
    assert found["gradient_check_passed"] and found["gradient_cosine"] == pytest.approx(1, abs=1e-6)
    assert 0 < found["linf_max"] <= EPSILON * (1 + 1e-6)
    assert found["map"] < found["clean_map"]


def test_scores_are_those_of_the_attacked_images(made: Folder, small: Any) -> None:
    """The attack made by hand: other code, the same images, the same numbers."""
    (attack,) = made.attacks()
    table, data, codes, model = queries(attack), load_run_data(made), encode_run(made), load_run(made)
    chosen = table["query"].to_numpy(copy=True)
    hit = bench.AttackContext(
        train_codes=torch.from_numpy(codes["train"].codes),
        train_labels=data.train.labels,
        sample_ids=data.query.ids[chosen],
    )
    images, labels = data.query.load(chosen), data.query.labels[chosen]
    with frozen(model), exact_gradient(model):
        found = build_attack("center", epsilon=EPSILON, steps=6)(model, images, labels=labels, context=hit)
    database = codes["database"]
    for name, seen in (("clean_ap", images), ("ap", found)):
        scores = average_precision(model.encode(seen), database.codes, labels, database.labels)
        assert table[name].mean() == pytest.approx(scores.mean(), abs=0.002)
        assert metrics(attack)[name.replace("ap", "map")] == pytest.approx(table[name].mean(), abs=1e-12)
    np.testing.assert_allclose(table["linf"], (found - images).abs().amax(dim=(1, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(
        table["chance_ap"], chance_average_precision(labels, database.labels), atol=1e-12
    )
    assert table["query_id"].tolist() == data.query.ids[chosen].tolist()


def test_queries_are_a_fixed_subset_by_seed(made: Folder) -> None:
    (attack,) = made.attacks()
    assert queries(attack)["query"].tolist() == choose_queries(200, 30, 0).tolist()
    assert len(set(choose_queries(200, 30, 0))) == 30
    assert choose_queries(200, 30, 0).tolist() != choose_queries(200, 30, 1).tolist()
    assert choose_queries(5, None, 0).tolist() == choose_queries(5, 5, 3).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="201 queries are asked for, the dataset has 200"):
        choose_queries(200, 201, 0)


@pytest.mark.parametrize("batch_size", [1, 30])
def test_results_do_not_depend_on_the_batch(run: Folder, small: Any, batch_size: int) -> None:
    (attack,) = run.attacks()
    other = attack_run(run, replace(small.attack, batch_size=batch_size))
    assert metrics(other)["map"] == pytest.approx(metrics(attack)["map"], abs=0.002)
    assert (queries(other)["flipped_bits"] == queries(attack)["flipped_bits"]).mean() > 0.9


def test_asking_again_does_nothing_and_overwriting_repeats(
    run: Folder, small: Any, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    (attack,) = run.attacks()
    before = contents(attack.path)
    with run.lock():
        attack_run(run, small.attack)
    (attack.path / "metrics.json").write_text("{}")
    attack_run(run, small.attack, overwrite=True)
    assert contents(attack.path) == before


def test_an_attack_that_has_changed_is_made_anew_beside_the_old_one(
    run: Folder, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = run.attacks()
    monkeypatch.setattr(Center, "version", Center.version + 1)
    after = attack_run(run, small.attack)
    assert {attack.path for attack in run.attacks()} == {before.path, after.path} and len(run.attacks()) == 2
    assert after.config["version"] == before.config["version"] + 1
    assert metrics(after) == metrics(before)


def test_a_warm_start_counts_the_work_of_all_its_links(run: Folder, small: Any) -> None:
    """A search begins anew in each ball, so that its work can be told from that of each ball alone."""

    def asked(epsilon: float, *before: float) -> pd.Series[int]:
        config = replace(
            small.attack, attack="square", params={"budget": 6}, epsilon=epsilon, start_epsilons=before
        )
        return queries(attack_run(run, config))["model_queries"]

    assert (asked(0.2, 0.1) == asked(0.1) + asked(0.2)).all() and asked(0.2).max() == 6


def test_targets_share_no_label_and_are_stored(run: Folder, small: Any) -> None:
    config = replace(small.attack, attack="dhta")
    attack, data = attack_run(run, config), load_run_data(run)
    table, found = queries(attack), metrics(attack)
    own = data.query.labels[table["query"].to_list()].argmax(dim=1).tolist()
    assert all(target in data.classes for target in table["target"])
    assert all(target != data.classes[label] for target, label in zip(table["target"], own, strict=True))
    assert len(set(table["target"])) > 3
    database = encode_run(run)["database"]
    wanted = chance_average_precision(
        np.array([int(t) for t in table["target"]]), database.labels.argmax(axis=1)
    )
    np.testing.assert_allclose(table["chance_t_ap"], wanted, atol=1e-12)
    assert found["goal"] == "targeted" and found["t_map"] > found["clean_t_map"]


def test_noise_needs_no_gradient_and_aims_at_nothing(run: Folder, small: Any) -> None:
    found = metrics(attack_run(run, replace(small.attack, attack="noise", params={})))
    assert "theory_map" not in found and found["gradient_evaluations"] == 0


def test_training_images_are_at_hand_for_a_universal_perturbation(run: Folder, small: Any) -> None:
    attack = attack_run(run, replace(small.attack, attack="uap", params={"steps": 6, "fit_batch": 8}))
    assert 0 < metrics(attack)["linf_max"] <= EPSILON * (1 + 1e-6)


def test_following_the_rule_is_recorded_as_another_gradient(run: Folder, small: Any) -> None:
    found = metrics(attack_run(run, replace(small.attack, gradient="rule")))
    assert 0 < found["gradient_cosine"] < 0.999 and found["gradient_check_passed"]
    assert metrics(attack_run(run, replace(small.attack, gradient="rule:bp")))["gradient_cosine"] > 0.9999


def test_gradient_paths_are_what_they_say(made: Folder) -> None:
    model = load_run(made)
    images = load_run_data(made).query.load([0, 1])

    def gradient(network: Any) -> torch.Tensor:
        x = images.clone().requires_grad_()
        return torch.autograd.grad(network(x).sum(), x)[0]

    def same(one: torch.Tensor, other: torch.Tensor) -> bool:  # but for the order of sums
        return bool((one - other).abs().max() <= 1e-5 * other.abs().max())

    plain = load_run(made)
    convert(plain, "bp")
    rule = gradient(model)
    with gradient_path(differentiated(model, "exact"), "exact") as through:
        assert same(gradient(through), gradient(plain)) and not same(gradient(through), rule)
    with gradient_path(differentiated(model, "rule"), "rule") as through:
        assert same(gradient(through), rule)
    # The last layer by hand: its input's error is V^T delta with V of the stored feedback.
    features = model.backbone(model.normalize(images)).detach().requires_grad_()
    (error,) = torch.autograd.grad(model.head(features).sum(), features)
    v = feedback_state(model)["head"].abs() * model.head.weight.detach().sign()
    torch.testing.assert_close(error, torch.ones(2, 12) @ v, rtol=1e-5, atol=1e-7)


def test_a_named_rules_gradient_leaves_the_run_alone(
    small: Any, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    run = finetune_run(small.finetune(epochs=1), tmp_path)
    before = contents(run.path)
    model = load_run(run)
    with gradient_path(differentiated(model, "rule:frsf"), "rule:frsf") as through:
        assert through is not model and rule_of(through) == "frsf" and rule_of(model) == "bp"
    found = metrics(attack_run(run, replace(small.attack, gradient="rule:frsf", queries=12)))
    assert found["gradient_cosine"] < 0.999
    after = contents(run.path)
    assert all(after[name] == content for name, content in before.items() if name != "checksums.json")


def test_brsf_by_rule_is_the_same_when_batches_are_read_back(
    small: Any, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finetune_run(small.finetune(rule="brsf", epochs=1), tmp_path)
    config = replace(small.attack, gradient="rule", queries=20)
    attack = attack_run(run, config)
    whole = contents(attack.path)
    attack.clear()

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.Bench, "gradient_facts", killed)
    with pytest.raises(KeyboardInterrupt):
        attack_run(run, config)
    monkeypatch.undo()
    assert len(list((attack.path / "parts").iterdir())) == 2
    assert contents(attack_run(run, config).path) == whole


def test_who_goes_on_with_other_versions_is_told(
    run: Folder, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun_and_left(*args: Any) -> Any:
        raise KeyboardInterrupt

    def told() -> dict[str, Any]:
        with pytest.raises(KeyboardInterrupt):
            attack_run(run, replace(small.attack, seed=5))
        (attack,) = [folder for folder in run.attacks() if folder.config["seed"] == 5]
        found: dict[str, Any] = attack.read_json("environment.json", made_by="attack")
        return found

    monkeypatch.setattr(attack_runs, "craft", begun_and_left)
    first = told()
    assert told() == first and "resumed_in" not in first
    monkeypatch.setattr(environment, "versions", lambda: {**first["versions"], "torch": "9.9"})
    for _ in range(2):
        again = told()
        (other,) = again.pop("resumed_in")
        assert again == first and other["versions"]["torch"] == "9.9"


def test_examples_show_what_was_retrieved(made: Folder) -> None:
    (attack,) = made.attacks()
    shown, data = read_arrays(attack.path / "examples" / "examples.npz"), load_run_data(made)
    table = queries(attack)
    places = [i * 30 // 6 for i in range(6)]
    clean = data.query.load(table["query"].to_numpy()[places])
    assert np.array_equal(shown["clean"], (clean * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    change = np.abs(shown["adversarial"].astype(int) - shown["clean"].astype(int))
    assert 0 < change.max() <= round(EPSILON * 255) + 1
    assert shown["retrieved_clean"].shape == shown["retrieved_adversarial"].shape == (6, 8, 16, 16, 1)
    assert shown["relevant_clean"].mean() > shown["relevant_adversarial"].mean()
    assert shown["labels"].tolist() == [
        str(int(c)) for c in data.query.labels[table["query"].to_numpy()[places]].argmax(1)
    ]


def test_a_forward_pass_that_the_rule_changes_is_an_error(run: Folder, small: Any) -> None:
    config = replace(small.attack, queries=4)
    attack = build_attack("center", epsilon=EPSILON, steps=6)
    ready = bench.Bench.prepare(Subject.open(run, device="cpu", progress=Silent()), config, attack)
    wrong = -sign(ready.model.outputs(ready.batch(0, 4)))
    with pytest.raises(HashRobustError, match="gives the same images other answers"):
        crafting.check_forward(ready, ready.batch(0, 4), wrong)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"attack": "centre"}, "did you mean 'center'"),
        ({"gradient": "exakt"}, "unknown gradient 'exakt': use exact, rule, or rule:NAME"),
        ({"gradient": "rule:frfs"}, "did you mean 'frsf'"),
        ({"epsilon": 8.0}, "give 8/255"),
        ({"params": {"step": 6}}, "has no parameter 'step'"),
        ({"params": {"steps": 1, "step_size": 0.001}}, "cannot cross a ball"),
        ({"preset": "sat"}, "did you mean 'saat'"),
        ({"queries": 1000}, "the dataset has 200"),
    ],
)
def test_wrong_requests_leave_no_folder(run: Folder, small: Any, own: dict[str, Any], message: str) -> None:
    before = sorted(path.name for path in (run.path / "attacks").iterdir())
    with pytest.raises(InputError, match=message):
        attack_run(run, replace(small.attack, **own))
    assert sorted(path.name for path in (run.path / "attacks").iterdir()) == before


def test_cost_is_said_without_a_trace(run: Folder, small: Any) -> None:
    """On a disk that is read-only too, and while another process works on the run: nobody needs to hold it."""
    before = sorted(path.name for path in (run.path / "attacks").iterdir())
    with run.lock():
        said = attack_cost(run, replace(small.attack, params={"steps": 40, "restarts": 2}))
    assert said.startswith("center, exact gradient, epsilon 51/255: 30 images x 80 steps, about ")
    baseline = attack_cost(run, replace(small.attack, attack="noise", params={}, gradient="none"))
    assert baseline.startswith("noise, no gradient, epsilon 51/255: 30 images, about ")
    assert sorted(path.name for path in (run.path / "attacks").iterdir()) == before


def test_unfinished_runs_are_not_attacked(small: Any, tmp_path: Path, made: Folder) -> None:
    folder = Folder.create(tmp_path / "run", {"task": "finetune", **small.finetune().to_dict()})
    with pytest.raises(StoreError, match="run `hashrobust finetune` first"):
        attack_run(folder, small.attack)
    assert folder.attacks() == []


@pytest.mark.parametrize("passed", [True, False])
def test_a_failed_gradient_check_is_said(
    run: Folder, small: Any, passed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hashrobust.experiments.bench import Bench
    from hashrobust.progress import Silent

    facts = {
        "gradient_check_passed": passed,
        "gradient_check_cosine": 0.9,
        "gradient_check_kink_share": 0.0,
    }
    monkeypatch.setattr(Bench, "gradient_facts", lambda self: facts)
    said: list[str] = []
    monkeypatch.setattr(Silent, "say", lambda self, text: said.append(text))
    attack_run(run, small.attack, overwrite=True)
    assert any("finite-difference check" in line for line in said) is not passed
