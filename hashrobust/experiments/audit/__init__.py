"""The audit: which part of a claimed robustness survives an attacker who holds the weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from hashrobust.datasets import ClassificationDataset, LabelledDataset
from hashrobust.errors import InputError
from hashrobust.experiments.audit.plan import DEFAULT_ATTACKS, AuditConfig, check_attacks
from hashrobust.experiments.audit.runs import RESULT, Audit, audit_cost, audit_run
from hashrobust.experiments.foreign_runs import foreign_run, load_for
from hashrobust.experiments.store import Folder
from hashrobust.experiments.subject import Subject
from hashrobust.progress import Progress, Silent

__all__ = ["AuditConfig", "AuditReport", "audit", "audit_cost", "audit_run"]

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AuditReport:
    """What an audit found, read from its folder; scores are fractions."""

    verdict: str
    """PASS, FAIL, or INCOMPLETE where a check was skipped."""
    sentence: str
    headline: dict[str, Any]
    checks: pd.DataFrame
    """name, status, value, limit, meaning."""
    attacks: pd.DataFrame
    """One row an attack."""
    folder: Folder

    @classmethod
    def read(cls, folder: Folder) -> AuditReport:
        """The report of a finished audit's folder."""
        found = folder.read_json(RESULT, made_by="audit")
        return cls(
            found["verdict"],
            found["sentence"],
            found["headline"],
            pd.DataFrame(found["checks"]),
            pd.DataFrame(found["attacks"]),
            folder,
        )

    def status(self, check: str) -> str:
        """PASS, WARN, FAIL, SKIP or INFO of one check.

        Raises:
            InputError: no such check.
        """
        of = dict(zip(self.checks["name"], self.checks["status"], strict=True))
        if check not in of:
            raise InputError(f"the audit has no check '{check}': known: {', '.join(of)}")
        return str(of[check])

    def __str__(self) -> str:
        lines = [f"{row.status:<5} {row.name}: {row.meaning}" for row in self.checks.itertuples(index=False)]
        return "\n".join([f"verdict: {self.verdict}. {self.sentence}", *lines])


def audit(
    model: Model,
    data: LabelledDataset | str,
    *,
    task: str | None = None,
    control: Model | None = None,
    name: str = "model",
    results: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    **settings: Any,
) -> AuditReport:
    """Audit a model that was made anywhere: any callable from images in [0, 1] to outputs z (B, K), or logits.

    Args:
        model: a module is put into eval mode and frozen; a plain callable is taken as it is.
        data: a dataset with its protocol, or its name.
        task: "hashing" or "classification"; None: as the dataset's protocol, of a name "hashing".
        control: the backpropagation twin, for transfer and for the checks that need one.
        name: of the model, in the folder's name.
        results: where the run folder goes, to be resumed and reported on; a temporary folder if None.
        settings: fields of `AuditConfig`, such as epsilon=8/255, budget="quick", attack="center".

    Raises:
        InputError: an unknown setting, a task that is not the dataset's, or a model whose answers are not usable.
    """
    if isinstance(data, str):
        data = load_for(task or "hashing", data)
    served = "classification" if isinstance(data, ClassificationDataset) else "hashing"
    if task not in (None, served):
        raise InputError(f"task is '{task}', the dataset is loaded for {served}: leave the task out")
    try:
        config = AuditConfig(**{"attack": DEFAULT_ATTACKS[served], **settings})
    except TypeError as error:
        raise InputError(f"audit: {error}; known: {', '.join(AuditConfig.__annotations__)}") from error
    check_attacks(config, served)
    progress = progress or Silent()
    place = Path(results) if results is not None else Path(tempfile.mkdtemp(prefix="hashrobust-audit-"))

    def opened(given: Model, called: str) -> Subject:
        run, wrapped = foreign_run(given, data, place, name=called, device=device)
        return Subject.open(run, data=data, model=wrapped, device=device, progress=progress)

    subject = opened(model, name)
    twin = None if control is None else opened(control, f"{name}-control")
    return AuditReport.read(Audit.prepare(subject, twin, config, progress).run())
