"""Whatever a label, a class or a file is called stays text: on the page, in Markdown, in LaTeX."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hashrobust.reports.formats import _LATEX, Table, escape_latex, escape_markdown, to_latex, to_markdown
from hashrobust.reports.page.markup import json_script, tag

BAITS = ["<script>alert(1)</script>", "</script>", "<!--", "&lt;", "a|b", "**b**", "[x](http://y)", "![i](u)",
         "`c`", "_e_", "~~s~~", "$x$", "# h", "- i", "1. n", "> q", "\\input{/etc/passwd}", "^^5c", "%", "{", "}",
         "\n\n", "\n| x |", "\x1b[31m", "\0", "\u2028", "]]>", '" onclick="x', "' or '", "[a]: b", "[+0.1, +0.2]",
         "ß é 你", "a_b", "<b", "\\", "\\\\", "&amp;", "\r", "+", "=", "---", "[", "]", "0.", "0)"]  # fmt: skip
WORDS = st.lists(st.one_of(st.sampled_from(BAITS), st.text(max_size=6)), max_size=5).map("".join)


def one_line(text):
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class Parsed(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, name, attributes):
        self.tags.append((name, attributes))

    def handle_data(self, data):
        self.texts.append(data)


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_html_elements_hold_text(child, value):
    found = Parsed(tag("p", child, title=value))
    assert found.tags == [("p", [("title", value)])]
    assert "".join(found.texts) == child


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_data_in_a_script_stays_in_it(key, value):
    element = json_script("data", {key: [value]})
    found = Parsed(element)
    assert [name for name, _ in found.tags] == ["script"]
    assert json.loads("".join(found.texts)) == {key: [value]}
    assert not re.search(r"[<>&\u2028\u2029]", element[element.index(">") + 1 : element.rindex("<")])


def markdown_tokens(text):
    def flat(tokens):
        for token in tokens:
            yield token
            yield from flat(token.children or [])

    return list(flat(MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)))


@settings(max_examples=300, deadline=None)
@given(WORDS, WORDS)
def test_markdown_tables_hold_text(first, second):
    table = Table("title", ("words", "numbers"), (("row", first), (second, "1.0")), 1)
    tokens = markdown_tokens(to_markdown(table))
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "code_inline", "em_open", "s_open"}
    cells = [
        "".join(child.content for child in token.children or [])
        for before, token in pairwise(tokens)
        if before.type == "td_open"
    ]
    assert cells == ["row", one_line(first), one_line(second), "1.0"]


@settings(max_examples=300, deadline=None)
@given(WORDS)
def test_markdown_paragraphs_are_text(words):
    tokens = markdown_tokens(f"before\n\n{escape_markdown(words)}\n\nafter")
    assert [token.type for token in tokens if token.type.endswith("_open")] == ["paragraph_open"] * (
        3 if one_line(words) else 2
    )
    assert "".join(token.content for token in tokens if token.type in ("text", "text_special")) == (
        f"before{one_line(words)}after"
    )


@settings(max_examples=300, deadline=None)
@given(WORDS)
def test_latex_prints_every_letter(words):
    text = escape_latex(words)
    assert "\n" not in text
    back = {replacement: letter for letter, replacement in _LATEX.items()}
    pattern = "|".join(map(re.escape, sorted(back, key=len, reverse=True)))
    # What is left once every replacement is read back is what was put in, and none of it is LaTeX's own.
    assert re.sub(pattern, lambda found: back[found[0]], text).replace("---", "—") == one_line(words).replace(
        "---", "—"
    )
    assert not set(re.sub(pattern, "", text)) & set("\\_%&#${}~^<>")


@settings(max_examples=100, deadline=None)
@given(WORDS, WORDS)
def test_latex_tables_keep_their_rows(first, second):
    text = to_latex(Table(first, ("a", "b"), ((first, second),), 1, (second,)))
    assert len(text.splitlines()) == 11
    assert text.count("\\\\\n") == 2
