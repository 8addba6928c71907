"""Figures, tables and the dialog of the page, as a reader uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys


def test_it_loads_without_errors_and_fetches_nothing(reader: Any, page: Path) -> None:
    reader.show("#gallery")
    reader.wait(lambda: reader.all("#pictures img"))
    assert reader.driver.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in reader.driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert len(reader.all(".plot .main-svg")) >= 4
    assert reader.one("p.verdict").text.startswith(
        "What looks like robustness of usf and frsf is a hidden gradient"
    )


def test_the_policy_refuses_what_would_be_fetched(reader: Any) -> None:
    reader.run("fetch('https://example.com').catch(() => { window.refused = true })")
    reader.wait(lambda: reader.run("return window.refused"))


def test_check_boxes_hide_and_show_lines(reader: Any) -> None:
    whole = reader.lines()
    assert {"frsf, exact", "frsf, rule", "bp, exact"} <= set(whole)
    reader.check("score", "rule gradient").click()
    assert [name for name in reader.lines() if name.endswith("rule")] == []
    assert "frsf, exact" in reader.lines()
    reader.check("score", "frsf").click()
    assert not any(name.startswith("frsf") for name in reader.lines())
    reader.check("score", "rule gradient").click()
    reader.check("score", "frsf").click()
    assert reader.lines() == whole


def test_the_exact_gradient_cannot_be_switched_off(reader: Any) -> None:
    labels = [place.text.strip() for place in reader.all("#figure-score label.check")]
    assert "rule gradient" in labels and "exact gradient" not in labels
    assert "exact gradient" in reader.one("#figure-score .gradients").text


def test_bands_say_what_they_cover(reader: Any) -> None:
    words = reader.one("#figure-score .band")
    assert "one standard deviation over 2 seeds" in words.text
    filled = "return document.querySelector('#figure-score .plot').data.filter(t => t.fill).length"
    assert reader.run(filled) > 3
    reader.check("score", "bands").click()
    assert reader.run(filled) == 0 and words.text == ""


def test_selects_change_what_is_drawn(reader: Any) -> None:
    attack = reader.select("#figure-score", "Attack")
    attack.select_by_visible_text("worst case over all attacks")
    assert set(reader.lines()) >= {"bp, exact", "frsf, exact"} and not any(
        "rule" in n for n in reader.lines()
    )
    assert reader.run("return document.activeElement.tagName") == "SELECT"
    measure = reader.select("#figure-depth", "Measure")
    measure.select_by_index(1)
    title = "return document.querySelector(arguments[0]).layout.yaxis.title.text"
    assert reader.run(title, "#figure-depth .plot") == "signs that agree (%)"
    assert reader.run(title, "#figure-score .plot") == "mAP (%)"


def test_hovering_a_rule_point_names_the_exact_number(reader: Any) -> None:
    texts = reader.run(
        "return document.querySelector('#figure-score .plot').data.filter(t => t.text).flatMap(t => t.text)"
    )
    by_rule = [text for text in texts if "rule gradient" in text]
    assert by_rule and all("exact gradient: " in text for text in by_rule)


def test_tables_sort_by_click_and_keyboard(reader: Any) -> None:
    head = reader.head("results", "exact gradient")
    cell = head.find_element("xpath", "..")
    assert cell.get_attribute("aria-sort") == "none"
    head.click()
    assert cell.get_attribute("aria-sort") == "ascending"
    shown = [
        float(text.split()[0]) for text in reader.column("results", "exact gradient") if text[0].isdigit()
    ]
    assert shown == sorted(shown) and len(set(shown)) > 3
    reader.run("arguments[0].focus()", head)
    reader.press(Keys.ENTER)
    assert cell.get_attribute("aria-sort") == "descending"
    shown = [
        float(text.split()[0]) for text in reader.column("results", "exact gradient") if text[0].isdigit()
    ]
    assert shown == sorted(shown, reverse=True)
    reader.press(Keys.SPACE)
    assert cell.get_attribute("aria-sort") == "ascending"
    sorted_heads = [
        h for h in reader.all("#table-results th") if h.get_attribute("aria-sort") not in (None, "none")
    ]
    assert len(sorted_heads) == 1


def test_negative_numbers_sort_below_positive_ones(reader: Any) -> None:
    reader.head("means", "gap, rule - exact").click()
    known = [text for text in reader.column("means", "gap, rule - exact") if text != "—"]
    shown = [float(text.split()[0]) for text in known]
    assert shown == sorted(shown) and shown[1] < 0 < shown[-1]
    assert reader.column("means", "gap, rule - exact")[-1] == "—"  # what is missing comes last


def test_epsilons_sort_by_size(reader: Any) -> None:
    reader.head("means", "epsilon").click()
    shown = [int(text.split("/")[0]) for text in reader.column("means", "epsilon")]
    assert shown == sorted(shown) and {2, 8, 16} <= set(shown)


def test_tables_filter_by_selects_and_words(reader: Any) -> None:
    whole = reader.one("#table-results .count").text
    reader.select("#table-results", "rule").select_by_visible_text("usf")
    assert set(reader.column("results", "rule")) == {"usf"}
    search = reader.one("#table-results input[type=search]")
    search.send_keys("NOISE 8/255")
    assert all("noise" in text for text in reader.column("results", "attack"))
    assert reader.one("#table-results .count").text.startswith("2 of ")
    search.clear()
    search.send_keys(" ")
    reader.select("#table-results", "rule").select_by_visible_text("all")
    assert reader.one("#table-results .count").text == whole


def test_long_tables_show_more_on_demand(reader: Any) -> None:
    before = len(reader.all("#table-results tbody tr"))
    more = reader.one("#table-results .more")
    reader.show("#table-results .more")
    more.click()
    assert before == 25 and len(reader.all("#table-results tbody tr")) > 25 and not more.is_displayed()
    assert reader.run("return document.activeElement.closest('tr').rowIndex") == 26


def test_every_rule_number_stands_beside_the_exact_one(reader: Any) -> None:
    seen = 0
    for cell in reader.all("td.by-rule"):
        if cell.text.startswith("(rule: "):
            before = cell.find_element("xpath", "preceding-sibling::td[1]")
            assert "exact" in before.get_attribute("class") and before.text[0].isdigit()
            seen += 1
    assert seen > 10


def test_sources_open_and_close_by_keyboard(reader: Any) -> None:
    button = reader.one("#table-glance .source")
    reader.run("arguments[0].focus()", button)
    reader.press(Keys.ENTER)
    dialog = reader.one("#sources")
    assert dialog.is_displayed()
    for words in ("hashrobust finetune", "hashrobust attack", "run: config.toml", "rule = ", "(seed 0)"):
        assert words in dialog.text
    assert reader.run("return document.activeElement.closest('dialog') !== null")
    reader.press(Keys.ESCAPE)
    reader.wait(lambda: not dialog.is_displayed())
    assert reader.run("return document.activeElement === arguments[0]", button)
