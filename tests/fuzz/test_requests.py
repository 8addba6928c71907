"""What is asked for in words: study files, options, parameters of components, files of plugins."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import typer
from hypothesis import given
from hypothesis import strategies as st

from hashrobust.cli import app

from .conftest import Worker
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
            *("bp@" + "9" * 5000 + ",usf", "9" * 400, "1e-400", "8/1e-400", "٣", "²", "0x10", "1_0"),
            *("18446744073709551616",),
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


@examples(30)
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


def test_a_bracket_before_many_spaces_is_read_at_once(worker, file):
    """It might begin a table, whose line is looked for."""
    file.write_text(
        STUDY.replace("[8, 16]", f"[[{' ' * 20_000}8, 16]]".replace("[[", "[\n[", 1).replace("8", "\n8", 1))
    )
    assert "is no whole number" in worker("study", file)["refused"]


NUMBERS = re.compile(r"(?<![\w/.\"@-])\d+(?:\.\d+)?(?![\w/.\"])")


@examples(8)
@given(data=st.data())
def test_numbers_of_studies(worker, file, data):
    """Also such as decimals cannot tell."""
    places = [*NUMBERS.finditer(STUDY)]
    place = data.draw(st.sampled_from(places))
    telling = st.sampled_from(
        ["0x" + "f" * 5000, "0x" + "f" * 400, "1e400", "-inf", "nan", "0b1", "-0.0", "1_000"]
    )
    number = data.draw(st.one_of(telling, st.integers(-(2**64), 2**64).map(str), st.floats().map(repr)))
    file.write_text(STUDY[: place.start()] + number + STUDY[place.end() :])
    check_study(worker, file)


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


def options_of_commands() -> dict[str, list[str]]:
    """Every option that takes a value, but for those that begin work on processes or clusters."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    taking = {
        name: [
            p.opts[0] for p in c.params if p.param_type_name == "option" and not p.is_flag and p.nargs == 1
        ]
        for name, c in commands.items()
    }
    return {name: sorted({*found} - {"--jobs", "--scheduler"}) for name, found in taking.items() if found}


OPTIONS = options_of_commands()
PLACES = {"--results", "--output", "--to", "--html"}
"""Where something would be written."""
NOWHERE = st.sampled_from(
    ["", "\0", "a" * 300, "/dev/null", "/dev/null/x", "/proc/x", "file", "file/x", "\udcff"]
)
BRIEFLY = {
    "finetune": ["--max-steps", "0", "--epochs", "1", "--image-size", "8"],
    "pretrain": ["--image-size", "8", "--backbone", "none"],  # there is nothing to cut it short by
    "study": ["study.toml", "--dry-run"],
    "report": ["runs"],
    "list": ["runs"],
    "data": ["digits"],
    "import": ["runs"],
    "check": [],
}


@examples(40)
@given(data=st.data(), command=st.sampled_from([*OPTIONS]))
def test_options(worker, tmp_path, data, command):
    """Of a training that ends before it begins, and of runs that are not there."""
    (tmp_path / "file").touch()
    (tmp_path / "study.toml").write_text(STUDY)
    option = data.draw(st.sampled_from(OPTIONS[command]))
    value = data.draw(NOWHERE if option in PLACES else WORDS)
    words = [command, *BRIEFLY.get(command, ["digits"]), option, value]
    try:
        found = worker("surrounded", tmp_path, "{}", 0, *words)["value"]
    except UnicodeEncodeError:  # no word that a shell could give
        return
    Worker.check(found)


LINE = st.lists(
    st.one_of(
        st.sampled_from([*OPTIONS, *sorted({o for found in OPTIONS.values() for o in found}), "digits"]),
        WORDS,
    ),
    min_size=1,
    max_size=4,
)


@examples(20)
@given(words=LINE)
def test_lines_of_any_words(worker, tmp_path, words):
    if {"pretrain", "finetune"} & {*words}:
        words = [*words, "--backbone", "none"]
    Worker.check(worker("surrounded", tmp_path, "{}", 0, *words)["value"])


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
