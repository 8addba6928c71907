"""What is asked for in words: study files, options, parameters of components, files of plugins."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from .mutations import JUNK, examples, misshapen, mutated, toml_values

STUDY = """
name = "fuzzed"
tasks = ["hashing", "classification"]
datasets = ["digits"]
backbones = ["lenet"]
objectives = ["dpsh", { objective = "dch", gamma = 20.0 }]
bits = [8, 16]
rules = ["bp", "frsf", "bp@1,usf"]
layers = ["*", "head"]
scales = ["xavier", "matched"]
seeds = [0, 1]
steps = [0, "all"]
weights = ["pretrained", "none"]
attacks = ["fgsm", { attack = "hag", steps = 3, epsilons = ["4/255"], gradients = ["exact"] }, "pgd"]
epsilons = ["8/255", 0.1]
gradients = ["exact", "rule", "rule:usf"]
queries = 10
threads = 1
image_size = 8
audits = { budget = "quick" }

[attack]
batch_size = 10

[pretrain]
epochs = 2

[finetune.hashing]
epochs = 3
augment = "crop"
schedule = "cosine"

[[matrix]]

[[matrix]]
finetune.hashing.defence = "center-fast"
finetune.hashing.defence_params = { gradient = "rule" }
rules = ["bp", "usf"]
"""
WORDS = st.one_of(
    st.sampled_from(
        [
            *("", " ", "-", "--", "-1", "0", "1", "1/0", "nan", "inf", "-inf", "1e400", "8/255", "0-2", "9" * 5000),
            *("2147483648", "9223372036854775808", "0-99999999999", "true", "None", "../..", "/", "/dev/null", "\n"),
            *("bp@1,frsf", "bp@", "@1", "bp,bp", "frsf,", "*", "[", "[a", "**,,", "head,", "rule:", "rule:frsf:[", ":"),
            *("folder:", "folder:\0", "list:/", "folder:" + "a" * 300, "timm:", "run:", "run:../..", "\ud800"),
        ]
    ),
    st.text(max_size=12),
)  # fmt: skip


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "study.toml"


def test_the_whole_study_is_planned(worker, file):
    file.write_text(STUDY)
    assert worker("study", file)["value"] > 100


def check_study(worker, file) -> None:
    found = worker("study", file)
    assert "value" in found or found["code"] == 2, found


@examples(30)
@given(data=st.data())
def test_changed_bytes_of_studies(worker, file, data):
    file.write_bytes(data.draw(mutated(STUDY.encode())))
    check_study(worker, file)


@examples(40)
@given(data=st.data())
def test_studies_of_another_shape(worker, file, data):
    document = data.draw(misshapen(tomllib.loads(STUDY), st.one_of(JUNK, WORDS)))
    try:
        file.write_text(tomli_w.dumps(toml_values(document)))
    except UnicodeEncodeError:
        return
    check_study(worker, file)


def test_a_study_of_more_than_anybody_waits_for_is_refused(worker, file):
    many = str([*range(1, 40)])
    file.write_text(STUDY.replace("[0, 1]", many).replace("[8, 16]", many).replace('[0, "all"]', many))
    assert "trainings, more than" in worker("study", file)["refused"]
    epsilons = [place / 5000 for place in range(1, 5000)]
    file.write_text(STUDY.replace('["8/255", 0.1]', str(epsilons)))
    assert "attacks on one of them, more than" in worker("study", file)["refused"]


def test_a_number_of_thousands_of_digits_is_no_toml(worker, file):
    file.write_text(STUDY.replace("[8, 16]", f"[{'9' * 5000}]"))
    assert "is no TOML" in worker("study", file)["refused"]


@examples(100)
@given(what=st.sampled_from(["epsilon", "step size", "seeds", "rule", "layers", "dataset"]), text=WORDS)
def test_words_with_a_grammar(worker, what, text):
    found = worker("read_words", what, text)
    assert "value" in found or found["code"] == 2, found


def test_more_seeds_than_anybody_waits_for_are_refused(worker):
    assert "more than 1000" in worker("read_words", "seeds", "0-99999999999")["refused"]


COMPONENTS = {
    "objective": ["dpsh", "dch", "hyp2", "csq", "dsh", "hashnet", "orthohash", "wglhh", "greedyhash", "dtsh"],
    "defence": ["center-at", "center-fast"],
    "attack": [
        "fgsm",
        "pgd",
        "hag",
        "center",
        "noise",
        "square",
        "sdha",
        "dhta",
        "tha",
        "uap",
        "prosgan",
        "apgd-ce",
    ],
}
PARAMETERS = {
    "objective": ["quantization_weight", "gamma", "margin", "eta", "alpha", "scale", "bits"],
    "defence": ["epsilon", "steps", "gradient", "alpha", "weight", "step_size"],
    "attack": ["epsilon", "steps", "step_size", "alpha", "loss", "seed", "kind", "budget", "restarts", "schedule"],
}  # fmt: skip


@examples(100)
@given(data=st.data(), kind=st.sampled_from([*COMPONENTS]))
def test_parameters_of_components(worker, data, kind):
    name = data.draw(st.one_of(st.sampled_from(COMPONENTS[kind]), WORDS))
    texts = data.draw(
        st.lists(
            st.one_of(st.builds("{}={}".format, st.sampled_from(PARAMETERS[kind]), WORDS), WORDS), max_size=3
        )
    )
    found = worker("built", kind, name, *texts)
    assert "value" in found or found["code"] == 2, found


@pytest.mark.parametrize("text", ["steps=" + "9" * 30, "restarts=" + "9" * 30, "steps=many", "steps=true"])
def test_counts_that_are_none(worker, text):
    assert worker("built", "attack", "hag", text)["code"] == 2


OPTIONS = {
    "finetune": [
        *("--task", "--dataset", "--backbone", "--weights", "--objective", "--bits", "--rule", "--layers"),
        *("--feedback-scale", "--defence", "--rotate", "--image-size", "--batch-size", "--optimizer", "--device"),
        *("--learning-rate", "--head-learning-rate-factor", "--weight-decay", "--schedule", "--augment", "--seeds"),
        *("--preset", "-p", "--defence-param", "--plugin", "--data-dir", "--threads", "--patience"),
    ],
    "attack": ["--attack", "--gradient", "--epsilon", "-p", "--preset", "--surrogate", "--queries", "--batch-size"],
    "audit": ["--attack", "--epsilon", "--control", "--budget", "--also", "--model", "--weights", "--task"],
    "report": ["--html", "--where", "--figure"],
    "search": ["--query", "--image", "-k"],
    "import": ["--dataset"],
    "export": ["--to"],
}  # fmt: skip


@examples(40)
@given(data=st.data(), command=st.sampled_from([*OPTIONS]))
def test_options(worker, tmp_path, data, command):
    """Of a training that ends before it begins, and of runs that are not there."""
    option = data.draw(st.sampled_from(OPTIONS[command]))
    first = {"finetune": ["--max-steps", "0", "--epochs", "1", "--image-size", "8"], "report": [tmp_path]}
    words = [command, *first.get(command, ["digits"]), option, data.draw(WORDS)]
    worker.command(*words, *([] if command == "report" else ["--results", tmp_path / "results"]))


@examples(20)
@given(
    content=st.one_of(
        st.binary(max_size=64), st.sampled_from([b"raise SystemExit(3)", b"1/0", b"import nothing"])
    )
)
def test_files_of_plugins(worker, tmp_path, content):
    """Whatever a plugin does is its own; what is none is refused."""
    file = tmp_path / "plugin.py"
    file.write_bytes(content)
    worker.command("list", "attacks", "--plugin", file)
