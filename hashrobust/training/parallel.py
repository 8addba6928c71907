"""One training in several processes: all that is distributed stands here.

Each process takes its share of every batch. Outputs of all shares are gathered, so that the objective sees the whole
batch, as pairs need it, and every process finds the same loss L(z_1, ..., z_N). In each of them only its own rows of z
carry a graph: its backward pass yields the part of the gradient that goes through them,

    dL/dW = sum over processes r of (dL/dz_r) (dz_r/dW),

so that gradients of the network are summed, with no factor. Parameters of an objective get their whole gradient in
every process, since each sees all of z, and are not summed. In a process that is alone nothing here does anything.
"""

from __future__ import annotations

import atexit
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hashrobust.datasets import Split
from hashrobust.errors import InputError, TrainingError
from hashrobust.launch import ALONE, Launch, launch
from hashrobust.training.state import TrainingState

LONGEST_WAIT = timedelta(hours=2)
"""For the others, such as the first one that reads photographs anew; who dies is noticed at once."""
LEAST = 2
"""Images of a share, as BatchNorm needs them."""

_here: Launch = ALONE


@contextmanager
def joined() -> Iterator[None]:
    """Within the block, train together with the other processes that torchrun started; alone if there are none.

    Raises:
        InputError: they cannot be reached.
    """
    global _here
    found = launch()
    if found.size == 1 or _here.size > 1:
        yield
        return
    if not dist.is_initialized():
        _connect(found)
    _here = found
    try:
        yield
    finally:
        _here = ALONE


def _connect(found: Launch) -> None:
    """Meet the other processes, for as long as this one lives."""
    # What optimizers import later keeps the group of that moment as a default, and with it threads that may abort the
    # interpreter at its end: this is the part that does.
    importlib.import_module("torch.distributed.nn")
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(found.local_rank % torch.cuda.device_count())
    try:
        dist.init_process_group(backend, timeout=LONGEST_WAIT)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"the {found.size} processes of this training do not find each other ({error}): start them by torchrun"
        ) from error
    # At the end and not before: the others learn of an error by it, once this process has said what it was.
    atexit.register(dist.destroy_process_group)


def size() -> int:
    """How many processes train together."""
    return _here.size


def rank() -> int:
    """Which of them this is, from 0."""
    return _here.rank


def local_rank() -> int:
    """Which of those on this machine this is, from 0."""
    return _here.local_rank


def is_first() -> bool:
    """Whether this is the process that writes."""
    return _here.first


# ---- shares of a batch


@dataclass(frozen=True)
class Share:
    """What a process computes of a batch of `count` images: `rows`, of which the first `kept` count.

    All rows count, or none: a process for which nothing is left computes the first rows once more, so that graphs and
    BatchNorm take the same way in all processes.
    """

    rows: slice
    kept: int
    count: int

    def gather(self, values: Tensor) -> Tensor:
        """The values (count, ...) of the whole batch from those of all shares; this one's keep their graph."""
        if size() == 1:
            return values
        start, values = self.rows.start, values[: self.kept]
        # Summed into zeros, which is exact: shares may differ in size.
        whole = torch.zeros(self.count, *values.shape[1:], dtype=values.dtype, device=values.device)
        whole[start : start + self.kept] = values.detach()
        _all_reduce(whole)
        if not values.requires_grad:
            return whole
        return torch.cat([whole[:start], values, whole[start + self.kept :]])

    def mean(self, value: Tensor) -> Tensor:
        """The mean over a batch, a scalar, from the means over all shares; this one's part keeps its graph."""
        if size() == 1:
            return value
        own = value * (self.kept / self.count)
        total = own.detach().clone()
        _all_reduce(total)
        return own + (total - own.detach())


def share(count: int, here: Launch | None = None) -> Share:
    """The share of this process (or of the one called `here`) of a batch of `count` images.

    Shares are runs of rows, as equal as can be, of at least two images: a small batch occupies fewer processes.
    """
    here = here or _here
    parts = max(1, min(here.size, count // LEAST))
    if here.rank >= parts:
        return Share(slice(0, min(LEAST, count)), 0, count)
    start, stop = (count * part // parts for part in (here.rank, here.rank + 1))
    return Share(slice(start, stop), stop - start, count)


def by_shares(compute: Callable[[Split], Tensor], split: Split) -> Tensor:
    """`compute(split)`, one row an image, of which each process computes its share."""
    if size() == 1:
        return compute(split)
    own = share(len(split))
    return own.gather(compute(replace(split, labels=split.labels[own.rows], ids=split.ids[own.rows])))


# ---- networks


def align(*modules: object) -> None:
    """Give all parameters and buffers (feedback as well) the values that they have in the first process."""
    if size() == 1:
        return
    for module in modules:
        if isinstance(module, nn.Module):
            for tensor in (*module.parameters(), *module.buffers()):
                _broadcast(tensor.detach())


def sum_gradients(model: nn.Module) -> None:
    """Let each parameter's gradient be the sum of those of all processes."""
    if size() == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    _all_reduce(flat)
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, summed in zip(gradients, parts, strict=True):
        gradient.copy_(summed.view_as(gradient))


def average_statistics(model: nn.Module) -> None:
    """Let BatchNorm's running statistics be the mean of those of all processes, which saw other images."""
    if size() == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            for statistic in (module.running_mean, module.running_var):
                _all_reduce(statistic)
                statistic /= size()


# ---- what all processes have to agree on


def same(value: Any) -> Any:
    """The first process's value in all of them; any that JSON has a word for."""
    if size() == 1:
        return value
    content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    length = torch.tensor(len(content))
    _broadcast(length)
    if not is_first():
        content = torch.empty(int(length), dtype=torch.uint8)
    _broadcast(content)
    return json.loads(content.numpy().tobytes())


def same_state(state: TrainingState | None) -> TrainingState | None:
    """The first process's state of a training in all of them."""
    if size() == 1:
        return state
    values = same(None if state is None else state.values())
    if values is None:
        return None
    tensors = state.tensors if state else {}
    described = same({name: (str(tensor.dtype), list(tensor.shape)) for name, tensor in tensors.items()})
    for name, (kind, shape) in described.items():
        if not is_first():
            tensors[name] = torch.empty(shape, dtype=getattr(torch, kind.removeprefix("torch.")))
        _broadcast(tensors[name])
    return TrainingState(tensors=tensors, **values)


def wait() -> None:
    """Go on when all processes have come here."""
    if size() > 1:
        _all_reduce(torch.zeros(1))


@contextmanager
def first_ahead() -> Iterator[None]:
    """Let the first process through the block before the others, which may find done what it did."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def _all_reduce(tensor: Tensor) -> None:
    with _reaching():
        dist.all_reduce(tensor)


def _broadcast(tensor: Tensor) -> None:
    with _reaching():
        sent = tensor.contiguous()
        dist.broadcast(sent, 0)
        if sent is not tensor:
            tensor.copy_(sent)


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "another process of this training has ended: epochs that were finished are kept, the same command goes on "
            "from there"
        ) from error
