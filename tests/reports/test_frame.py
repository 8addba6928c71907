from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.config import PretrainConfig
from hashrobust.experiments.store import Folder
from hashrobust.reports.filters import filter_frame
from hashrobust.reports.frame import results_frame
from hashrobust.reports.summary import summarise


@pytest.fixture(scope="module")
def frame(results):
    return results_frame(results)


def one(frame: pd.DataFrame, *filters: str) -> pd.Series:
    rows = filter_frame(frame, filters)
    assert len(rows) == 1
    return rows.iloc[0]


def test_one_row_per_finished_attack_and_evaluated_run(frame):
    runs = 3 * 2
    assert (frame["attack"] == "none").sum() == runs
    assert (frame["attack"] == "noise").sum() == runs
    assert (frame["attack"] == "center").sum() == runs * 3 * 2
    assert (frame["attack"] == "dhta").sum() == 3
    assert not frame["folder"].duplicated().any()


def test_unfinished_and_pretrained_folders_are_counted_not_shown(frame):
    unfinished = frame.attrs["unfinished"]
    assert len(unfinished) == 3 + 1  # a hag attack on three runs, and a run never evaluated
    assert sum("/attacks/hag-" in name for name in unfinished) == 3
    assert frame.attrs["pretrained"] == 1
    assert "hag" not in set(frame["attack"]) and 7 not in set(frame["seed"])


def test_unattacked_row_holds_the_clean_scores(frame):
    row = one(frame, "attack=none", "rule=usf", "seed=1")
    assert row["map"] == row["clean_map"] == pytest.approx(0.87)
    assert (row["epsilon"], row["gradient"], row["goal"]) == (0.0, "none", "none")


def test_masking_gap_and_exact_twin_stand_on_both_rows(frame):
    pair = filter_frame(frame, ["rule=frsf", "seed=1", "attack=center", "epsilon=4/255"])
    by = pair.set_index("gradient")
    expected = by.loc["rule", "map"] - by.loc["exact", "map"]
    assert expected == pytest.approx(0.25)
    assert by["masking_gap"].tolist() == pytest.approx([expected, expected])
    assert by["exact_map"].tolist() == pytest.approx([by.loc["exact", "map"]] * 2)


def test_masking_gap_interval_is_paired_over_queries(frame, results):
    row = one(frame, "rule=frsf", "seed=0", "attack=center", "epsilon=8/255", "gradient=rule")
    twin = one(frame, "rule=frsf", "seed=0", "attack=center", "epsilon=8/255", "gradient=exact")
    ap = [pd.read_parquet(results / r["folder"] / "queries.parquet")["ap"] for r in (row, twin)]
    difference = ap[0] - ap[1]
    margin = 1.96 * difference.std(ddof=0) / math.sqrt(len(difference))
    assert row["masking_gap_low"] == pytest.approx(difference.mean() - margin, abs=margin / 5)
    assert row["masking_gap_high"] == pytest.approx(difference.mean() + margin, abs=margin / 5)


def test_rule_gradient_without_exact_twin_has_no_gap(tmp_path, make):
    run = make["run"](tmp_path, "frsf", 0)
    make["attack"](run, 0.5, attack="center", epsilon=8 / 255, gradient="rule")
    make["attack"](run, 0.4, attack="center", epsilon=4 / 255, gradient="exact")
    row = one(results_frame(tmp_path), "gradient=rule")
    assert math.isnan(row["masking_gap"]) and math.isnan(row["exact_map"])


def test_gap_ignores_threads_but_not_parameters(tmp_path, make):
    run = make["run"](tmp_path, "frsf", 0)
    make["attack"](run, 0.5, attack="center", epsilon=8 / 255, gradient="rule", threads=2)
    make["attack"](run, 0.3, attack="center", epsilon=8 / 255, params={"restarts": 5})
    make["attack"](run, 0.4, attack="center", epsilon=8 / 255)
    assert one(results_frame(tmp_path), "gradient=rule")["masking_gap"] == pytest.approx(0.1)


