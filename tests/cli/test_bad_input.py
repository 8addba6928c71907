"""Whatever is asked wrongly: one sentence on stderr, exit code 2, nothing left behind."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

RUN = "digits-lenet-dpsh"

BAD_WORDS = {
    # unknown names
    "finetune --dataset digts": "unknown dataset 'digts': did you mean 'digits'",
    "finetune --backbone lenett": "unknown backbone 'lenett': did you mean 'lenet'",
    "finetune --objective dpsj": "unknown objective 'dpsj': did you mean 'dpsh'",
    "finetune --rule frfs": "unknown rule 'frfs': did you mean 'frsf'",
    "finetune --defence center-ta": "unknown defence 'center-ta': did you mean 'center-at'",
    "finetune --rotate itk": "unknown rotation 'itk': did you mean 'itq'",
    "list defenses": "did you mean 'defences'",
    "finetune --preset berriche": "unknown preset 'berriche': did you mean 'berriche2025'",
    "finetune --optimizer adamm": "unknown optimizer 'adamm'.*adam, sgd",
    "finetune --schedule linear": "unknown schedule",
    "finetune --augment mirror": "unknown augmentation",
    "finetune --feedback-scale big": "unknown feedback scale",
    "finetune --device gpu9": "device 'gpu9' is not there",
    "pretrain --dataset digts": "did you mean 'digits'",
    "pretrain --backbone lenett": "did you mean 'lenet'",
    f"attack {RUN} --attack hagg": "unknown attack 'hagg': did you mean 'hag'",
    f"attack {RUN} --preset sat": "no preset 'sat': did you mean 'saat'",
    f"attack {RUN} --gradient exakt": "unknown gradient 'exakt'",
    f"attack {RUN} --gradient rule:frfs": "unknown rule 'frfs': did you mean 'frsf'",
    f"attack {RUN} --param betta=1": "no parameter 'betta'",
    "attack digits-resnet": "no run 'digits-resnet'",
    "list attakcs": "did you mean 'attacks'",
    "data digts": "did you mean 'digits'",
    f"index {RUN} --kind flatt --overwrite": "flat",
    # values
    "finetune --bits 0": "bits is 0",
    "finetune --bits abc": "--bits.*see `hashrobust finetune --help`",
    "finetune --epochs 0": "epochs is 0",
    "finetune --batch-size 0": "batch_size is 0",
    "finetune --learning-rate -1": "learning_rate is -1",
    "finetune --learning-rate nan": "learning_rate is nan",
    "finetune --image-size 9223372036854775807": "image_size is 9223372036854775807: .* at most 16384",
    "finetune --epochs 9223372036854775808": "epochs is more than 64 bits hold",
    f"finetune --param quantization_weight={'9' * 400}": "quantization_weight is more than 64 bits hold",
    "finetune --threads 0": "--threads.*1",
    "finetune --image-size 0": "--image-size.*1",
    "finetune --seeds x": "seeds 'x'.*0,3 or 0-2",
    "finetune --seeds 2-0": "seeds '2-0'",
    "finetune --param foo": "'foo' is not of the form name=value",
    "finetune --param foo=1": "no parameter 'foo'",
    "finetune --defence-param steps=2": "defence_params steps without a defence",
    "finetune --defence center-at --defence-param foo=1": "no parameter 'foo'",
    "finetune --defence center-at --defence-param steps=0": "steps of defence center-at is 0",
    "finetune --defence center-at --defence-param epsilon=8": "epsilon of defence center-at is 8",
    "finetune --weights nothing.safetensors": "weights 'nothing.safetensors' are no file",
    "finetune --weights run:nothing": "no run 'nothing'",
    "finetune --dataset folder": "lacks its folder",
    "finetune --dataset digits:here": "takes no folder",
    "finetune --dataset folder:/nowhere": "no such folder",
    f"attack {RUN} --epsilon 8": "epsilon '8'.*write 8/255",
    f"attack {RUN} --epsilon abc": "epsilon 'abc' is no number",
    f"attack {RUN} --epsilon 0": "epsilon '0' is outside",
    f"attack {RUN} --epsilon -0.1": "epsilon '-0.1' is outside",
    f"attack {RUN} --epsilon 8/0": "epsilon '8/0' is no number",
    f"attack {RUN} --epsilon nan": "epsilon 'nan' is outside",
    f"attack {RUN} --steps 0": "steps",
    f"attack {RUN} --step-size abc": "step size 'abc' is no number",
    f"attack {RUN} --steps 2 --step-size 1/255": "step",
    f"attack {RUN} --restarts 0": "restarts",
    f"attack {RUN} --queries 0": "queries is 0",
    f"attack {RUN} --queries 5 --query-seed -1": "query_seed is -1",
    f"audit {RUN} --queries 5 --query-seed -1": "query_seed is -1",
    f"attack {RUN} --gradient ,": "--gradient names nothing",
    f"attack {RUN} --attack ,": "--attack names nothing",
    f"attack {RUN} --epsilon ,": "--epsilon names nothing",
    f"audit {RUN} --also ,": "--also names nothing",
    f"attack {RUN} --queries 201": "201 queries.*has 200",
    f"attack {RUN} --batch-size 0": "batch_size is 0",
    f"attack {RUN} --param steps": "not of the form name=value",
    f"attack {RUN} --steps 2 --param steps=3": "steps stands in --param and in --steps",
    f"attack {RUN} --step-size 1/255 --param step_size=0.1": "step_size stands in --param and in --step-size",
    "attack digits-lenet-pretrained": "holds a classifier",
    "search digits-lenet-pretrained --query 0": "holds a classifier",
    "evaluate digits-lenet-pretrained": "holds a network to start from",
    "evaluate digits-lenet-pretrained --brief": "holds a network to start from",
    f"search {RUN}": "an image file or a query",
    f"search {RUN} --query 0 -k 0": "k is 0",
    f"search {RUN} --query 200": "query 200.*0 to 199",
    f"search {RUN} --query -1": "query -1",
    f"search {RUN} nothing.png": "'nothing.png' does not exist",
    "evaluate": "name either a run, or --codes",
    f"evaluate {RUN} -k 5": "-k",
    f"evaluate {RUN} --brief --json": "--brief and --json exclude each other",
    "report {results} --paper-table --json": "leave out --json and --compare",
    "report {results} --paper-table --compare published": "leave out --json and --compare",
    "evaluate --codes a.npy b.npy": "--codes needs --labels",
    "evaluate --codes a.npy": "--codes.*2 arguments: see `hashrobust evaluate --help`",
    "data imagenet100 --download": "cannot be downloaded",
    "data folder:nowhere": "there is no such folder",
    "data list:nowhere": "there is no such folder|lacks",
    "data flickr25k --task classification": "'flickr25k' has no classification protocol",
    "report {results} --filter rul=frsf": "did you mean 'rule'",
    "report {results} --group-by ruel": "did you mean 'rule'",
    "report {results} --metric mapp": "did you mean 'map'",
    "report {results} --group-by ,": "--group-by names nothing",
    "report {results} --format ,": "--format names nothing",
    "report {results} --html page.html --format csv": "--format .* --output",
    "report {results} --format doc": "unknown report format 'doc'",
    "report {results}/nowhere": "does not exist",
    "verify {results}/nowhere": "does not exist",
    # the parser's own
    "attack": "name either a run, or a model by --model",
    "attak": "(?i)no such command 'attak'",
    f"attack {RUN} --epsilom 8/255": "(?i)no such option.*--epsilom",
    # a run may have been made with a plugin's backbone or data set
    **{
        f"{command} {RUN} --plugin nothing.py": "plugin 'nothing.py' is not a Python file"
        for command in ("attack", "audit", "evaluate", "export", "index", "search")
    },
}
WITHOUT_RESULTS = ("data", "report", "verify", "attak")


def everything(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def assert_one_sentence(outcome, message, code=2):
    assert outcome.code == code
    assert outcome.out == ""
    assert re.search(message, outcome.err), outcome.err
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("words", BAD_WORDS)
def test_bad_words_are_refused_in_one_sentence_and_leave_nothing(cli, finished, tmp_path, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = everything(finished)
    arguments = words.format(results=finished).split()
    if not words.startswith(WITHOUT_RESULTS) and not words.startswith("evaluate --codes"):
        arguments += ["--results", str(finished)]
    assert_one_sentence(cli(*arguments), BAD_WORDS[words])
    assert everything(finished) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["report", "verify"])
def test_results_that_are_a_file(cli, tmp_path, command):
    (tmp_path / "notes.txt").write_text("no results")
    assert_one_sentence(cli(command, tmp_path / "notes.txt"), "is a file")


@pytest.mark.parametrize("command", ["report", "verify"])
def test_a_beginning_that_several_runs_have(cli, results, command, monkeypatch):
    monkeypatch.chdir(results.parent)
    assert_one_sentence(cli(command, "digits-lenet"), "'digits-lenet' fits 2 runs")
    assert_one_sentence(cli(command, "digits-resnet"), "does not exist")


def test_report_on_an_empty_folder(cli, tmp_path):
    assert_one_sentence(cli("report", tmp_path), "holds no run")
    assert list(tmp_path.iterdir()) == []


def test_option_without_its_value(cli):
    assert_one_sentence(cli("attack", RUN, "--epsilon"), "(?i)--epsilon.*requires an argument")


def test_no_arguments_show_help(cli):
    outcome = cli()
    assert outcome.code == 2 and "finetune" in outcome.out + outcome.err
    assert "error" not in outcome.err


# Datasets


def write_images(folder: Path, count: int, seed: int, size: int = 12) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def folder_dataset(tmp_path):
    root = tmp_path / "birds"
    for seed, name in enumerate(("crow", "wren")):
        write_images(root / name, 12, seed)
    return root


def test_data_names_skipped_files_with_their_count(cli, folder_dataset):
    (folder_dataset / "crow" / "empty.png").touch()
    (folder_dataset / "crow" / "text.png").write_text("no image")
    whole = (folder_dataset / "wren" / "0.png").read_bytes()
    (folder_dataset / "wren" / "cut.png").write_bytes(whole[: len(whole) // 2])
    outcome = cli("data", f"folder:{folder_dataset}")
    assert outcome.code == 0
    assert "3 files are left out" in outcome.err
    for name in ("crow/empty.png", "crow/text.png", "wren/cut.png"):
        assert name in outcome.err


def test_finetune_names_skipped_files(cli, folder_dataset, tmp_path):
    (folder_dataset / "crow" / "empty.png").touch()
    outcome = cli(
        *("finetune", "--dataset", f"folder:{folder_dataset}", "--image-size", 16, "--bits", 8),
        *("--epochs", 1, "--threads", 1, "--results", tmp_path / "new"),
    )
    assert outcome.code == 0, outcome.err
    assert "1 files are left out" in outcome.err and "crow/empty.png" in outcome.err


def test_class_with_one_image(cli, folder_dataset, tmp_path):
    write_images(folder_dataset / "lark", 1, 2)
    outcome = cli("finetune", "--dataset", f"folder:{folder_dataset}", "--results", tmp_path / "new")
    assert_one_sentence(outcome, "class 'lark' has 1 usable")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def list_dataset(tmp_path):
    root = tmp_path / "lists"
    write_images(root, 30, 3)
    for name, numbers in {"train": range(10), "test": range(10, 15), "database": range(15, 30)}.items():
        lines = [f"{number}.png {number % 2} {1 - number % 2}" for number in numbers]
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "validation.txt").write_text("".join(f"{n}.png {n % 2} {1 - n % 2}\n" for n in (0, 1)))
    (root / "train.txt").write_text("".join(f"{n}.png {n % 2} {1 - n % 2}\n" for n in range(2, 10)))
    return root


def test_list_dataset_is_sound_before_it_is_broken(cli, list_dataset):
    outcome = cli("data", f"list:{list_dataset}", "--json")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "3.png").unlink(), "3.png"),
        (lambda root: (root / "3.png").write_bytes(b""), "3.png"),
        (lambda root: (root / "3.png").write_bytes((root / "3.png").read_bytes()[:60]), "3.png"),
        (lambda root: (root / "3.png").write_text("text"), "3.png"),
        (lambda root: (root / "train.txt").write_text("2.png 0 1 1\n3.png 1 0\n"), "train.txt"),
        (lambda root: (root / "test.txt").write_text("15.png 1 0\n"), "also stand in another split"),
        (lambda root: (root / "database.txt").unlink(), "lacks database.txt"),
    ],
    ids=["missing", "empty", "truncated", "text", "labels", "overlap", "no-list"],
)
def test_broken_lists_are_refused(cli, list_dataset, tmp_path, break_it, message):
    break_it(list_dataset)
    outcome = cli("finetune", "--dataset", f"list:{list_dataset}", "--results", tmp_path / "new")
    assert_one_sentence(outcome, message)
    assert not (tmp_path / "new").exists()


def test_missing_data_names_a_command_that_exists(cli, tmp_path):
    outcome = cli("finetune", "--dataset", "mnist", "--data-dir", tmp_path, "--results", tmp_path / "new")
    assert_one_sentence(outcome, "`hashrobust data mnist --download`")
    outcome = cli("data", "mnist", "--data-dir", tmp_path)
    assert outcome.code == 0 and "missing" in outcome.out and "--download" in outcome.err


# Weights, codes, images


def test_pickled_weights_are_refused(cli, tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pth")
    outcome = cli("finetune", "--weights", tmp_path / "weights.pth", "--results", tmp_path / "new")
    assert_one_sentence(outcome, "weights.pth")
    assert not (tmp_path / "new").exists()


def test_weights_of_another_shape_are_refused(cli, finished, tmp_path):
    (run,) = finished.glob("digits-lenet-pretrained-*")
    outcome = cli(
        *("finetune", "--backbone", "resnet20", "--weights", run / "model.safetensors"),
        *("--results", tmp_path / "new"),
    )
    assert_one_sentence(outcome, "model.safetensors")
    assert not (tmp_path / "new").exists()


class Unpickled:
    def __reduce__(self):
        return (Path.touch, (Path("unpickled"),))


CODES = np.where(np.random.default_rng(0).random((6, 16)) < 0.5, -1, 1).astype(np.int8)
CLASSES = np.arange(6) % 2


@pytest.mark.parametrize(
    ("codes", "labels", "message"),
    [
        (CODES * 2, CLASSES, r"-1|\+1"),
        (CODES[:, :8], CLASSES, "bits"),
        (CODES[:4], CLASSES, "labels"),
        (CODES, CLASSES[:, None, None], "labels"),
        (np.array([Unpickled()], dtype=object), CLASSES, "no .npy file of numbers"),
    ],
    ids=["not-codes", "bits", "lengths", "labels", "pickled"],
)
def test_bad_code_files_are_refused(cli, tmp_path, monkeypatch, codes, labels, message):
    monkeypatch.chdir(tmp_path)
    for name, array in {"q": codes, "db": CODES, "ql": labels, "dbl": CLASSES}.items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
    outcome = cli("evaluate", "--codes", "q.npy", "db.npy", "--labels", "ql.npy", "dbl.npy")
    assert_one_sentence(outcome, message)
    assert not Path("unpickled").exists()


def test_missing_code_file(cli):
    outcome = cli("evaluate", "--codes", "q.npy", "db.npy", "--labels", "ql.npy", "dbl.npy")
    assert_one_sentence(outcome, "'q.npy' does not exist")


def test_text_is_no_image_to_search_with(cli, finished, tmp_path):
    (tmp_path / "note.png").write_text("a note")
    outcome = cli("search", RUN, tmp_path / "note.png", "--results", finished)
    assert_one_sentence(outcome, "note.png' is no image")
    assert " object at 0x" not in outcome.err


# Run folders


def test_search_without_index(cli, results, run_folder):
    (run_folder / "index.faiss").unlink()
    outcome = cli("search", RUN, "--query", 0, "--results", results)
    assert_one_sentence(outcome, "hashrobust index")
    (command,) = re.findall("`hashrobust (.*)`", outcome.err)
    assert cli(*command.split()).code == 0
    assert cli("search", RUN, "--query", 0, "--results", results).code == 0


def test_run_that_is_not_trained(cli, results, run_folder):
    (run_folder / "model.safetensors").unlink()
    (run_folder / "codes.npz").unlink()
    for command in (["evaluate", RUN, "--overwrite"], ["attack", RUN]):
        before = everything(results)
        assert_one_sentence(cli(*command, "--results", results), "hashrobust finetune")
        assert everything(results) == before


def test_run_of_another_version(cli, results, run_folder):
    config = run_folder / "config.toml"
    config.write_text(config.read_text().replace("format = 1", "format = 99"))
    assert_one_sentence(cli("evaluate", RUN, "--results", results), "format 99|checksum")


@pytest.mark.parametrize("name", ["model.safetensors", "codes.npz", "feedback.safetensors"])
def test_damaged_files_are_named(cli, results, run_folder, name):
    content = bytearray((run_folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run_folder / name).write_bytes(content)
    assert_one_sentence(cli("attack", RUN, "--queries", 5, "--results", results), f"{name}' does not match")
    outcome = cli("verify", results)
    assert outcome.code == 1 and outcome.out.startswith("changed: ") and name in outcome.out


@pytest.mark.parametrize(
    ("code", "where"),
    [(errno.EROFS, "touch"), (errno.ENOSPC, "replace"), (errno.EACCES, "touch")],
)
def test_results_that_cannot_be_written(cli, tmp_path, monkeypatch, code, where):
    def refuse(*arguments, **options):
        raise OSError(code, "not here")

    monkeypatch.setattr(Path, where, refuse)
    outcome = cli("finetune", "--epochs", 1, "--quiet", "--results", tmp_path / "new")
    assert_one_sentence(outcome, "cannot be written.*--results", code=1)
    assert not list((tmp_path / "new").rglob("*.safetensors"))


def test_results_below_a_file(cli, tmp_path):
    (tmp_path / "file").write_text("in the way")
    outcome = cli("finetune", "--epochs", 1, "--quiet", "--results", tmp_path / "file")
    assert_one_sentence(outcome, "file")


# Plugins


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("attack.txt", "", "not a Python file"),
        ("syntax.py", "def (:", "SyntaxError"),
        ("raises.py", "raise ValueError('no luck')", "no luck"),
        ("taken.py", "import hashrobust.attacks as a\n@a.attacks.register('hag')\ndef hug(): ...", "hag"),
    ],
)
def test_plugins_that_cannot_be_loaded(cli, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    assert_one_sentence(cli("list", "attacks", "--plugin", tmp_path / name), message)
