"""The page as one file: what it escapes, where it may be written, that it needs nothing else."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashrobust.errors import HashRobustError, InputError, StoreError
from hashrobust.reports.page import write_page
from hashrobust.reports.page.markup import json_script, tag

Make = dict[str, Callable[..., Any]]
EPSILON = 8 / 255
SCRIPT = re.compile(r'<script type="application/json" id="([^"]+)">(.*?)</script>', re.S)


def data_of(page: str) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in SCRIPT.findall(page)}


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    return write_page(results, path).read_text()


@given(
    st.text(st.characters(exclude_categories=["C"]))
    | st.sampled_from(["</p><script>", '" x="', "&lt;", "<!--"])
)
def test_no_text_becomes_markup(text: str) -> None:
    class Reader(HTMLParser):
        found: ClassVar[list[Any]] = []

        def handle_starttag(self, name: str, attributes: Any) -> None:
            self.found.append((name, dict(attributes)))

        def handle_data(self, data: str) -> None:
            self.found.append(data)

    Reader.found.clear()
    reader = Reader()
    reader.feed(tag("p", text, title=text))
    reader.close()
    assert reader.found == [("p", {"title": text}), *([text] if text else [])]


@given(st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False, allow_infinity=False)))
def test_data_in_scripts_is_kept_and_cannot_end_them(content: dict[str, Any]) -> None:
    content |= {"</script>": "<!--<script>"}
    shown = json_script("data", content)
    ((name, text),) = SCRIPT.findall(shown)
    assert name == "data" and "<" not in text and json.loads(text) == content


def test_what_json_has_no_word_for_is_null() -> None:
    assert '{"x":[null,null,1.5]}' in json_script("data", {"x": [float("nan"), float("inf"), 1.5]})


def test_nothing_is_fetched(page: str) -> None:
    own = page[: page.index("plotly.js v")]
    assert not re.search(r'(src|href)="(?!#)', own) and "@import" not in own and "url(" not in own
    assert "default-src 'none'" in unescape(own)


def test_same_results_same_page(results: Path, tmp_path: Path, page: str) -> None:
    assert write_page(results, tmp_path / "again.html").read_text() == page


def test_every_row_has_sources(page: str) -> None:
    data = data_of(page)
    entries = data["data-sources"]["entries"]
    for table in data["data-tables"]:
        assert len(table["sources"]) == len(table["rows"]) > 0
        assert all(places and max(places) < len(entries) for places in table["sources"])
    attack = next(entry for entry in entries if "/attacks/center" in entry["name"])
    assert "hashrobust finetune" in attack["commands"] and "hashrobust attack" in attack["commands"]
    assert any(title == "run: config.toml" for title, _ in attack["parts"])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("missing/page.html", "does not exist: make it"),
        (".", "is a folder: name a file in it"),
        ("file/page.html", "exist"),
    ],
)
def test_wrong_places_are_refused_before_any_work(tmp_path: Path, place: str, words: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=words):
        write_page(tmp_path / "no results", tmp_path / place)


def test_a_place_that_cannot_be_written_is_told(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(HashRobustError, match=r"page '.*page.html'.*make room or name") as raised:
        write_page(results, tmp_path / "page.html")
    assert raised.value.exit_code == 1
    # A read-only disk: to root, who may write anywhere else, it says the same.
    monkeypatch.setattr(os, "access", lambda place, how: False)
    with pytest.raises(HashRobustError, match=r"page.html' is not writable .no permission, or") as raised:
        write_page(results, tmp_path / "page.html")
    assert raised.value.exit_code == 1


def test_a_damaged_list_of_its_folder_is_told_by_its_name(results: Path, tmp_path: Path) -> None:
    (tmp_path / "checksums.json").write_text("{")
    with pytest.raises(StoreError, match=r"checksums.json' is damaged"):
        write_page(results, tmp_path / "page.html")


def test_no_torch_no_faiss(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom hashrobust.reports.page import write_page\n"
        f"write_page(Path({str(results)!r}), Path({str(tmp_path / 'page.html')!r}))\n"
        "heavy = {'torch', 'faiss'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def run_report(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "hashrobust", "report", *(str(argument) for argument in arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


def test_the_command_writes_the_page_alone_unless_a_folder_is_named(results: Path, tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    done = run_report(results, "--html", place, "--filter", "rule=frsf")
    assert done.returncode == 0, done.stderr
    assert str(place) in done.stderr and "Filtered by rule=frsf." in place.read_text()
    assert not (results / "report").exists()
    both = run_report(results, "--html", place, "--output", tmp_path / "report", "--format", "csv")
    assert both.returncode == 0 and (tmp_path / "report" / "results.csv").exists()
    wrong = run_report(results, "--html", tmp_path)
    assert wrong.returncode == 2 and "is a folder" in wrong.stderr and "Traceback" not in wrong.stderr