def test_an_attack_and_what_it_was_before_a_change_are_not_mixed(tmp_path, make):
    run = make["run"](tmp_path, "frsf", 0)
    for version, score in ((1, 0.5), (2, 0.3)):
        for gradient, more in (("exact", 0.0), ("rule", 0.1)):
            own = {"attack": "center", "epsilon": 8 / 255, "gradient": gradient, "version": version}
            make["attack"](run, score + more, **own)
    found = filter_frame(results_frame(tmp_path), ["attack=center"])
    assert found["masking_gap"].tolist() == pytest.approx([0.1] * 4)
    means = summarise(found, None, ["map"])
    assert means["seeds"].tolist() == [1] * 4 and sorted(means["map"]) == pytest.approx([0.3, 0.4, 0.5, 0.6])


def test_own_feedback_gap_wins_over_a_controls_on_the_exact_row(tmp_path, make):
    run = make["run"](tmp_path, "frsf", 0)
    for gradient, score in (("exact", 0.2), ("rule", 0.5), ("rule:usf", 0.3)):
        make["attack"](run, score, attack="center", epsilon=8 / 255, gradient=gradient)
    assert one(results_frame(tmp_path), "gradient=exact")["masking_gap"] == pytest.approx(0.3)


def test_weights_lose_the_seed_of_the_run_they_come_from(frame):
    assert set(frame["weights"]) == {"run:digits-lenet-pretrained"}


def test_order_does_not_depend_on_the_file_system(frame, results):
    pd.testing.assert_frame_equal(frame, results_frame(results))
    clean = frame[frame["attack"] == "none"]
    assert clean["rule"].tolist() == ["bp", "bp", "usf", "usf", "frsf", "frsf"]
    assert clean["seed"].tolist() == [0, 1] * 3


def test_a_single_run_folder_is_a_result_too(frame, results):
    name = frame["run"].iloc[0]
    pd.testing.assert_series_equal(
        results_frame(results / name)["map"], frame.loc[frame["run"] == name, "map"].reset_index(drop=True)
    )


def test_parameters_of_mixed_type_survive_parquet(tmp_path, make):
    run = make["run"](tmp_path, "bp", 0)
    make["attack"](run, 0.5, attack="center", epsilon=8 / 255, params={"loss": "saat", "list": [1, 2]})
    make["attack"](run, 0.5, attack="center", epsilon=8 / 255, params={"loss": 3})
    frame = results_frame(tmp_path)
    frame.to_parquet(tmp_path / "x.parquet")
    assert set(pd.read_parquet(tmp_path / "x.parquet")["params.loss"].dropna()) == {"saat", "3"}


def test_missing_or_empty_results_are_told(tmp_path, make):
    with pytest.raises(StoreError, match="does not exist"):
        results_frame(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="no run"):
        results_frame(tmp_path)
    pretrained = PretrainConfig()
    Folder.create(tmp_path / "pre", {"task": "pretrain", **pretrained.to_dict()})
    with pytest.raises(StoreError, match="1 pre-trained"):
        results_frame(tmp_path)
    make["run"](tmp_path, "bp", 0, evaluated=False)
    with pytest.raises(StoreError, match="1 not evaluated"):
        results_frame(tmp_path)


def test_changed_metrics_are_refused(tmp_path, make):
    run = make["run"](tmp_path, "bp", 0)
    (run.path / "metrics.json").write_text('{"map": 1.0}')
    with pytest.raises(StoreError, match="checksum"):
        results_frame(tmp_path)


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("rule=frsf", lambda r: r["rule"] == "frsf"),
        ("rule != frsf", lambda r: r["rule"] != "frsf"),
        ("epsilon<=4/255", lambda r: r["epsilon"] < 0.017),
        ("epsilon<4/255", lambda r: r["epsilon"] < 0.015),
        ("epsilon>4/255", lambda r: r["epsilon"] > 0.017),
        ("epsilon>=0.0156862745", lambda r: r["epsilon"] > 0.0150),
        ("epsilon=8/255", lambda r: abs(r["epsilon"] - 0.0313725) < 1e-5),
        ("masking_gap>0", lambda r: r["masking_gap"] > 0),
        ("theory_map!=0.5", lambda r: r["theory_map"] != 0.5),
        ("mixed_precision=False", lambda r: not r["mixed_precision"]),
    ],
)
def test_filters_keep_what_a_loop_keeps(frame, text, keep):
    expected = [r["folder"] for r in frame.to_dict("records") if keep(r)]
    assert filter_frame(frame, [text])["folder"].tolist() == expected
    assert len(expected) > 0


