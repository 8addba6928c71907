"""Two runs made comparable: the one that retrieves better is taken at the epoch nearest to the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from hashrobust.experiments.files import locked
from hashrobust.experiments.store import AT_EPOCH, Folder
from hashrobust.experiments.weights import MODEL
from hashrobust.options import parse_stages
from hashrobust.progress import Progress

_HISTORY = "history.csv"
_COPIED = ("feedback.safetensors", "conversion.json", "environment.json")


def match_epochs(run: Folder, control: Folder, limit: float, progress: Progress) -> tuple[Folder, Folder]:
    """The two runs, or the better of them at the epoch whose validation score is nearest to the other's best.

    Nothing changes where they differ by `limit` at most, no epoch of the better one comes nearer, or one of them
    was not fine-tuned here, or rotated after training, as its models of single epochs are not.
    """
    own, twin = _kept(run), _kept(control)
    if own is None or twin is None or abs(own - twin) <= limit:
        return run, control
    better, wanted = (run, twin) if own > twin else (control, own)
    history = _history(better)
    scores = history[_score(better)]
    place = int((scores - wanted).abs().argmin())
    epoch, score = int(history["epoch"].iloc[place]), float(scores.iloc[place])
    if abs(score - wanted) >= abs(own - twin):
        return run, control
    taken = at_epoch(better, epoch)
    words = _score(better).replace("_map", " mAP").replace("_", " ")
    progress.say(
        f"{words} {100 * own:.1f}% and {100 * twin:.1f}% are too far apart: "
        f"{better.name} is taken at epoch {epoch}, with {100 * score:.1f}%"
    )
    return (taken, control) if better is run else (run, taken)


def at_epoch(run: Folder, epoch: int) -> Folder:
    """The model that a run had after an epoch, as a run of its own beside it: `<run>@epoch-NNN`.

    It is taken again if the run was made anew since.
    """
    path = run.path.with_name(f"{run.name}{AT_EPOCH}{epoch:03d}")
    checkpoint = f"checkpoints/epoch-{epoch:03d}.safetensors"
    config = {key: value for key, value in run.config.items() if key != "format"}
    if _is_taken(path, run, checkpoint):
        return Folder.open(path)
    with locked(path, wait=True):
        if _is_taken(path, run, checkpoint):  # while this process waited
            return Folder.open(path)
        folder = Folder.create(path, {**config, "epoch": epoch}, overwrite=True)
        for name in _COPIED:
            with folder.writing(name) as temporary:
                shutil.copyfile(run.file(name, made_by="finetune"), temporary)
        with folder.writing(MODEL) as temporary:
            shutil.copyfile(run.file_at_hand(checkpoint), temporary)
    return folder


def _is_taken(path: Path, run: Folder, checkpoint: str) -> bool:
    """Whether the copy is whole, and of the run's checkpoint as it is now (one off the list is not compared)."""
    copy = Folder(path)
    return copy.has(MODEL) and run.checksums.get(checkpoint) in (None, copy.checksums[MODEL])


def _kept(run: Folder) -> float | None:
    """The validation score of the epoch that was kept; None for a run that was not fine-tuned here, or is rotated."""
    if not run.has(_HISTORY, "feedback.safetensors") or {"epoch", "rotate"} & set(run.config):
        return None
    scores = _history(run)[_score(run)]
    if not len(scores):
        return None
    # A training that ended by steps chose no epoch.
    return float(scores.iloc[-1] if "max_steps" in run.config else scores.max())


def _history(run: Folder) -> pd.DataFrame:
    """The epochs that a run may be taken at: those of its last stage, whose rule it carries."""
    history = run.read_table(_HISTORY, made_by="finetune")
    *before, _ = parse_stages(run.config["rule"])
    return history[history["epoch"] > (before[-1].until or 0)] if before else history


def _score(run: Folder) -> str:
    return "validation_accuracy" if run.classifies else "validation_map"
