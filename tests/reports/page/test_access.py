"""The page for every reader: escaped, on a phone, in the dark, by keyboard."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys


def test_names_stay_text_everywhere(reader: Any, evil: dict[str, str]) -> None:
    reader.show("#gallery")
    heads = reader.wait(lambda: [head.text for head in reader.all("#pictures h3")])
    assert evil["label"] in heads
    for name in evil.values():
        assert name in reader.run("return document.querySelector('main').textContent")
    reader.select("#figure-score", "Setting").select_by_visible_text(f"{evil['objective']}, 48 bits")
    point = reader.all("#figure-score .scatterlayer .points path")[-1]
    reader.show("#figure-score .plot")
    reader.hover(point)
    hover = reader.wait(lambda: [label.text for label in reader.all("#figure-score .hovertext")])
    assert evil["rule"] in hover[0]
    for button in reader.all("#table-glance .source"):
        reader.run("arguments[0].click()", button)
        assert "window.broken=3" in reader.one("#sources pre").text
        reader.one("#sources .close").click()
    assert reader.run("return window.broken") is None
    assert reader.all("main b, main i, main script, img:not([src^='data:'])") == []


def test_pictures_have_words_and_are_there(reader: Any) -> None:
    assert reader.all("#pictures img") == []  # nothing before the reader comes near
    reader.show("#gallery")
    images = reader.wait(lambda: reader.all("#pictures img"))
    reader.wait(lambda: all(reader.run("return arguments[0].naturalWidth", image) for image in images[:3]))
    words = [image.get_attribute("alt") for image in images]
    assert all(words) and any(text.endswith("rule gradient: not relevant") for text in words)
    rows = [row.text for row in reader.all("#pictures .query:first-of-type .line .word")]
    assert rows == ["no attack", "exact gradient", "rule gradient"]


@pytest.mark.parametrize("width", [375, 320, 768])
def test_no_page_scrolls_sideways(reader: Any, page: Path, width: int) -> None:
    reader.open(page, width=width, height=800)
    reader.show("#gallery")
    reader.wait(lambda: reader.all("#pictures img"))
    assert reader.run("return document.documentElement.scrollWidth") <= width
    outside = reader.run(
        "return [...document.querySelectorAll('main .plot, .box, .controls select, #pictures .picture')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert outside == 0
    box = "#table-results .box"
    assert reader.run(
        "return (b => b.scrollWidth > b.clientWidth)(document.querySelector(arguments[0]))", box
    ) or (width > 700)
    reader.run("document.querySelector('#table-glance .source').click()")
    assert reader.run("return document.querySelector('#sources').getBoundingClientRect().right") <= width


def test_figures_fit_a_narrowed_window(reader: Any, page: Path) -> None:
    reader.open(page, width=375, height=800)
    reader.wait(
        lambda: reader.run("return document.querySelector('#figure-score .main-svg').clientWidth") < 375
    )


def luminance(colour: str) -> float:
    red, green, blue = (int(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def test_dark_and_light(reader: Any, page: Path) -> None:
    def shades() -> tuple[float, float, float]:
        script = (
            "const style = e => getComputedStyle(document.querySelector(e));"
            "return [style('body').backgroundColor, style('body').color, style('#figure-score .xtick text').fill]"
        )
        ground, ink, tick = (luminance(colour) for colour in reader.run(script))
        return ground, ink, tick

    def is_dark() -> bool:
        ground, ink, tick = shades()
        return ground < 0.2 and ink > 0.8 and tick > 0.8

    def is_light() -> bool:
        ground, ink, tick = shades()
        return ground > 0.8 and ink < 0.2 and tick < 0.2

    assert is_light()
    reader.one("#theme").click()
    reader.wait(is_dark)
    assert reader.one("#theme").text == "Light theme"
    reader.driver.refresh()
    reader.wait(is_dark)  # the choice lasts
    reader.run("localStorage.clear()")
    reader.open(page, scheme="dark")
    reader.wait(is_dark)
    ink = reader.run(
        "return document.querySelector('#figure-score .plot').data.find(t => t.name === 'bp, exact').line.color"
    )
    assert ink.lower() == "#ecebe6"  # a black line would not be seen
    reader.one("#theme").click()
    reader.wait(is_light)
    reader.run("localStorage.clear()")


def test_the_keyboard_reaches_everything_and_shows_where_it_is(reader: Any) -> None:
    reached = []
    for _ in range(25):
        reader.press(Keys.TAB)
        reached.append(
            reader.run(
                "const e = document.activeElement, s = getComputedStyle(e);"
                "return [e.tagName, e.textContent, s.outlineStyle, parseFloat(s.outlineWidth)]"
            )
        )
    assert reached[0][1] == "Skip to the verdict"
    assert all(style != "none" and width >= 2 for _, _, style, width in reached)
    names = [text for _, text, _, _ in reached]
    assert "Figures" in names and "Dark theme" in names and "Details" in names
    box = reader.check("score", "frsf").find_element("tag name", "input")
    reader.run("arguments[0].focus()", box)
    reader.press(Keys.SPACE)
    assert not any(name.startswith("frsf") for name in reader.lines())


def test_headings_descend_one_step_at_a_time(reader: Any) -> None:
    levels = [int(head.tag_name[1]) for head in reader.all("main h1, main h2, main h3")]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert reader.run("return document.documentElement.lang") == "en"
    controls = "main input, main select"
    assert reader.run(
        "return [...document.querySelectorAll(arguments[0])].every(e => e.labels.length)", controls
    )
