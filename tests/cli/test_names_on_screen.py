"""Names of files and classes on a terminal and in pictures: they stay text, and do nothing to either."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.table import Table

from hashrobust.cli import _console

BAITS = ["\x1b[2J", "\x1b]0;title\a", "\x9b31m", "\b\b", "\r", "\udcff", "\u202e", "[bold]", "[/]", ":cat:",
         "\\[", "\\", "ß é 你", "\0", "\x7f", "\n", "a" * 300]  # fmt: skip
NAMES = st.lists(st.one_of(st.sampled_from(BAITS), st.text(max_size=5)), min_size=1, max_size=4).map("".join)


def harmless(text):
    return all(letter.isprintable() or letter in "\n\t\xa0" for letter in text)


@settings(max_examples=60, deadline=None)
@given(NAMES)
def test_tables_and_sentences_show_names_as_text(name):
    for console in (_console.stdout, _console.stderr):
        with console.capture() as capture:
            console.print(_console.key_value_table("title", [("name", name)]))
            console.print(name, markup=False, highlight=False, soft_wrap=True)
        text = capture.get()
        text.encode()
        assert harmless(text), text


@pytest.mark.parametrize("name", ["[bold]x[/]", ":cat:", "a\\[b]", "ß é 你"])
def test_what_can_be_printed_is_not_changed(name):
    with _console.stdout.capture() as capture:
        _console.stdout.print(_console.key_value_table("title", [("name", name)]))
        _console.stdout.print(name, markup=False, highlight=False)
    text = capture.get()
    assert text.count(name) == 2, text


def test_what_cannot_be_printed_is_named():
    with _console.stderr.capture() as capture:
        _console.print_error("there is no file '\x1b[2J\udcff'")
    assert capture.get() == "error: there is no file '\\x1b[2J\\udcff'\n"


def test_a_sentence_is_not_cut_by_a_narrow_terminal(monkeypatch):
    monkeypatch.setattr(_console.stderr, "_width", 1)
    with _console.stderr.capture() as capture:
        _console.print_error("there is no file")
    assert capture.get() == "error: there is no file\n"


def test_a_terminal_still_gets_colours():
    console = _console._Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    table = Table("class")
    table.add_row("\x1b[2J")
    console.print("[red]word[/]", table)
    text = console.file.getvalue()
    assert "\x1b[31mword" in text and "\x1b[2J" not in text and "\\x1b[2J" in text


def test_commands_show_and_draw_classes_and_files_of_any_name(cli, tmp_path):
    place = tmp_path / "own"
    generator = np.random.default_rng(0)
    for title in ("\x1b[31mred", "two\nlines", "$x_$ a $\\frac{", os.fsdecode(b"\xff")):
        (place / title).mkdir(parents=True)
        for number in range(5):
            pixels = generator.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / title / f"{number}\x1b[2J.png")
    results = tmp_path / "results"
    where = ["--results", results]
    small = ["--image-size", 16, "--bits", 8, "--objective", "csq", "--epochs", 1, "--max-steps", 1]
    run = cli(
        "finetune", "--dataset", f"folder:{place}", "--backbone", "lenet", *small, "--threads", 1, *where
    )
    assert run.code == 0, run.err
    for words in (
        ["data", f"folder:{place}"],
        ["index", "folder"],
        ["search", "folder", "--query", 0, "-k", 2, "--output", tmp_path / "found.png"],
        ["attack", "folder", "--attack", "hag", "--steps", 1, "--threads", 1],
    ):
        outcome = cli(*words, *(where if words[0] != "data" else []))
        assert outcome.code == 0, outcome.err
        assert harmless(outcome.out + outcome.err), outcome
    assert (tmp_path / "found.png").stat().st_size > 0 and list(results.glob("*/attacks/*/examples/*.png"))
