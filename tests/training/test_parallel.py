"""One training by two processes, told what they are as torchrun does, against the same by one."""

from __future__ import annotations

import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hashrobust.errors import InputError
from hashrobust.experiments.checkpoints import FolderCheckpoints
from hashrobust.experiments.environment import choose_device
from hashrobust.experiments.store import Folder
from hashrobust.launch import ALONE, Launch, launch
from hashrobust.models import Network
from hashrobust.training import TrainingState, augment, parallel

WORKER = Path(__file__).parent / "parallel_worker.py"
_spec = importlib.util.spec_from_file_location("parallel_worker", WORKER)
assert _spec is not None and _spec.loader is not None
worker: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(worker)


# ---- shares of a batch


@given(st.integers(1, 300), st.integers(1, 40))
@settings(deadline=None, max_examples=50)
def test_shares_make_up_the_batch_and_hold_two_images(count: int, size: int) -> None:
    shares = [parallel.share(count, Launch(rank, size)) for rank in range(size)]
    rows = [list(range(count))[share.rows][: share.kept] for share in shares]
    assert [row for own in rows for row in own] == list(range(count))
    sizes = [len(own) for own in rows if own]
    assert max(sizes) - min(sizes) <= 1
    loaded = [len(range(count)[share.rows]) for share in shares]
    assert min(loaded) >= min(2, count)
    assert all(share.kept in (0, seen) for share, seen in zip(shares, loaded, strict=True))


def test_alone_a_share_is_the_batch() -> None:
    share = parallel.share(5)
    values = torch.rand(5, 3, requires_grad=True)
    assert (share.rows, share.kept) == (slice(0, 5), 5)
    assert share.gather(values) is values and share.mean(values) is values


@given(
    st.sampled_from(["flip", "crop", "crop-flip"]), st.integers(2, 11), st.integers(1, 5), st.integers(0, 99)
)
@settings(deadline=None, max_examples=30)
def test_shares_are_augmented_as_the_whole_batch_is(mode: str, count: int, size: int, seed: int) -> None:
    images = torch.rand(count, 1, 8, 8)
    whole = augment(images, mode, torch.Generator().manual_seed(seed))
    for rank in range(size):
        share = parallel.share(count, Launch(rank, size))
        own = augment(images[share.rows], mode, torch.Generator().manual_seed(seed), share)
        assert torch.equal(own, whole[share.rows])


# ---- two processes


