from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.store import list_runs
from hashrobust.reports.figures import _draw_epsilons, map_against_epsilon, masking_gap_bars, swept
from hashrobust.reports.filters import filter_frame
from hashrobust.reports.frame import results_frame
from hashrobust.reports.pictures import attack_examples, search_picture
from hashrobust.reports.style import colour_of, darker
from hashrobust.reports.summary import with_exact_twins
from hashrobust.reports.training import training_curves
from hashrobust.reports.write import write_report


@pytest.fixture(scope="module")
def frame(results):
    return results_frame(results)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def shows(path, colour: str) -> bool:
    """Whether at least 30 pixels have about this colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(pixels(path) - wanted).max(axis=-1) <= 12).sum() >= 30)


def test_epsilon_figure_has_a_colour_for_each_rule_and_grows_with_panels(frame, tmp_path):
    (path,) = map_against_epsilon(filter_frame(frame, ["epsilon=8/255"]), tmp_path / "all.png")
    (single,) = map_against_epsilon(filter_frame(frame, ["attack=center", "rule!=usf"]), tmp_path / "one.png")
    assert pixels(path).shape[1] > 1.5 * pixels(single).shape[1]
    assert all(shows(path, colour_of(rule)) for rule in ("bp", "usf", "frsf"))
    assert shows(single, colour_of("frsf")) and not shows(single, colour_of("usf"))


def test_scales_of_feedback_have_shades_of_one_colour(make, tmp_path):
    for scale in ("xavier", "matched"):
        run = make["run"](tmp_path / scale, "frsf", 0, feedback_scale=scale)
        for epsilon in (4, 8):
            make["attack"](run, 0.5, attack="center", epsilon=epsilon / 255)
    light, dark = (
        map_against_epsilon(results_frame(tmp_path / scale), tmp_path / f"{scale}.png")[0]
        for scale in ("xavier", "matched")
    )
    colour = colour_of("frsf")
    assert shows(light, colour) and not shows(light, darker(colour))
    assert shows(dark, darker(colour)) and not shows(dark, colour)


def test_attacks_at_one_epsilon_are_left_to_the_tables_where_others_have_several(make, tmp_path):
    run = make["run"](tmp_path / "results", "bp", 0)
    for epsilon in (4, 8):
        make["attack"](run, 0.5, attack="center", epsilon=epsilon / 255)
    make["attack"](run, 0.4, attack="hag", epsilon=8 / 255)
    frame = results_frame(tmp_path / "results")
    assert set(swept(filter_frame(frame, ["attack!=none"]))["attack"]) == {"center"}
    assert set(swept(filter_frame(frame, ["attack!=none", "epsilon=8/255"]))["attack"]) == {"center", "hag"}


def test_legends_name_a_parameter_only_where_it_was_set(make, tmp_path):
    run = make["run"](tmp_path / "results", "bp", 0)
    for epsilon in (4, 8):
        make["attack"](run, 0.5, attack="center", epsilon=epsilon / 255)
    make["attack"](run, 0.4, attack="center", epsilon=8 / 255, params={"loss": "dot"})
    (path,) = map_against_epsilon(results_frame(tmp_path / "results"), tmp_path / "figure.svg")
    words = re.findall(r"<!-- (.*?) -->", path.read_text())
    assert "bp, exact gradient" in words and "bp, exact gradient, loss dot" in words


def test_transfer_and_further_settings_do_not_look_like_the_attack_itself(make, tmp_path):
    run = make["run"](tmp_path / "results", "bp", 0)
    for number, settings in enumerate(({}, {"surrogate": "other"}, {"params": {"loss": "dot"}})):
        for epsilon in (4, 8):
            make["attack"](run, 0.5 - 0.1 * number, attack="center", epsilon=epsilon / 255, **settings)
    frame = results_frame(tmp_path / "results")
    axis = Figure().subplots()
    _draw_epsilons(axis, frame[frame["attack"] != "none"])
    drawn = {line.get_label(): (line.get_linestyle(), line.get_marker()) for line in axis.lines}
    own = drawn["bp, exact gradient"]
    transfer, dot = (
        next(look for name, look in drawn.items() if words in name) for words in ("bp, transfer", "loss dot")
    )
    assert own == ("-", "o") and len({own, transfer, dot}) == 3
    assert transfer[0] != "-" and dot[0] == "-"


def test_rule_gradient_is_drawn_with_its_exact_twin_even_when_that_is_filtered_out(frame):
    both = filter_frame(frame, ["rule=frsf", "attack=center", "seed=0"])
    restored = with_exact_twins(filter_frame(both, ["gradient=rule"]))
    for gradient in ("exact", "rule"):
        pd.testing.assert_series_equal(
            *(f.loc[f["gradient"] == gradient, "map"].reset_index(drop=True) for f in (both, restored))
        )
    assert len(with_exact_twins(both)) == len(both)


def test_figures_are_the_same_each_time_in_every_format(frame, tmp_path):
    first = map_against_epsilon(frame, tmp_path / "a" / "figure.png", also=["pdf", "svg"])
    second = map_against_epsilon(frame, tmp_path / "b" / "figure.png", also=["pdf", "svg"])
    assert [p.suffix for p in first] == [".png", ".pdf", ".svg"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert first[1].read_bytes().startswith(b"%PDF")
    with pytest.raises(InputError, match="suffix"):
        map_against_epsilon(frame, tmp_path / "figure.gif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_gap_bars_need_both_gradients(frame, tmp_path):
    (path,) = masking_gap_bars(frame, tmp_path / "gap.png")
    assert shows(path, colour_of("frsf")) and shows(path, colour_of("usf"))
    with pytest.raises(InputError, match="both ways"):
        masking_gap_bars(filter_frame(frame, ["gradient=exact"]), tmp_path / "none.png")
    with pytest.raises(InputError, match="no finished attack"):
        map_against_epsilon(filter_frame(frame, ["attack=none"]), tmp_path / "none.png")


def test_training_curves_grow_with_alignment(results, tmp_path):
    run = next(run for run in list_runs(results) if "frsf" in run.name)
    history = run.read_table("history.csv", made_by="finetune")
    alignment = run.read_table("alignment.csv", made_by="finetune")
    (plain,) = training_curves(history, None, tmp_path / "plain.png")
    (aligned,) = training_curves(history, alignment, tmp_path / "aligned.png")
    assert pixels(aligned).shape[0] > 1.5 * pixels(plain).shape[0]
    assert pixels(plain).std() > 5
    with pytest.raises(InputError, match="no epoch"):
        training_curves(history.iloc[:0], None, tmp_path / "none.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_examples_frame_what_is_relevant(tmp_path, make, channels):
    run = make["run"](tmp_path, "bp", 0)
    attack = make["attack"](run, 0.5, attack="center", epsilon=8 / 255)
    npz = make["examples"](attack, channels=channels)
    (path,) = attack_examples(npz, tmp_path / "examples.png", title="center, 8/255")
    assert shows(path, "#009E73") and shows(path, "#CC3311")
    (shorter,) = attack_examples(npz, tmp_path / "one.png", limit=1)
    assert pixels(shorter).shape[0] < pixels(path).shape[0]


def test_damaged_examples_are_told(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        attack_examples(tmp_path / "none.npz", tmp_path / "x.png")
    (tmp_path / "bad.npz").write_bytes(b"not a zip file")
    np.savez(tmp_path / "part.npz", clean=np.zeros((1, 4, 4, 1), np.uint8))
    np.savez(tmp_path / "pickle.npz", clean=np.array([{}], dtype=object))
    images = np.zeros((1, 4, 4, 1), np.uint8)
    whole = {"clean": images, "adversarial": images, "labels": np.array(["a"])}
    found = {
        f"{what}_{kind}": images[:, None, ..., 0] for what in ("retrieved", "relevant") for kind in whole
    }
    np.savez(tmp_path / "flat.npz", **whole, **found)
    named = {"predicted_clean": ["a"], "predicted_adversarial": ["a"]}
    np.savez(tmp_path / "floats.npz", **whole | named | {"clean": images / 1})
    np.savez(tmp_path / "few.npz", **whole | named | {"labels": np.array([])})
    (tmp_path / "cut.npz").write_bytes((tmp_path / "flat.npz").read_bytes()[:-60] + bytes(60))
    for name in ("bad", "part", "pickle", "flat", "floats", "few", "cut"):
        with pytest.raises(StoreError, match="holds no attack examples"):
            attack_examples(tmp_path / f"{name}.npz", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_search_picture_frames_only_known_relevance(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 12, 12, 3), dtype=np.uint8)
    arguments = images[0], images[1:], list(range(6)), ["a caption of more than twenty-two letters"] * 6
    (bare,) = search_picture(*arguments, tmp_path / "bare.png")
    (framed,) = search_picture(*arguments, tmp_path / "framed.png", relevant=[True] * 3 + [False] * 3)
    assert shows(framed, "#009E73") and shows(framed, "#CC3311")
    assert not shows(bare, "#009E73")
    with pytest.raises(InputError, match="6 result images, 5 distances"):
        search_picture(images[0], images[1:], list(range(5)), [""] * 6, tmp_path / "x.png")
    with pytest.raises(InputError, match="relevance marks"):
        search_picture(*arguments, tmp_path / "x.png", relevant=[True])


def test_report_writes_everything_it_names(results, tmp_path):
    written = write_report(results, tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in written}
    assert {"results.csv", "results.parquet", "summary.md", "paper_table.md", "paper_table.tex"} <= names
    assert {"map_against_epsilon.png", "masking_gap.png"} <= names
    assert sum(name.startswith("training_curves/") for name in names) == 6
    assert sum(name.startswith("examples/") for name in names) == 3
    on_disk = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert {name for name in on_disk if not name.endswith("checksums.json")} == names
    summary = (tmp_path / "summary.md").read_text()
    assert "Without results and left out: 4" in summary and "Runs: 6, attacks: 45, seeds: 2." in summary
    assert all(f"]({name})" in summary for name in names if name.endswith(".png"))
    assert len(pd.read_csv(tmp_path / "results.csv")) == 6 + 45


def test_report_of_chosen_rows_and_formats(results, tmp_path):
    filters = ["rule=frsf", "attack=center"]
    written = write_report(
        results, tmp_path, group_by=["rule"], metric="l2_mean", filters=filters, formats=["csv", "md"]
    )
    names = {"results.csv", "paper_table.md", "summary.md", "worst_case.csv", "worst_case.md"}
    assert {p.name for p in written} == names
    assert set(pd.read_csv(tmp_path / "results.csv")["rule"]) == {"frsf"}
    assert "L2, mean, exact gradient" in (tmp_path / "summary.md").read_text()


def test_report_of_runs_without_attacks(tmp_path, make):
    make["run"](tmp_path / "results", "bp", 0)
    written = write_report(tmp_path / "results", tmp_path / "report", formats=["md", "tex", "png"])
    assert [p.name for p in written if p.suffix != ".png"] == ["summary.md"]
    assert "No attack is finished" in written[-1].read_text()


@pytest.mark.parametrize(
    "wrong", [{"formats": ["pgn"]}, {"metric": "mapp"}, {"filters": ["rul=bp"]}, {"group_by": ["ruel"]}]
)
def test_wrong_requests_leave_no_file(results, tmp_path, wrong):
    with pytest.raises(InputError, match="did you mean"):
        write_report(results, tmp_path / "report", **wrong)
    assert not (tmp_path / "report").exists()
