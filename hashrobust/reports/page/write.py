"""The page as one HTML file: style, scripts, data and plotly.js inside it, nothing fetched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from plotly.offline import get_plotlyjs

from hashrobust.errors import InputError, StoreError, UnwritableError
from hashrobust.experiments import store
from hashrobust.reports.page.body import body
from hashrobust.reports.page.markup import Markup, join, json_script, tag
from hashrobust.reports.page.material import Material, gather

SCRIPTS = ("dom.js", "theme.js", "sources.js", "tables.js", "figures.js", "gallery.js")
# The browser itself refuses whatever would be fetched.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write_page(results: Path, path: Path, *, filters: Sequence[str] = (), published: bool = False) -> Path:
    """Write all results of a folder as one self-contained HTML file; with `published`, numbers of papers beside ours.

    Raises:
        InputError: a place that is a folder or lies in none, or a filter that leaves nothing.
        StoreError: nothing is finished in `results`, or a file is damaged.
        UnwritableError: the place cannot be written.
    """
    check_place(path)
    page = _page(gather(results, filters, published=published))
    try:
        with store.sealed_writing(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except (OSError, UnwritableError) as error:
        cause = error.__cause__ if isinstance(error, UnwritableError) else error
        reason = getattr(cause, "strerror", None) or cause
        kind = UnwritableError if isinstance(error, UnwritableError) else StoreError
        raise kind(
            f"page '{path}' cannot be written ({reason}): make room or name another file with --html"
        ) from error
    return path


def check_place(path: Path) -> None:
    """Refuse a place where no page can be written, before any work.

    Raises:
        InputError: it is a folder, or its folder is missing.
        UnwritableError: its folder is not writable.
    """
    if path.is_dir():
        raise InputError(f"page '{path}' is a folder: name a file in it, such as --html {path / 'page.html'}")
    if not path.parent.is_dir():
        raise InputError(
            f"folder '{path.parent}' of page '{path}' does not exist: make it, or name another file"
        )
    if not os.access(path.parent, os.W_OK):
        raise UnwritableError(
            f"folder '{path.parent}' of page '{path}' is not writable (no permission, or the disk is read-only): name "
            "another file with --html"
        )


def _page(material: Material) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", "Robustness report"),
        tag("style", Markup(_static("page.css"))),
        tag("script", Markup(_static("early.js"))),
    )
    data = {
        "figures": [figure.to_json() for figure in material.figures],
        "tables": [table.to_json() for table in (material.glance, *material.tables) if table is not None],
        "gallery": material.gallery.to_json(),
        "sources": material.sources.to_json(),
    }
    scripts = join(
        *(json_script(f"data-{name}", content) for name, content in data.items()),
        tag("script", Markup(get_plotlyjs())),
        *(tag("script", Markup(_static(name))) for name in SCRIPTS),
    )
    page = tag("html", head, tag("body", body(material), scripts), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _static(name: str) -> str:
    return (files("hashrobust.reports.page") / "static" / name).read_text(encoding="utf-8")
