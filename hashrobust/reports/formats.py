"""One table of text as a terminal table, Markdown or LaTeX; a frame of numbers as CSV or Parquet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table as RichTable

from hashrobust.experiments import store

_LATEX = {
    "\\": r"\textbackslash{}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "—": "---",
}
_MARKDOWN = re.compile(r"[\\`*|$&~<]|(?<!\w)_|_(?!\w)|(?<=\])[(\[:]|^[#>=\[]|^[+-](?!\d)|(?<=^\d)[.)](?!\d)")
"""What Markdown reads as more than a letter, where it does; numbers, brackets and `_` elsewhere stay as they are."""
_SHORT = 12
"""Names of so many letters are not broken in a narrow terminal, but what stands beside them."""
_NARROWEST_HEAD = 8
"""Heads are broken into lines of the cells' width, but not of fewer letters."""


@dataclass(frozen=True)
class Table:
    """A table as a person reads it: the first `words` columns are words, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int
    notes: tuple[str, ...] = ()


def to_rich(table: Table) -> RichTable:
    """The table for a terminal."""
    rich = RichTable(
        title=escape(table.title),
        title_justify="left",
        caption=escape("\n".join(table.notes)) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for position, column in enumerate(table.columns):
        widest = max((len(row[position]) for row in table.rows), default=0)
        head = wrap(column, max(widest, _NARROWEST_HEAD), break_long_words=False)
        is_word = position < table.words
        rich.add_column(
            escape("\n".join(head)),
            justify="left" if is_word else "right",
            overflow="fold",
            no_wrap=is_word and widest <= _SHORT,
        )
    for row in table.rows:
        rich.add_row(*(escape(cell) for cell in row))
    return rich


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, under its title, with its notes below."""

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(map(escape_markdown, cells)) + " |"

    rule = "| " + " | ".join(":--" if i < table.words else "--:" for i in range(len(table.columns))) + " |"
    rows = [line(table.columns), rule, *map(line, table.rows)]
    blocks = [f"**{escape_markdown(table.title)}**", "\n".join(rows), *map(escape_markdown, table.notes)]
    return "\n\n".join(blocks) + "\n"


def to_latex(table: Table) -> str:
    """The table in LaTeX, for the package booktabs."""
    columns = "l" * table.words + "r" * (len(table.columns) - table.words)
    notes = " ".join(escape_latex(note) for note in table.notes)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.title)}. {notes}}}"
        if notes
        else rf"\caption{{{escape_latex(table.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(table.columns),
        r"\midrule",
        *(_latex_row(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(cells: tuple[str, ...]) -> str:
    # An opening bracket after `\\` would be read as its optional argument: braces keep it text.
    texts = [escape_latex(cell) for cell in cells]
    return " & ".join(f"{{{text}}}" if text.startswith("[") else text for text in texts) + r" \\"


def escape_latex(text: str) -> str:
    r"""Text in one line, with LaTeX's own letters (`_ % & # $ { } ~ ^ \`) made to print as themselves."""
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))


def escape_markdown(text: str) -> str:
    """Text in one line that Markdown shows as it is: no emphasis, links, HTML or formulas."""
    return _MARKDOWN.sub(lambda found: "&lt;" if found[0] == "<" else f"\\{found[0]}", _one_line(text))


def _one_line(text: str) -> str:
    """Line breaks and letters that cannot be printed become spaces: they would end a row or a caption."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def write_frame(frame: pd.DataFrame, path: Path) -> Path:
    """Write a frame of numbers as CSV or Parquet, by the path's suffix; numbers are kept exactly.

    Raises:
        StoreError: the place cannot be written.
    """
    with store.sealed_writing(path) as temporary:
        if path.suffix == ".parquet":
            frame.to_parquet(temporary, index=False)
        else:
            frame.to_csv(temporary, index=False)
    return path


def write_text(text: str, path: Path) -> Path:
    """Write a text file.

    Raises:
        StoreError: the place cannot be written.
    """
    with store.sealed_writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