@pytest.fixture(scope="module")
def two(zygote: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two processes made of all cases; one of them goes on from what a single one began."""
    folder = tmp_path_factory.mktemp("two")

    class Stopped(FolderCheckpoints):
        def save(self, state: TrainingState, model: Network) -> None:
            super().save(state, model)
            raise KeyboardInterrupt

    begun = Folder.create(folder / "begun", {"task": "finetune"})
    with pytest.raises(KeyboardInterrupt):
        worker.train(rule="brsf", objective="hyp2", epochs=3, checkpoints=Stopped(begun))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    processes = [zygote.start(folder, script=str(WORKER), environment=told | rank) for rank in ranks]
    assert [process.wait() for process in processes] == [0, 0], [process.said for process in processes]
    return folder


def close(found: dict[str, Tensor], wanted: dict[str, Tensor], start: dict[str, Tensor]) -> None:
    """Equal within float tolerance, which is far below what training changed."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=5e-5)
    moved = [float((wanted[f"model.{name}"] - tensor).abs().max()) for name, tensor in start.items()]
    assert max(moved) > 2e-3


@pytest.mark.parametrize("name", worker.CASES)
def test_two_processes_train_as_one_does(two: Path, name: str) -> None:
    case = worker.CASES[name]
    wanted, result = worker.train(**case)
    start = worker.new_model(case.get("task", "hashing")).state_dict()
    for rank in (0, 1):
        found, history = worker.kept(two, name, rank)
        close(found, wanted, start)
        assert [row["loss"] for row in history] == pytest.approx(
            [row["loss"] for row in result.history], 1e-4
        )


@pytest.mark.parametrize("name", [*worker.CASES, *worker.OTHERS, "resumed"])
def test_both_processes_have_the_same_weights_feedback_and_objective(two: Path, name: str) -> None:
    (first, history), (second, other) = (worker.kept(two, name, rank) for rank in (0, 1))
    assert first.keys() == second.keys() and other == history
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_feedback_is_that_of_one_process(two: Path) -> None:
    for name in ("brsf", "frsf", "dfa", "proxies"):
        wanted, _ = worker.train(**worker.CASES[name])
        for rank in (0, 1):
            found, _ = worker.kept(two, name, rank)
            drawn = [key for key in wanted if key.startswith("feedback.")]
            assert drawn and all(torch.equal(found[key], wanted[key]) for key in drawn)


def test_running_statistics_are_the_mean_over_shares(two: Path) -> None:
    wanted, _ = worker.train(**worker.OTHERS["batchnorm"])
    found, _ = worker.kept(two, "batchnorm", 1)
    # After one step from equal weights the mean over two halves is that of the whole batch, in the first layer.
    name = "model.backbone.bn1.running_mean"
    torch.testing.assert_close(found[name], wanted[name])
    assert float(wanted[name].abs().max()) > 0
    small, _ = worker.kept(two, "batchnorm small", 0)
    assert all(bool(tensor.isfinite().all()) for tensor in small.values())


def test_dropout_differs_between_processes(two: Path) -> None:
    first, second = (worker.kept(two, "dropout", rank)[0]["left"] for rank in (0, 1))
    assert 0 < int(first.sum()) < 64 and 0 < int(second.sum()) < 64
    assert not torch.equal(first, second)


def test_two_processes_go_on_from_what_one_began(two: Path) -> None:
    wanted, result = worker.train(rule="brsf", objective="hyp2", epochs=3)
    found, history = worker.kept(two, "resumed", 1)
    close(found, wanted, worker.new_model().state_dict())
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["loss"] for row in history] == pytest.approx([row["loss"] for row in result.history], 1e-4)


def test_both_processes_know_what_they_are(two: Path) -> None:
    for rank in (0, 1):
        assert json.loads((two / f"size-{rank}.json").read_text()) == [2, ["of", 0]]


def test_no_thread_of_the_group_outlives_it(two: Path) -> None:
    """One that did could abort the interpreter at its end."""
    for rank in (0, 1):
        assert "gloo" not in (two / f"threads-{rank}").read_text()


# ---- how processes are told what they are


def tell(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_without_all_variables_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, WORLD_SIZE="4", RANK="1")
    assert launch() == ALONE
    tell(monkeypatch, LOCAL_RANK="0")
    assert launch() == Launch(rank=1, size=4, local_rank=0)


@pytest.mark.parametrize(
    ("rank", "size"), [("2", "2"), ("-1", "2"), ("x", "2"), ("0", "0"), ("", "2"), ("0", "9" * 5000)]
)
def test_impossible_variables_are_refused(monkeypatch: pytest.MonkeyPatch, rank: str, size: str) -> None:
    tell(monkeypatch, RANK=rank, WORLD_SIZE=size, LOCAL_RANK="0")
    with pytest.raises(InputError, match="leave these variables to torchrun"):
        launch()


def test_processes_that_find_none_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, RANK="0", WORLD_SIZE="2", LOCAL_RANK="0")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="start them by torchrun"), parallel.joined():
        pass
    assert parallel.size() == 1


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_here", Launch(rank=3, size=4, local_rank=1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("auto", "cuda"):
        with pytest.raises(InputError, match="more processes than there are GPUs here, 1: "):
            choose_device(name)
    for name in ("cuda:1", "mps"):
        with pytest.raises(InputError, match="one for all processes"):
            choose_device(name)
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
