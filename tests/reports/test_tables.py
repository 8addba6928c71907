from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from rich.console import Console

from hashrobust.errors import InputError, StoreError
from hashrobust.reports import labels
from hashrobust.reports.filters import filter_frame
from hashrobust.reports.findings import findings
from hashrobust.reports.formats import Table, escape_latex, to_latex, to_markdown, to_rich, write_frame
from hashrobust.reports.frame import results_frame
from hashrobust.reports.tables import attack_table, paper_table, summary_table


@pytest.fixture(scope="module")
def frame(results):
    return results_frame(results)


def cells(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def rendered(table: Table) -> str:
    console = Console(file=io.StringIO(), width=250)
    console.print(to_rich(table))
    return console.file.getvalue()


def all_tables(frame: pd.DataFrame) -> list[Table]:
    return [
        *paper_table(frame),
        summary_table(frame, None, ["clean_map", "map", "masking_gap", "l2_mean"]),
        summary_table(frame, ["rule"], ["map"]),
        attack_table(frame),
    ]


def test_paper_cell_is_what_one_computes_by_hand(frame):
    table = next(t for t in paper_table(frame) if t.title.startswith("center"))
    row = next(r for r in cells(table) if r["rule"] == "frsf" and r["epsilon"] == "8/255")
    rows = frame[(frame["rule"] == "frsf") & (frame["attack"] == "center") & (frame["epsilon"] == 8 / 255)]
    exact, rule = (100 * rows.loc[rows["gradient"] == g, "map"] for g in ("exact", "rule"))
    assert row["mAP, exact gradient (%)"] == f"{exact.mean():.1f} ± {exact.std():.1f}"
    assert row["mAP, rule gradient (%)"] == f"(rule: {rule.mean():.1f} ± {rule.std():.1f})"
    assert row["clean mAP (%)"] == "84.5 ± 0.7"
    assert (row["theory mAP (%)"], row["chance mAP (%)"], row["seeds"]) == ("2.0 ± 0.0", "10.0 ± 0.0", "2")


def test_paper_has_a_block_an_attack_with_every_rule_and_epsilon(frame):
    tables = {t.title.split()[0]: t for t in paper_table(frame)}
    assert set(tables) == {"center", "noise", "dhta"}
    # three rules and the control, at three epsilons
    assert len(tables["center"].rows) == 4 * 3
    assert len(tables["noise"].rows) == 3


def test_targeted_attacks_are_scored_by_t_map_and_one_seed_has_no_deviation(frame):
    table = next(t for t in paper_table(frame) if t.title.startswith("dhta"))
    row = cells(table)[0]
    assert row["t-mAP, exact gradient (%)"] == "60.0"
    assert (row["theory t-mAP (%)"], row["chance t-mAP (%)"]) == ("95.0", "10.0")


def test_missing_theory_is_a_dash(frame):
    noise = next(t for t in paper_table(frame) if t.title.startswith("noise"))
    assert {row["theory mAP (%)"] for row in cells(noise)} == {labels.MISSING}


def test_zero_step_control_is_named_and_stands_beside_the_exact_number(frame):
    table = next(t for t in paper_table(frame) if t.title.startswith("center"))
    control = [r for r in cells(table) if "via" in r["rule"]]
    assert {r["rule"] for r in control} == {"bp via frsf"}
    for row in control:
        plain = next(r for r in cells(table) if r["rule"] == "bp" and r["epsilon"] == row["epsilon"])
        assert row["mAP, exact gradient (%)"] == plain["mAP, exact gradient (%)"]
        assert row["mAP, rule gradient (%)"].startswith("(rule: ")


@pytest.mark.parametrize("only_rule", [False, True])
def test_rule_numbers_never_stand_without_the_word_and_the_exact_number(frame, only_rule):
    """A marker number that only rule-gradient rows hold is searched in every rendering."""
    marked = frame.copy()
    marked.attrs = dict(frame.attrs)
    by_rule = marked["gradient"].map(labels.is_rule_gradient)
    marked.loc[by_rule, ["map", "l2_mean"]] = 0.777
    chosen = filter_frame(marked, ["attack=center", *(["gradient!=exact"] if only_rule else [])])
    for table in all_tables(chosen):
        assert any("77.7" in cell for row in table.rows for cell in row)
        for row in table.rows:
            for position, cell in enumerate(row):
                if "77.7" in cell or "0.777" in cell:
                    assert "rule" in cell and "rule" in table.columns[position]
                    assert "exact" in table.columns[position - 1]
                    beside = row[position - 1]
                    assert re.match(r"\d|not (run|shown)", beside) and "77.7" not in beside
        for text in (to_markdown(table), to_latex(table), rendered(table)):
            for number in re.finditer(r"0?\.?77\.?7", text):
                assert "rule" in text[max(0, number.start() - 8) : number.start()]


def test_missing_exact_twin_is_told(tmp_path, make):
    run = make["run"](tmp_path, "frsf", 0)
    make["attack"](run, 0.5, attack="center", epsilon=8 / 255, gradient="rule")
    frame = results_frame(tmp_path)
    for table in all_tables(frame):
        row = next(row for row in table.rows if any("50.0" in cell for cell in row))
        assert "not run" in row


def test_attack_table_shows_intervals_over_queries(frame):
    rows = filter_frame(frame, ["rule=frsf", "seed=0", "attack=center", "epsilon=8/255"])
    (row,) = cells(attack_table(rows))
    exact = rows.loc[rows["gradient"] == "exact"].iloc[0]
    expected = f"{100 * exact['map']:.1f} [{100 * exact['map_low']:.1f}, {100 * exact['map_high']:.1f}]"
    assert row["attacked, exact gradient"] == expected
    assert row["clean"] == "84.0 [82.0, 86.0]"
    assert (row["theory"], row["chance"]) == ("2.0", "10.0")
    assert row["attacked, rule gradient"].startswith("(rule: ")


def test_attack_table_takes_plain_mappings():
    row = {
        "rule": "bp",
        "attack": "hag",
        "epsilon": 8 / 255,
        "gradient": "exact",
        "clean_map": 0.9,
        "map": 0.1,
    }
    (shown,) = cells(attack_table([row]))
    assert (shown["clean"], shown["attacked, exact gradient"], shown["theory"]) == ("90.0", "10.0", "—")


def test_summary_names_seeds_that_differ(tmp_path, make):
    for seed in (0, 1):
        run = make["run"](tmp_path, "frsf", seed)
        make["attack"](run, 0.5, attack="center", epsilon=8 / 255, gradient="rule")
        if seed == 0:
            make["attack"](run, 0.3, attack="center", epsilon=8 / 255)
    table = summary_table(results_frame(tmp_path), None, ["map"])
    assert "exact 1, rule 2" in {row["seeds"] for row in cells(table)}


def test_tables_without_attacks_are_refused(frame):
    clean = frame[frame["attack"] == "none"]
    for make_table in (paper_table, attack_table):
        with pytest.raises(InputError, match="no finished attack"):
            make_table(clean)
    assert "(no attack)" in rendered(summary_table(clean, None, ["map"]))


def test_every_percent_is_labelled(frame):
    for table in all_tables(frame):
        for column in table.columns[table.words :]:
            if "mAP" in column or "gap" in column:
                assert "(%)" in column


def test_markdown_has_a_line_for_every_row(frame):
    for table in all_tables(frame):
        lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
        assert len(lines) == len(table.rows) + 2
        assert {line.count(" | ") for line in lines} == {len(table.columns) - 1}


def test_latex_is_balanced_and_escaped():
    table = Table("a_b & 5%", ("x_1", "50 %"), (("#1 {y}", "1 ± 2"), ("[z]", "~^\\$")), 1)
    text = to_latex(table)
    assert r"a\_b \& 5\%" in text and r"x\_1 & 50 \% \\" in text
    assert r"\#1 \{y\} & 1 $\pm$ 2 \\" in text
    assert r"{[z]} & \textasciitilde{}\textasciicircum{}\textbackslash{}\$ \\" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(rf"\{rule}") == 1


def test_latex_leaves_no_bare_special_letter(frame):
    for table in all_tables(frame):
        for row in table.rows:
            for cell in row:
                assert not re.search(r"(?<!\\)[_%&#]", escape_latex(cell))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_numbers_survive_files_exactly(frame, tmp_path, suffix):
    path = write_frame(frame, tmp_path / f"results{suffix}")
    # As text, since not every version of pandas reads decimals exactly.
    back = pd.read_csv(path, dtype=str) if suffix == ".csv" else pd.read_parquet(path)
    assert list(back.columns) == list(frame.columns)
    for column in ("map", "epsilon", "masking_gap", "clean_map"):
        assert back[column].map(float).equals(frame[column])
        assert back[column].map(float).max() <= 1.0


def test_unwritable_place_is_told(frame, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        write_frame(frame, tmp_path / "file" / "results.csv")


@pytest.mark.parametrize(("value", "text"), [(8 / 255, "8/255"), (0.5, "127.5/255"), (1 / 255, "1/255")])
def test_epsilon_is_printed_in_255ths(value, text):
    assert labels.epsilon(value) == text


def test_matched_scale_is_told_with_the_rule():
    assert labels.rule("frsf", "matched") == "frsf (matched)"
    assert labels.rule("usf", "xavier", "rule:frsf") == "usf via frsf"


def test_defended_runs_stand_by_themselves(tmp_path, make):
    """Two seeds each of a defended and a plain model: never averaged together, never under one name."""
    for defence, mean in (("none", 0.2), ("center-at", 0.6)):
        for seed in (0, 1):
            run = make["run"](tmp_path, "bp", seed, defence=defence)
            make["attack"](run, mean + 0.02 * seed, attack="center", epsilon=8 / 255)
    frame = results_frame(tmp_path)
    (paper,) = paper_table(frame)
    for table in (
        paper,
        summary_table(frame, None, ["clean_map", "map"]),
        summary_table(filter_frame(frame, ["attack=center"]), ["rule"], ["map"]),
    ):
        rule, column = table.columns.index("rule"), table.columns.index("mAP, exact gradient (%)")
        assert [(row[rule], row[column]) for row in table.rows] == [
            ("bp", "21.0 ± 1.4"),
            ("bp + center-at", "61.0 ± 1.4"),
        ]
    only = summary_table(filter_frame(frame, ["defence=center-at", "attack=center"]), ["rule"], ["map"])
    assert only.rows[0][0] == "bp + center-at"
    (sentence,) = findings(frame)
    assert "from 90.5% to 21.0% for bp (center), from 90.5% to 61.0% for bp + center-at (center)" in sentence


def test_usual_presets_and_goals_need_no_column(tmp_path, make):
    for rule in ("bp", "frsf"):
        run = make["run"](tmp_path, rule, 0)
        make["attack"](run, 0.2, attack="center", epsilon=8 / 255)
        make["attack"](run, 0.8, attack="noise", epsilon=8 / 255)
    table = summary_table(results_frame(tmp_path), None, ["clean_map", "map"])
    assert table.columns[: table.words] == ("attack", "rule")
    assert "preset" not in table.title and "goal" not in table.title and "seeds 1" in table.title


def test_unattacked_rows_that_repeat_the_clean_score_are_left_out(tmp_path, make):
    attacked = make["run"](tmp_path, "bp", 0)
    make["attack"](attacked, 0.2, attack="center", epsilon=8 / 255)
    make["run"](tmp_path, "frsf", 0)
    frame = results_frame(tmp_path)
    rows = cells(summary_table(frame, None, ["clean_map", "map"]))
    assert [(row["attack"], row["rule"]) for row in rows] == [("none", "frsf"), ("center", "bp")]
    rows = cells(summary_table(frame, None, ["map"]))
    assert [(row["attack"], row["rule"]) for row in rows] == [
        ("none", "bp"),
        ("none", "frsf"),
        ("center", "bp"),
    ]


def test_no_column_for_rule_gradients_that_were_not_followed(tmp_path, make):
    run = make["run"](tmp_path, "frsf", 0)
    make["attack"](run, 0.2, attack="center", epsilon=8 / 255)
    table = attack_table(results_frame(tmp_path))
    assert not any("rule gradient" in column for column in table.columns)
    make["attack"](run, 0.4, attack="center", epsilon=8 / 255, gradient="rule")
    table = attack_table(results_frame(tmp_path))
    assert "attacked, rule gradient" in table.columns


def test_tables_of_one_seed_fit_a_terminal(frame):
    one = filter_frame(frame, ["seed=0", "attack!=dhta", "epsilon=8/255"])
    metrics = ["clean_map", "map", "masking_gap", "theory_map", "chance_map"]
    for table in (summary_table(one, None, metrics), attack_table(filter_frame(one, ["rule=frsf"]))):
        wide, narrow = (Console(file=io.StringIO(), width=width) for width in (250, 100))
        for console in (wide, narrow):
            console.print(to_rich(table))
        lines = [console.file.getvalue().split() for console in (wide, narrow)]
        assert lines[0] == lines[1]
        for row in table.rows:
            assert any(row[-1] in line and row[0] in line for line in narrow.file.getvalue().splitlines())


def test_the_number_of_queries_is_told_where_attacks_differ_in_it(tmp_path, make):
    """Clean scores differ with the queries: without a word on them one model would seem to have two."""
    run = make["run"](tmp_path, "bp", 0)
    for attack, queries in {"center": 40, "hag": 20}.items():
        folder = make["attack"](run, 0.2, attack=attack, epsilon=8 / 255)
        metrics = folder.read_json("metrics.json", made_by="attack")
        folder.write_json("metrics.json", metrics | {"queries": queries})
    frame = results_frame(tmp_path)
    shown = cells(summary_table(frame, None, ["clean_map", "map"]))
    assert {(row["attack"], row["queries"]) for row in shown} >= {("center", "40"), ("hag", "20")}
    alone = summary_table(filter_frame(frame, ["attack=center"]), None, ["clean_map", "map"])
    assert "queries" not in alone.columns


def test_a_rule_gradient_without_a_score_is_a_dash(tmp_path, make):
    run = make["run"](tmp_path, "frsf", 0)
    make["attack"](run, 0.2, attack="dhta", epsilon=8 / 255)
    make["attack"](run, 0.2, attack="center", epsilon=8 / 255, gradient="rule")
    text = rendered(summary_table(results_frame(tmp_path), None, ["map", "t_map"]))
    assert "(rule: 20.0)" in text and "(rule: —)" not in text


def test_what_is_so_or_not_is_said_with_yes_or_no():
    assert (labels.setting("warm_start", True), labels.setting("random_start", False)) == ("yes", "no")
