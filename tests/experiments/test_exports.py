"""Models shared and taken back: the same answers without this library, whole or refused, nothing unpickled or run."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import hashrobust as hr
from hashrobust.errors import HashRobustError, InputError
from hashrobust.experiments import exports, imported_runs
from hashrobust.experiments.attack_runs import attack_run
from hashrobust.experiments.classifier_runs import classify_run, evaluate_classifier, load_classifier
from hashrobust.experiments.config import AttackConfig, ClassifierConfig, PretrainConfig
from hashrobust.experiments.exports import export_run
from hashrobust.experiments.files import file_digest
from hashrobust.experiments.foreign_runs import foreign_run, load_any
from hashrobust.experiments.imported_runs import import_run
from hashrobust.experiments.retrieval_runs import encode_run, evaluate_run
from hashrobust.experiments.store import Folder
from hashrobust.experiments.trained_runs import load_run
from hashrobust.experiments.training_runs import pretrain_run
from hashrobust.progress import Silent
from hashrobust.reports.card import model_card
from hashrobust.rules import feedback_state, rule_of

WITHOUT_HASHROBUST = (
    "import sys; sys.modules['hashrobust'] = None; sys.path.insert(0, ''); "
    "import runpy; names = runpy.run_path('example.py'); "
)


@pytest.fixture(scope="module")
def exported(made: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with its feedback; not to be changed."""
    place = tmp_path_factory.mktemp("exports") / "model"
    export_run(made, place, card=model_card, feedback=True)
    return place


@pytest.fixture
def export(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "export"))


