"""The page's headings, words and empty places, which the scripts fill."""

from __future__ import annotations

from hashrobust.reports.page.gallery import Gallery
from hashrobust.reports.page.markup import Markup, join, tag
from hashrobust.reports.page.material import Material
from hashrobust.reports.page.series import Figure
from hashrobust.reports.page.tables import PageTable

RULE_NOTE = (
    "Numbers marked rule were reached by following the learning rule's own feedback, not the derivative: a diagnostic, "
    "never a measure of robustness. Via NAME: through the feedback of rule NAME, which did not train the weights. "
    "±: one standard deviation over seeds; square brackets: 95% interval over queries, for one seed."
)
TERMS = (
    (
        "mAP",
        "Mean over queries of the average precision of the ranking of the whole database by Hamming distance.",
    ),
    ("Accuracy", "Share of images whose class is named correctly."),
    ("Epsilon", "How far the attacker may move each pixel (L-infinity), in units of the pixel range: 8/255."),
    (
        "Exact gradient",
        "The attacker follows the derivative of the network under attack: a measure of robustness.",
    ),
    (
        "Rule gradient",
        "The attacker follows the learning rule's own feedback weights, which are no derivative: a diagnostic of what "
        "an attacker loses who believes the defender's backward pass, never a measure of robustness.",
    ),
    (
        "Masking gap",
        "Score by the rule gradient minus score by the exact gradient, same queries, same settings.",
    ),
    (
        "Zero-step control (via NAME)",
        "Any weights attacked through the feedback of a rule that did not train them: what needs no training by it.",
    ),
    (
        "Worst case",
        "Mean over queries of the lowest score over all attacks on the same queries, of every kind.",
    ),
    ("Theory", "The score if every query had exactly the code that the attack steers to."),
    ("Chance", "The score of a ranking, or a guess, that knows nothing."),
    (
        "Intervals",
        "Over seeds: mean and one standard deviation. With one seed: 95% bootstrap interval over queries, which says "
        "nothing about training. The two are never mixed, and each number says which it has.",
    ),
)


def body(material: Material) -> Markup:
    """Everything between the scripts and the head."""
    links = [("figures", "Figures"), ("tables", "Tables"), ("gallery", "Gallery"), ("terms", "Terms")]
    have = {
        "figures": material.figures,
        "tables": material.tables,
        "gallery": material.gallery.entries,
        "terms": TERMS,
    }
    header = tag(
        "header",
        tag("a", "Skip to the verdict", href="#verdict", class_="skip"),
        tag("p", "hashrobust", class_="brand"),
        tag(
            "nav", *(tag("a", word, href=f"#{name}") for name, word in links if have[name]), aria_label="Page"
        ),
        tag("button", "Dark", type="button", id="theme", class_="theme"),
    )
    main = tag(
        "main",
        _verdict(material),
        _figures(material.figures),
        _tables(material.tables),
        _gallery(material.gallery),
        _terms(),
    )
    script_needed = tag(
        "noscript", tag("p", "Figures, tables and pictures need JavaScript.", class_="remark")
    )
    return join(header, script_needed, main, _dialog())


def _verdict(material: Material) -> Markup:
    sentences = material.verdict or ["No attack is finished yet: there is nothing to judge."]
    words = [tag("p", paragraph) for paragraph in material.findings]
    return tag(
        "section",
        tag("p", material.counts, class_="counts"),
        tag("h1", "Robustness report", class_="title"),
        tag("p", sentences[0], class_="verdict"),
        *(tag("p", sentence, class_="also") for sentence in sentences[1:]),
        *([_place(material.glance, level="h2")] if material.glance else []),
        *(tag("p", remark, class_="remark") for remark in material.remarks),
        *([tag("details", tag("summary", "The findings in words"), *words)] if words else []),
        id="verdict",
    )


def _figures(figures: list[Figure]) -> Markup:
    if not figures:
        return Markup()
    drawn = [
        tag(
            "figure",
            tag("h3", figure.title, id=f"title-{figure.identifier}"),
            tag("div", class_="controls"),
            tag("div", class_="plot", role="img", aria_labelledby=f"title-{figure.identifier}"),
            tag("p", class_="band", aria_live="polite"),
            tag("figcaption", figure.caption),
            id=f"figure-{figure.identifier}",
            class_="card",
        )
        for figure in figures
    ]
    return tag("section", tag("h2", "Figures"), *drawn, id="figures")


def _tables(tables: list[PageTable]) -> Markup:
    if not tables:
        return Markup()
    return tag(
        "section",
        tag("h2", "Tables"),
        tag("p", RULE_NOTE, class_="note"),
        *(_place(table, level="h3") for table in tables),
        id="tables",
    )


def _place(table: PageTable, *, level: str) -> Markup:
    return tag(
        "div",
        tag(level, table.title, id=f"title-{table.identifier}"),
        *([tag("p", table.shared, class_="shared")] if table.shared else []),
        tag("div", class_="controls"),
        tag("div", class_="rows"),
        *(tag("p", note, class_="note") for note in table.notes),
        id=f"table-{table.identifier}",
        class_="card",
    )


def _gallery(gallery: Gallery) -> Markup:
    if not gallery.entries:
        return Markup()
    left_out = (
        f" {gallery.left_out} more attacks have pictures that are not shown here." if gallery.left_out else ""
    )
    return tag(
        "section",
        tag("h2", "Gallery"),
        tag(
            "p",
            "Queries before and after an attack, and what each retrieves first (✓ relevant, ✗ not relevant) or which "
            f"class it is taken for. The difference is magnified around grey.{left_out}",
            class_="note",
        ),
        tag("div", tag("div", class_="controls"), tag("div", class_="queries"), class_="card", id="pictures"),
        id="gallery",
    )


def _terms() -> Markup:
    listed = [child for term, meaning in TERMS for child in (tag("dt", term), tag("dd", meaning))]
    return tag("section", tag("h2", "Terms"), tag("dl", *listed, class_="card"), id="terms")


def _dialog() -> Markup:
    return tag(
        "dialog",
        tag(
            "div",
            tag("h2", "Where these numbers come from", id="sources-title"),
            tag("button", "Close", type="button", class_="close"),
            class_="head",
        ),
        tag("div", class_="content"),
        id="sources",
        aria_labelledby="sources-title",
    )
