"""An audit as a folder in its run: planned, priced, resumed cell by cell, and read."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from hashrobust.errors import HashRobustError, InputError, ModelError, StoreError
from hashrobust.experiments.attack_runs import Where, as_stored, attack_run, build
from hashrobust.experiments.audit.checks import CLEAN_MATCH
from hashrobust.experiments.audit.evidence import Evidence
from hashrobust.experiments.audit.headline import headline
from hashrobust.experiments.audit.judging import all_checks
from hashrobust.experiments.audit.model_facts import depth_facts, determinism_facts
from hashrobust.experiments.audit.plan import MAIN, AuditConfig, Cell, check_attacks, plan, with_version
from hashrobust.experiments.audit.verdict import matched, verdict, verdict_sentence
from hashrobust.experiments.bench import Bench
from hashrobust.experiments.environment import record_environment, threads
from hashrobust.experiments.matching import match_epochs
from hashrobust.experiments.store import Folder
from hashrobust.experiments.subject import Subject, check_surrogate
from hashrobust.progress import Progress, Silent

RESULT = "audit.json"
QUERIES = "queries.parquet"
AUDITS = "audits"


def audit_run(
    run: Folder,
    config: AuditConfig,
    *,
    control: Folder | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Folder:
    """Audit a run, beside its backpropagation twin if one is given; the audit's folder `audits/audit-<hash8>`.

    Its attacks are ordinary attacks of the run, stored beside the others: what is done is not done again.
    Where one of the two retrieves better unattacked, it is taken at an earlier epoch (see `match_epochs`).

    Raises:
        InputError: an unknown name, an impossible value, or a control that does not fit.
        StoreError: a run is unfinished, damaged, in use, or its data has changed.
    """
    where = Where(data_dir, device, progress or Silent())
    subject, twin = _open(run, control, where)
    return Audit.prepare(subject, twin, config, where.progress).run(overwrite=overwrite)


def audit_cost(
    run: Folder,
    config: AuditConfig,
    *,
    control: Folder | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
) -> str:
    """One sentence on what an audit would cost, from one measured gradient step."""
    where = Where(data_dir, device, Silent())
    subject, twin = _open(run, control, where)
    with threads(config.threads):
        return Audit.prepare(subject, twin, config, where.progress).cost()


def _open(run: Folder, control: Folder | None, where: Where) -> tuple[Subject, Subject | None]:
    if control is not None and control.path.resolve() == run.path.resolve():
        raise InputError(f"control '{control.name}' is the audited run itself: name its backpropagation twin")
    if control is not None:
        _check_kind(control, run)
        run, control = match_epochs(run, control, CLEAN_MATCH, where.progress)
    subject = where.open_beside(run)
    return subject, None if control is None else where.open_beside(control, subject.data)


def _check_kind(control: Folder, run: Folder) -> None:
    """Refuse what the configurations tell to be no twin, before one of the two is copied at an earlier epoch."""
    told = {
        "task": (control.classifies, run.classifies),
        "bits": (control.config.get("bits"), run.config.get("bits")),
    }
    for fact, (own, wanted) in told.items():
        if own != wanted and None not in (own, wanted):
            raise InputError(
                f"control '{control.name}' and run '{run.name}' differ in {fact}: take a control made with the same "
                "data set, image size and code length"
            )


@dataclass(frozen=True)
class Audit:
    """An audit made ready: the models, the cells, and who runs them."""

    subject: Subject
    twin: Subject | None
    config: AuditConfig
    cells: list[Cell]
    progress: Progress

    @classmethod
    def prepare(
        cls, subject: Subject, twin: Subject | None, config: AuditConfig, progress: Progress
    ) -> Audit:
        """Plan the cells.

        Raises:
            InputError: see `audit_run`.
        """
        check_attacks(config, subject.measure.task)
        if twin is not None:
            check_surrogate(twin, subject, "control")
            config = replace(config, control=twin.name, control_digest=twin.digest)
        # Stored are the amounts themselves: what a budget's name stands for may change.
        config = replace(with_version(config, subject.measure.task), **vars(config.amounts))
        cells = plan(
            config,
            queries=len(subject.data.asked),
            rule=subject.feedback,
            control=None if twin is None else twin.name,
            task=subject.measure.task,
        )
        return cls(subject, twin, config, cells, progress)

    def run(self, *, overwrite: bool = False) -> Folder:
        """Run what is missing, and read it."""
        folder = Folder(self.subject.folder.path / AUDITS / self.config.folder_name)
        if folder.has(RESULT) and not overwrite:
            self.progress.say(f"{self.subject.name}/{folder.name} is done already")
            return Folder.open(folder.path, self.config.to_dict())
        with threads(self.config.threads):
            determinism = determinism_facts(self.subject)
            of_twin = None if self.twin is None else determinism_facts(self.twin)
            with self._held():
                folder = Folder.create(folder.path, self.config.to_dict(), overwrite=overwrite)
                record_environment(
                    folder, device=self.subject.device, fingerprint=self.subject.data.fingerprint
                )
            self.progress.say(self.cost())
            started = time.perf_counter()
            done, errors = self._run_cells(overwrite, random=determinism["differing_bits"] > 0)
            with self._held():
                folder.add_timing(audit_seconds=time.perf_counter() - started)
                self._read(folder, done, errors, determinism, of_twin)
        return folder

    def _held(self) -> AbstractContextManager[None]:
        """The run held while the audit writes. Its attacks hold it each by itself, so that audits take turns."""
        return self.subject.folder.lock(wait=True)

    def cost(self) -> str:
        """One sentence on how long the audit will take, from one measured step of the audited model."""
        seconds, left = 0.0, 0
        main = self.cells[0]
        measured, steps, _ = self._bench(main).estimate()
        for cell in self.cells:
            if not self._folder(cell).has("metrics.json"):
                left += 1
                attack = build(cell.config)
                taken = getattr(attack, "gradient_steps", 0) + getattr(attack, "budget", 0) / 3
                seconds += measured * taken / max(steps, 1)
        queries, asked = len(self.subject.data.asked), self.config.amounts.queries
        counted = (
            f"{asked} queries"
            if asked <= queries
            else f"{queries} queries, all there are of {asked} asked for"
        )
        return (
            f"audit of {self.subject.name}: {len(self.cells)} attacks on {counted}, "
            f"{left} still to run, about {seconds / 60:.0f} min"
        )

    def _run_cells(self, overwrite: bool, *, random: bool) -> tuple[dict[str, Folder], dict[str, str]]:
        """Run what is missing, but nothing on a model that answers at `random`; folders and errors by part."""
        done: dict[str, Folder] = {}
        errors: dict[str, str] = {}
        with self.progress.track("audit", len(self.cells), "attacks") as advance:
            for cell in self.cells:
                if random and not cell.on_control:
                    errors[cell.part] = (
                        "the model gives other answers when asked again, which no attack is run on"
                    )
                    continue
                try:
                    done[cell.part] = self._attack(cell, overwrite)
                # Of files, disks or the model's own code: nothing that it is to be judged by.
                except (StoreError, ModelError):
                    raise
                except HashRobustError as error:
                    if isinstance(error, InputError) and cell.part != MAIN and not errors:
                        raise
                    errors[cell.part] = str(error)
                advance(1, cell.part)
        return done, errors

    def _on(self, cell: Cell) -> Subject:
        if cell.on_control:
            assert self.twin is not None
            return self.twin
        return self.subject

    def _folder(self, cell: Cell) -> Folder:
        config = as_stored(cell.config, build(cell.config))
        return Folder(self._on(cell).folder.path / "attacks" / config.folder_name)

    def _bench(self, cell: Cell) -> Bench:
        return Bench.prepare(self._on(cell), cell.config, build(cell.config))

    def _attack(self, cell: Cell, overwrite: bool) -> Folder:
        on = self._on(cell)
        surrogate = self.twin if cell.config.surrogate is not None else None
        return attack_run(
            on.folder, cell.config, subject=on, surrogate=surrogate, overwrite=overwrite, wait=True
        )

    def _read(
        self,
        folder: Folder,
        done: dict[str, Folder],
        errors: dict[str, str],
        determinism: dict[str, Any],
        of_twin: dict[str, Any] | None,
    ) -> None:
        tables = {
            part: attack.read_table(QUERIES, made_by="attack").sort_values("query_id", ignore_index=True)
            for part, attack in done.items()
        }
        evidence = Evidence(
            cells=self.cells,
            tables=tables,
            metrics={
                part: attack.read_json("metrics.json", made_by="attack") for part, attack in done.items()
            },
            errors=errors,
            determinism=determinism,
            validation_score=self.subject.validation_score(),
            control_validation_score=None if self.twin is None else self.twin.validation_score(),
            measure=self.subject.measure,
            control_determinism=of_twin,
        )
        found, numbers = all_checks(evidence), headline(evidence)
        word = verdict(found)
        folder.write_table(QUERIES, _per_query(evidence))
        folder.write_json(
            RESULT,
            {
                "verdict": word,
                "task": self.subject.measure.task,
                "sentence": verdict_sentence(word, found, numbers, self.subject.measure),
                "matched": None if self.twin is None else matched(found),
                "rule": self.subject.rule,
                "headline": numbers,
                "checks": [check.to_dict() for check in found],
                "attacks": [self._row(cell, done, evidence) for cell in self.cells],
                "gradient_by_depth": [] if determinism["differing_bits"] > 0 else depth_facts(self.subject),
                "determinism": determinism,
            },
        )

    def _row(self, cell: Cell, done: dict[str, Folder], evidence: Evidence) -> dict[str, Any]:
        row: dict[str, Any] = {
            "part": cell.part,
            "access": cell.access,
            "on_control": cell.on_control,
            "epsilon": cell.config.epsilon,
            "attack": cell.config.attack,
            "gradient": cell.config.gradient,
            "error": evidence.errors.get(cell.part),
        }
        if cell.part in done:
            metrics = evidence.metrics[cell.part]
            mean = evidence.measure.mean
            scores = (mean, f"{mean}_low", f"{mean}_high", f"clean_{mean}", f"theory_{mean}")
            row |= {name: metrics.get(name) for name in (*scores, "gradient_evaluations", "model_queries")}
            row["folder"] = f"{self._on(cell).name}/attacks/{done[cell.part].name}"
        return row


def _per_query(evidence: Evidence) -> pd.DataFrame:
    """One row a query: its clean score and that under each attack."""
    first = next(iter(evidence.tables.values()), None)
    if first is None:
        return pd.DataFrame()
    score = evidence.measure.score
    columns = {part: table[score] for part, table in evidence.tables.items()}
    return pd.DataFrame({"query_id": first["query_id"], "clean": first[f"clean_{score}"], **columns})
