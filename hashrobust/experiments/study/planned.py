"""A study read, checked and planned: its cells, and what of them is in the results folder already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hashrobust.datasets._info import data_folder
from hashrobust.experiments.study.cells import Outcome, Place, present
from hashrobust.experiments.study.check import check_study
from hashrobust.experiments.study.file import StudyFile
from hashrobust.experiments.study.matrix import Study, read_study
from hashrobust.experiments.study.plan import STAGES, Cell, TrainedCell, make_plan


@dataclass(frozen=True)
class Planned:
    """A study with its cells, checked as far as that goes without data; `found` is what is there, by key."""

    study: Study
    cells: list[Cell]
    place: Place
    found: Mapping[str, Outcome]

    def left(self, cell: Cell) -> int:
        """How many units of a cell are to be done."""
        return cell.units - self.found[cell.key].found

    def summary(self) -> list[tuple[str, str, int, int]]:
        """Stage, task, units in all, and units that are there, for each stage and task that has any."""
        total: Counter[tuple[str, str]] = Counter()
        there: Counter[tuple[str, str]] = Counter()
        for cell in self.cells:
            total[cell.stage, cell.task] += cell.units
            there[cell.stage, cell.task] += self.found[cell.key].found
        return [(*key, total[key], there[key]) for key in sorted(total, key=lambda key: STAGES.index(key[0]))]

    def used(self) -> list[TrainedCell]:
        """The trainings that are to be done, or whose runs are to be attacked or audited."""
        keys: set[str] = set()
        for cell in self.cells:
            if self.left(cell):
                keys.update((cell.key,) if isinstance(cell, TrainedCell) else cell.needs)
        return [cell for cell in self.cells if isinstance(cell, TrainedCell) and cell.key in keys]

    def again(self) -> Planned:
        """The same, after another look into the results folder."""
        return replace(self, found=_found(self.cells, self.place))


def plan_study(
    path: Path,
    results: Path | None = None,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    plugins: Sequence[Path] = (),
) -> Planned:
    """Read, check and plan the study of a file; without `results` it goes where the file says.

    Raises:
        InputError: with the line and the reason.
    """
    study = read_study(StudyFile.read(path))
    check_study(study)
    # Absolute, since workers may have been started elsewhere.
    place = Place(
        Path(results or study.results).absolute(),
        data_folder(data_dir).absolute(),
        device,
        tuple(plugin.absolute() for plugin in plugins),
    )
    cells = make_plan(study.matrices)
    return Planned(study, cells, place, _found(cells, place))


def _found(cells: Sequence[Cell], place: Place) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for cell in cells:
        runs = [found[key].run for key in cell.needs]
        found[cell.key] = present(cell, runs, place) if all(runs) else Outcome()
    return found