def test_filters_add_up_and_keep_what_the_frame_knows(frame):
    both = filter_frame(frame, ["rule=frsf", "attack!=noise"])
    assert set(both["rule"]) == {"frsf"} and "noise" not in set(both["attack"])
    assert both.attrs["settings"] == frame.attrs["settings"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rul=frsf", "did you mean 'rule'"),
        ("rule", "malformed"),
        ("rule=", "malformed"),
        ("=frsf", "malformed"),
        ("rule<frsf", "by size"),
        ("epsilon<=eight", "number"),
        ("epsilon<=8/0", "number"),
        ("rule=dfa", "leaves no row.*bp, frsf, usf"),
        ("epsilon>1", "leaves no row"),
    ],
)
def test_bad_filters_say_what_is_wrong(frame, text, message):
    with pytest.raises(InputError, match=message):
        filter_frame(frame, [text])


def test_summary_is_mean_and_deviation_over_seeds(frame):
    summary = summarise(frame, ["rule"], ["map", "l2_mean"])
    row = one(summary, "rule=usf", "attack=center", "epsilon=2/255", "gradient=rule")
    values = [
        one(frame, "rule=usf", "attack=center", "epsilon=2/255", "gradient=rule", f"seed={s}")["map"]
        for s in (0, 1)
    ]
    assert row["map"] == pytest.approx(np.mean(values))
    assert row["map_std"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    assert (row["seeds"], row["spread"]) == (2, "seeds")


def test_one_seed_has_no_deviation(frame):
    row = one(summarise(frame, None, ["map"]), "attack=dhta", "rule=bp")
    assert row["seeds"] == 1 and math.isnan(row["map_std"]) and row["spread"] == "none (one seed)"


def test_groups_never_mix_settings(frame):
    summary = summarise(frame, ["rule"], ["map"])
    keys = list(summary.columns[: summary.columns.get_loc("seeds")])
    assert keys[0] == "rule" and {"attack", "epsilon", "gradient"} <= set(keys)
    assert summary["seeds"].sum() == len(frame)
    assert summary["seeds"].max() == 2


def test_groups_part_runs_that_differ_in_any_setting(tmp_path, make):
    for rate in (1e-3, 1e-4):
        for seed in (0, 1):
            make["run"](tmp_path, "bp", seed, learning_rate=rate)
    make["run"](tmp_path, "bp", 0, learning_rate=1e-4, weights_digest="abc")
    summary = summarise(results_frame(tmp_path), ["rule"], ["map"])
    assert {"learning_rate", "weights_digest"} <= set(summary.columns)
    assert sorted(summary["seeds"]) == [1, 2, 2]


def test_no_mean_over_fewer_seeds_than_named(tmp_path, make):
    for seed in (0, 1):
        run = make["run"](tmp_path, "frsf", seed)
        make["attack"](run, 0.5, attack="center", epsilon=8 / 255, gradient="rule")
        if seed == 0:
            make["attack"](run, 0.3, attack="center", epsilon=8 / 255)
    summary = summarise(results_frame(tmp_path), None, ["map", "exact_map"])
    row = one(summary, "gradient=rule")
    assert row["map"] == pytest.approx(0.5) and math.isnan(row["exact_map"])


def test_gradient_does_not_hide_other_settings(tmp_path, make):
    """An unattacked row is no exact twin, though no exact attack was run."""
    run = make["run"](tmp_path, "frsf", 0)
    make["attack"](run, 0.5, attack="center", epsilon=8 / 255, gradient="rule")
    summary = summarise(results_frame(tmp_path), ["rule", "gradient"], ["map"])
    assert {"attack", "epsilon"} & set(summary.columns)


@pytest.mark.parametrize(("group_by", "metric"), [(["ruel"], "map"), (None, "mapp"), (None, "goal")])
def test_summary_refuses_unknown_columns_and_words(frame, group_by, metric):
    with pytest.raises(InputError, match=r"did you mean|words"):
        summarise(frame, group_by, [metric])


def test_reports_load_neither_torch_nor_faiss():
    modules = ("frame", "filters", "summary", "tables", "formats", "figures", "pictures", "write")
    imports = "; ".join(f"import hashrobust.reports.{module}" for module in modules)
    check = f"{imports}; import sys; print(sorted({{'torch', 'faiss'}} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
