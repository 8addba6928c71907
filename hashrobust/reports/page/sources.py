"""Where each number comes from: command, configuration, seed and versions of the folders behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashrobust.experiments.store import CONFIG, Folder
from hashrobust.reports.page.commands import attack_command, audit_command, run_command

ENVIRONMENT = "environment.json"


@dataclass
class Sources:
    """The folders that a page's numbers come from, each stored once, and equal texts once."""

    results: str
    runs: dict[str, Folder]
    entries: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)
    _text_places: dict[str, int] = field(default_factory=dict)

    def of(self, folders: Iterable[str]) -> list[int]:
        """The places of these folders (`<run>`, `<run>/attacks/<attack>`, `<run>/audits/<audit>`)."""
        return [self._place(name) for name in dict.fromkeys(folders)]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `sources.js`."""
        return {"entries": self.entries, "texts": self.texts}

    def _place(self, name: str) -> int:
        if name not in self._places:
            self._places[name] = len(self.entries)
            self.entries.append(self._entry(name))
        return self._places[name]

    def _entry(self, name: str) -> dict[str, Any]:
        run_name, _, inner = name.partition("/")
        run = self.runs[run_name]
        made = [*self._pretraining(run), ("run", run, run_command(run_name, run.config, self.results))]
        if inner:
            folder = Folder(run.path / inner)
            kind = "attack" if inner.startswith("attacks/") else "audit"
            command = attack_command if kind == "attack" else audit_command
            made.append((kind, folder, command(run_name, folder.config, self.results)))
        files = [
            (kind, folder.path / file) for kind, folder, _ in reversed(made) for file in (CONFIG, ENVIRONMENT)
        ]
        parts = [[f"{kind}: {path.name}", self._text(_read(path))] for kind, path in files if path.is_file()]
        return {
            "name": name,
            "seed": run.config.get("seed"),
            "commands": "\n".join(command for _, _, command in made),
            "parts": parts,
        }

    def _pretraining(self, run: Folder) -> list[tuple[str, Folder, str]]:
        """The run whose weights this one starts from, if it lies beside it."""
        name = str(run.config.get("weights", "")).removeprefix("run:")
        if name not in self.runs:
            return []
        return [("pre-training", self.runs[name], run_command(name, self.runs[name].config, self.results))]

    def _text(self, text: str) -> int:
        if text not in self._text_places:
            self._text_places[text] = len(self.texts)
            self.texts.append(text)
        return self._text_places[text]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()