def run_alone(place: Path, code: str) -> str:
    """Python in the folder of an export, where importing hashrobust fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", WITHOUT_HASHROBUST + code]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sealed(place: Path, **changed: Any) -> None:
    """Write files anew (JSON unless bytes or text) and checksums that fit them."""
    for name, content in changed.items():
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        (place / name.replace("__", ".")).write_bytes(text if isinstance(text, bytes) else text.encode())
    names = [path.name for path in place.iterdir() if path.name != "checksums.json"]
    sums = {name: file_digest(place / name) for name in names}
    (place / "checksums.json").write_text(json.dumps(sums))


def test_the_example_gives_the_runs_codes_without_hashrobust(
    made: Folder, exported: Path, tmp_path: Path
) -> None:
    data = hr.load_dataset("digits", image_size=16)
    np.save(tmp_path / "images.npy", data.query.images.numpy())
    code = (
        f"import numpy, torch; images = torch.from_numpy(numpy.load({str(tmp_path / 'images.npy')!r})); "
        f"codes = torch.where(names['model'](images) >= 0, 1, -1); "
        f"numpy.save({str(tmp_path / 'codes.npy')!r}, codes.numpy())"
    )
    assert "tensor(" in run_alone(exported, code)
    assert np.array_equal(np.load(tmp_path / "codes.npy"), encode_run(made)["query"].codes)
    lines = (exported / "example.py").read_text().splitlines()
    assert len(lines) == 10 and "hashrobust" not in (exported / "example.py").read_text()


def test_a_round_trip_keeps_codes_scores_feedback_and_both_gradients(
    made: Folder, exported: Path, tmp_path: Path
) -> None:
    run = import_run(exported, tmp_path / "results")
    own, back = load_run(made), load_any(run)
    assert rule_of(back) == "frsf" == run.config["rule"]
    stored, restored = feedback_state(own), feedback_state(back)
    assert stored.keys() == restored.keys()
    assert all(torch.equal(stored[name], restored[name]) for name in stored)
    codes, again = encode_run(made), encode_run(run)
    assert all(np.array_equal(codes[split].codes, again[split].codes) for split in codes)
    assert evaluate_run(run) == evaluate_run(made)
    for gradient in ("exact", "rule"):
        config = AttackConfig(
            attack="center", epsilon=0.2, params={"steps": 4}, queries=10, threads=1, gradient=gradient
        )
        attacks = [attack_run(folder, config) for folder in (Folder(Path(shutil.copytree(
            made.path, tmp_path / gradient / made.name))), run)]  # fmt: skip
        found = [attack.read_json("metrics.json", made_by="attack") for attack in attacks]
        assert (
            found[0]["map"] == found[1]["map"] and found[0]["gradient_cosine"] == found[1]["gradient_cosine"]
        )
    assert import_run(exported, tmp_path / "results").path == run.path


def test_an_import_that_another_one_overtakes_finds_it_there(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, lines = [], []

    class Progress(Silent):
        def say(self, text: str) -> None:
            lines.append(text)

    def overtaken(run: Folder) -> Any:
        monkeypatch.undo()
        here.append(import_run(exported, tmp_path))
        return imported_runs.load_imported(run)

    monkeypatch.setattr(imported_runs, "load_imported", overtaken)
    run = import_run(exported, tmp_path, progress=Progress())
    assert [run.path] == [other.path for other in here] and [run.path] == list(tmp_path.iterdir())
    assert lines[-1] == f"{run.name} is there already"


def test_an_imported_run_is_exported_again_bit_for_bit(exported: Path, tmp_path: Path) -> None:
    run = import_run(exported, tmp_path / "results")
    export_run(run, tmp_path / "again", card=model_card, feedback=True)
    for name in ("model.safetensors", "feedback.safetensors", "model.py", "example.py"):
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes()


def test_without_its_feedback_a_model_comes_back_plain_and_says_so(made: Folder, tmp_path: Path) -> None:
    export_run(made, tmp_path / "export", card=model_card)
    assert not (tmp_path / "export" / "feedback.safetensors").exists()
    assert "is no part of this folder" in (tmp_path / "export" / "README.md").read_text()
    run = import_run(tmp_path / "export", tmp_path / "results")
    assert rule_of(load_any(run)) == "bp" and run.config["rule"] == "frsf without feedback"
    assert "-frsf-" in run.name
    assert np.array_equal(encode_run(run)["query"].codes, encode_run(made)["query"].codes)


def test_a_classifier_goes_out_and_comes_back(tmp_path: Path) -> None:
    config = ClassifierConfig(image_size=16, epochs=1, learning_rate=2e-3, rule="usf", threads=1)
    run = classify_run(config, tmp_path / "results")
    found = evaluate_classifier(run)
    export_run(run, tmp_path / "export", card=model_card, feedback=True)
    card = (tmp_path / "export" / "README.md").read_text()
    assert f"accuracy {100 * found['accuracy']:.1f}" in card and "No attack was measured" in card
    assert "tensor(" in run_alone(tmp_path / "export", "")
    back = import_run(tmp_path / "export", tmp_path / "results")
    assert back.classifies and rule_of(load_classifier(back)) == "usf"
    assert evaluate_classifier(back) == found
    config = AttackConfig(attack="fgsm", epsilon=0.1, queries=10, gradient="rule", threads=1)
    assert attack_run(back, config).read_json("metrics.json", made_by="attack")["queries"] == 10


def test_the_card_tells_rule_data_versions_and_whose_gradient(exported: Path, made: Folder) -> None:
    card = (exported / "README.md").read_text()
    for words in (
        "`frsf`, seed 0",
        "digits",
        "CC BY 4.0",
        "chance",
        "torch 2.",
        "objective: csq",
        "bits: 12",
    ):
        assert words in card
    found = evaluate_run(made)
    assert f"mAP {100 * found['map']:.1f}" in card
    assert "attacked, exact gradient" in card and "200 real images: 0 of 2400 bits differ" in card
    described = json.loads((exported / "model.json").read_text())
    assert described["data"]["fingerprint"] in card and described["training"]["rule"] == "frsf"


def test_a_rules_number_on_the_card_has_the_exact_one_beside_it(run: Folder, tmp_path: Path) -> None:
    attack_run(run, AttackConfig(attack="hag", epsilon=0.2, params={"steps": 4}, queries=10, gradient="rule"))
    export_run(run, tmp_path / "export", card=model_card)
    (line,) = re.findall(r"^\| hag .*$", (tmp_path / "export" / "README.md").read_text(), flags=re.MULTILINE)
    assert re.search(r"\| not run \| \(rule: [\d.]+\) \|", line)


def test_a_run_that_was_not_measured_says_so_on_its_card(small: Any, tmp_path: Path) -> None:
    from hashrobust.experiments.training_runs import finetune_run

    run = finetune_run(small.finetune(epochs=1), tmp_path / "results")
    export_run(run, tmp_path / "export", card=model_card, feedback=True)
    card = (tmp_path / "export" / "README.md").read_text()
    assert "Nothing yet" in card and "feedback" not in card.partition("## Use")[0]
    assert not (tmp_path / "export" / "feedback.safetensors").exists()  # of backpropagation there is none


def test_onnx_gives_equal_codes_for_any_batch(made: Folder, tmp_path: Path) -> None:
    pytest.importorskip("onnx"), pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    found = export_run(made, tmp_path / "export", card=model_card, onnx=True)["checked"]["model.onnx"]
    assert found["values"] == 2400 and found["differ"] <= 2 and found["largest_difference"] < 1e-4
    session = runtime.InferenceSession(tmp_path / "export" / "model.onnx", providers=["CPUExecutionProvider"])
    images = hr.load_dataset("digits", image_size=16).query.images[:3].numpy()
    (outputs,) = session.run(None, {"images": images})
    assert np.array_equal(np.where(outputs >= 0, 1, -1), encode_run(made)["query"].codes[:3])
    assert "model.onnx` was held against" in (tmp_path / "export" / "README.md").read_text()


def test_a_file_that_answers_otherwise_is_never_exported(
    made: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_run(made)
    monkeypatch.setattr(exports, "write_onnx", lambda model, images, path: path.write_bytes(b"no matter"))
    for wrong in (
        lambda path, images: -model.outputs(images),
        lambda path, images: 1.1 * model.outputs(images),
    ):
        monkeypatch.setattr(exports, "onnx_outputs", wrong)
        with pytest.raises(HashRobustError, match=r"model\.onnx answers otherwise than the run's model"):
            export_run(made, tmp_path / "export", card=model_card, onnx=True)
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages_of_onnx_the_way_out_is_told(
    made: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'hashrobust\[onnx\]'"):
        export_run(made, tmp_path / "export", card=model_card, onnx=True)


def test_what_stands_in_the_way_is_kept(made: Folder, export: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds an export already: pass --overwrite"):
        export_run(made, export, card=model_card)
    (export / "__pycache__").mkdir()
    export_run(made, export, card=model_card, overwrite=True)
    assert not (export / "feedback.safetensors").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="holds something else"):
            export_run(made, tmp_path / "mine", card=model_card, overwrite=overwrite)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    (export / ".git").mkdir()
    with pytest.raises(InputError, match=r"holds something else \(\.git\)"):
        export_run(made, export, card=model_card, overwrite=True)


def test_the_folder_that_one_is_in_is_not_replaced(
    made: Folder, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in export.iterdir()}
    monkeypatch.chdir(export)
    for place in (Path(), export):
        with pytest.raises(InputError, match="is the folder that you are in"):
            export_run(made, place, card=model_card, overwrite=True)
    assert {path: path.read_bytes() for path in export.iterdir()} == before


def test_runs_without_a_model_to_share_are_refused(tmp_path: Path) -> None:
    pretrained = pretrain_run(PretrainConfig(image_size=16, epochs=1), tmp_path)
    with pytest.raises(InputError, match="network to start from: export a run of `hashrobust finetune`"):
        export_run(pretrained, tmp_path / "export", card=model_card)
    data = hr.load_dataset("digits", image_size=8)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8))
    with pytest.raises(InputError, match="made elsewhere: share it from where it was made"):
        export_run(foreign_run(net, data, tmp_path)[0], tmp_path / "export", card=model_card)


Damage = Callable[[Path], Any]


def described(place: Path, **changed: Any) -> dict[str, Any]:
    return {**json.loads((place / "model.json").read_text()), **changed}


def trained(place: Path, **changed: Any) -> dict[str, Any]:
    whole = described(place)
    return {**whole, "training": whole["training"] | changed}


def other_weights(place: Path) -> None:
    hr.save_model(hr.HashModel("lenet", 8, image_size=16), place / "model.safetensors")
    sealed(place)


def renamed_tensors(place: Path) -> None:
    tensors = load_file(place / "feedback.safetensors")
    save_file({f"{name}x": tensor for name, tensor in tensors.items()}, place / "feedback.safetensors")
    sealed(place)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no checksums": (lambda p: (p / "checksums.json").unlink(), "is no export, it has no checksums.json"),
    "checksums are a list": (lambda p: (p / "checksums.json").write_text("[1]"), "holds no table"),
    "checksums are cut off": (lambda p: (p / "checksums.json").write_text('{"a'), "is damaged"),
    "a path that leads out": (
        lambda p: (p / "checksums.json").write_text(json.dumps({"../../etc/passwd": "0"})),
        "leads out of the folder",
    ),
    "a path into a folder": (
        lambda p: (p / "checksums.json").write_text(json.dumps({"below/model.safetensors": "0"})),
        "no file of the export",
    ),
    "nothing listed": (
        lambda p: (p / "checksums.json").write_text("{}"),
        "has format None, this version reads 1",
    ),
    "a changed byte": (
        lambda p: (p / "model.safetensors").write_bytes((p / "model.safetensors").read_bytes()[:-1] + b"x"),
        "does not match its checksum",
    ),
    "weights missing": (lambda p: (p / "model.safetensors").unlink(), "is missing or does not match"),
    "weights not listed": (
        lambda p: ((p / "model.safetensors").unlink(), sealed(p)),
        "has no checksum of model.safetensors",
    ),
    "another format": (lambda p: sealed(p, model__json=described(p, format=9)), "has format 9"),
    "no network": (
        lambda p: sealed(p, model__json=described(p, network=3)),
        "says nothing useful of 'network'",
    ),
    "another task": (lambda p: sealed(p, model__json=described(p, task="poetry")), "is of task 'poetry'"),
    "bits are words": (lambda p: sealed(p, model__json=trained(p, bits="many")), "has bits 'many'"),
    "no bits": (lambda p: sealed(p, model__json=trained(p, bits=0)), "describes no training"),
    "another data set": (
        lambda p: sealed(p, model__json=trained(p, dataset="nowhere")),
        "unknown dataset 'nowhere'",
    ),
    "an unknown rule": (lambda p: sealed(p, model__json=trained(p, rule="magic")), "unknown rule 'magic'"),
    "another network": (other_weights, "is of another network than model.json describes"),
    "pickled weights": (
        lambda p: sealed(p, model__safetensors=pickle.dumps({"a": 1})),
        "is not a readable safetensors file",
    ),
    "foreign feedback": (renamed_tensors, "the feedback state does not fit the model"),
    "another size": (
        lambda p: sealed(p, model__json=trained(p, image_size=8)),
        "is for images of shape (1, 16, 16)",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_malformed_export_is_refused_in_one_sentence(name: str, export: Path, tmp_path: Path) -> None:
    damage, message = DAMAGES[name]
    damage(export)
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        import_run(export, tmp_path / "results")
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "results").glob("*")) and not list((tmp_path / "results").glob(".*"))


@pytest.mark.parametrize("name", ["objective", "rule", "backbone"])
def test_names_in_an_export_lead_nowhere(export: Path, tmp_path: Path, name: str) -> None:
    """They become part of the name of the run's folder."""
    told = trained(export, **{name: "x/../../../led out"}) | {"feedback": False}
    sealed(export, model__json=told)
    results = tmp_path / "deep" / "results"
    before = {*tmp_path.iterdir()}
    if name == "backbone":
        with pytest.raises(InputError, match="is of another network"):
            import_run(export, results)
    else:
        run = import_run(export, results)
        assert [*results.iterdir()] == [run.path] and run.path.parent == results
    assert {*tmp_path.iterdir()} <= before | {tmp_path / "deep"}


def test_no_code_of_an_export_is_run(export: Path, tmp_path: Path) -> None:
    (export / "model.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    sealed(export)
    evaluate_run(import_run(export, tmp_path / "results"))
    assert not (tmp_path / "run").exists()


def test_other_data_under_the_name_are_told_of(export: Path, tmp_path: Path) -> None:
    class Said:
        lines: list[str] = []  # noqa: RUF012

        def say(self, text: str) -> None:
            self.lines.append(text)

    changed = described(export)
    changed["data"]["fingerprint"] = "0" * 64
    sealed(export, model__json=changed)
    import_run(export, tmp_path / "results", progress=Said())  # type: ignore[arg-type]
    assert any("its numbers will be others" in line for line in Said.lines)
