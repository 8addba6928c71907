"""Two runs made comparable: the one that retrieves better is taken at the epoch nearest to the other."""

from __future__ import annotations

import shutil

import pandas as pd

from hashrobust.experiments.store import AT_EPOCH, Folder
from hashrobust.options import parse_stages
from hashrobust.progress import Progress

_HISTORY = "history.csv"
_COPIED = ("feedback.safetensors", "conversion.json", "environment.json")


def match_epochs(run: Folder, control: Folder, limit: float, progress: Progress) -> tuple[Folder, Folder]:
    """The two runs, or the better of them at the epoch whose validation score is nearest to the other's best.

    Nothing changes where they differ by `limit` at most, no epoch of the better one comes nearer, or one of them
    was not fine-tuned here, or rotated after training, as its models of single epochs are not.
    """
    best = [_best(folder) for folder in (run, control)]
    if None in best or abs(best[0] - best[1]) <= limit:  # type: ignore[operator]
        return run, control
    own, twin = float(best[0] or 0), float(best[1] or 0)
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
    """The model that a run had after an epoch, as a run of its own beside it: `<run>@epoch-NNN`."""
    path = run.path.with_name(f"{run.name}{AT_EPOCH}{epoch:03d}")
    if Folder(path).has("model.safetensors"):
        return Folder.open(path)
    config = {key: value for key, value in run.config.items() if key != "format"}
    with Folder.held(path, {**config, "epoch": epoch}, wait=True) as folder:
        if folder.has("model.safetensors"):  # made while this process waited
            return folder
        for name in _COPIED:
            with folder.writing(name) as temporary:
                shutil.copyfile(run.file(name, made_by="finetune"), temporary)
        with folder.writing("model.safetensors") as temporary:
            shutil.copyfile(run.file_at_hand(f"checkpoints/epoch-{epoch:03d}.safetensors"), temporary)
    return folder


def _best(run: Folder) -> float | None:
    """The validation score of the epoch that was kept; None for a run that was not fine-tuned here, or is rotated."""
    if not run.has(_HISTORY, "feedback.safetensors") or {"epoch", "rotate"} & set(run.config):
        return None
    history = _history(run)
    return float(history[_score(run)].max()) if len(history) else None


def _history(run: Folder) -> pd.DataFrame:
    """The epochs that a run may be taken at: those of its last stage, whose rule it carries."""
    history = run.read_table(_HISTORY, made_by="finetune")
    *before, _ = parse_stages(run.config["rule"])
    return history[history["epoch"] > (before[-1].until or 0)] if before else history


def _score(run: Folder) -> str:
    return "validation_accuracy" if run.classifies else "validation_map"
