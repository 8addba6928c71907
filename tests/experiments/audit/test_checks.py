"""Every check on numbers made up: on either side of its limit, with too little to go by, and in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hashrobust.attacks import attacks
from hashrobust.errors import InputError
from hashrobust.experiments.audit import checks
from hashrobust.experiments.audit.checks import FAIL, PASS, SKIP, WARN, Check, Scores
from hashrobust.experiments.audit.evidence import Evidence
from hashrobust.experiments.audit.headline import headline
from hashrobust.experiments.audit.judging import all_checks
from hashrobust.experiments.audit.plan import AuditConfig, Cell, check_attacks, plan, with_version
from hashrobust.experiments.audit.verdict import verdict

STEADY = {"differing_bits": 0.0, "differing_how": "", "gradient_repeats": True, "rule_redraws": False}


def scores(mean: float, count: int = 40) -> Scores:
    return np.full(count, mean)


def sweep(*rises: float) -> Check:
    """The score falls to .5, rises by so much at each further epsilon, and falls to theory at the last one."""
    values = np.cumsum([0.5, *rises])
    by_epsilon = {0.01 * (place + 1): value for place, value in enumerate(values)}
    return checks.sweep(0.9, {**by_epsilon, 0.5: 0.05}, 0.05)[0]


def some(share: float, count: int = 1000) -> Any:
    return np.arange(count) < share * count


def drop(share: float, by: float) -> Check:
    """A black box that is lower by so much on this share of the queries, and far higher on the others."""
    white = scores(0.5, 1000)
    return checks.black_box(white, {"square": np.where(some(share), white - by, white + 0.4)})


def noise(x: float, square: float) -> Check:
    """The white box so far below noise; success would be .8 below clean, a quarter of which is .2."""
    return checks.noise(scores(0.9), scores(0.8 - x), scores(0.8), scores(0.1), {"square": scores(square)})


Statuses = dict[float, str]
LIMITS: dict[str, tuple[Callable[[float], Check], Statuses]] = {
    "one step": (
        lambda x: checks.one_step(scores(0.5), scores(0.5 + x)),
        {-0.3: PASS, 0.0049: PASS, 0.0051: WARN, 0.0099: WARN, 0.0101: FAIL},
    ),
    "black box, share": (
        lambda x: drop(x, 0.051), {0: PASS, 0.025: PASS, 0.026: WARN, 0.05: WARN, 0.051: FAIL}
    ),
    "black box, amount": (lambda x: drop(0.5, x), {0.049: PASS, 0.051: FAIL}),
    "black box, mean": (
        lambda x: checks.black_box(scores(0.5), {"square": scores(0.5 + x)}),
        {0.01: PASS, 0: PASS, -0.001: FAIL},
    ),
    "noise, others are": (lambda x: noise(x, 0.5), {0.21: PASS, 0.19: FAIL, -0.1: FAIL}),
    "noise, nobody is": (lambda x: noise(x, 0.7), {0.21: PASS, 0.19: WARN}),
    "more steps": (
        lambda x: checks.more_work(scores(0.5), {"a": scores(0.5 - x), "b": scores(0.6)}),
        {-0.2: PASS, 0.0049: PASS, 0.0051: WARN, 0.0101: FAIL},
    ),
    "more restarts": (
        lambda x: checks.more_work(scores(0.5), {"a": scores(0.6), "b": scores(0.5 - x)}),
        {0.0049: PASS, 0.0051: WARN, 0.0101: FAIL},
    ),
    "sweep": (lambda x: sweep(x), {-0.1: PASS, 0.0049: PASS, 0.0051: WARN, 0.0101: FAIL}),
    "sweep, two rises": (lambda x: sweep(x, x), {0.0024: PASS, 0.0049: WARN, 0.0051: FAIL}),
    "sweep, rise and fall": (lambda x: sweep(x, -x, x), {0.0049: PASS, 0.0099: WARN}),
    "largest epsilon": (
        lambda x: checks.sweep(0.9, {0.03: 0.5, 0.5: 0.05 + x}, 0.05)[1],
        {-0.1: PASS, 0.0149: PASS, 0.0151: WARN, 0.0301: FAIL},
    ),
    "dead gradients": (
        lambda x: checks.dead_gradients(some(x)), {0.005: PASS, 0.006: WARN, 0.01: WARN, 0.011: FAIL}
    ),
    "control": (
        lambda x: checks.control(scores(0.9), scores(0.8 - x), scores(0.8), scores(0.1)),
        {0.21: PASS, 0.19: FAIL},
    ),
    "clean match": (
        lambda x: checks.clean_match(0.5 + x, 0.5),
        {-0.0101: FAIL, -0.0051: WARN, 0.0049: PASS, 0.0051: WARN, 0.0101: FAIL},
    ),
    "masking": (
        lambda x: checks.masking(scores(0.5 + x), scores(0.5)),
        {-0.3: PASS, 0.0099: PASS, 0.0101: WARN, 0.0199: WARN, 0.0201: FAIL},
    ),
    "ball": (lambda x: checks.inside_ball({}, {"main": 0.5, "hag": x}), {1: PASS, 1.0001: FAIL}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "value", "status"),
    [
        pytest.param(check, x, status, id=f"{name} {x:g}")
        for name, (check, of) in LIMITS.items()
        for x, status in of.items()
    ],
)
def test_a_check_says_what_its_limit_says(check: Callable[[float], Check], value: float, status: str) -> None:
    assert check(value).status == status


def test_a_gap_whose_interval_holds_zero_is_no_masking() -> None:
    exact = scores(0.5, 8)
    apart, wide = exact + 0.1, exact + np.array([0.9, -0.2] * 4) / 2
    assert wide.mean() - exact.mean() > apart.mean() - exact.mean()
    assert checks.masking(apart, exact).status == FAIL
    assert checks.masking(wide, exact).status == PASS


def test_black_boxes_that_are_lower_within_chance_alone_do_not_fail_the_white_box() -> None:
    white = scores(0.5, 1000)
    either = np.where(some(0.5), white - 0.04, white + 0.04 - 1e-5)
    assert either.mean() < white.mean()
    assert checks.black_box(white, {"square": either}).status == PASS


def test_of_several_black_boxes_the_best_counts_query_by_query() -> None:
    white = scores(0.5, 100)
    halves = {"square": np.where(some(0.04, 100), 0.3, 0.9), "transfer": np.where(some(0.96, 100), 0.9, 0.3)}
    assert {name: checks.black_box(white, {name: of}).status for name, of in halves.items()} == {
        "square": WARN,
        "transfer": WARN,
    }
    assert checks.black_box(white, halves).status == FAIL
    assert checks.black_box(white, {}).status == SKIP


def test_what_is_not_a_number_passes_nothing() -> None:
    assert checks.clean_match(float("nan"), 0.5).status == FAIL
    assert checks.inside_ball({}, {"main": float("nan")}).status == FAIL


def test_a_control_with_nothing_to_lose_is_not_called_broken() -> None:
    """Codes that are all the same: clean, attacked and theory are chance."""
    chance = scores(0.1)
    check = checks.control(chance, chance, chance, chance)
    assert check.status == FAIL and "nothing to take away" in check.meaning
    check = checks.noise(chance, chance, chance, chance, {"square": chance})
    assert check.status == WARN and "nothing to take away" in check.meaning


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, PASS),
        ({"rule_redraws": True}, "INFO"),
        ({"differing_bits": 1e-6, "differing_how": "when asked again"}, FAIL),
        ({"gradient_repeats": False}, FAIL),
        ({"gradient_repeats": False, "rule_redraws": True}, FAIL),
    ],
)
def test_answers_and_exact_gradients_must_repeat(facts: dict[str, Any], status: str) -> None:
    assert checks.determinism(STEADY | facts).status == status


def test_a_gradient_that_could_not_be_told_from_kinks_is_not_called_wrong() -> None:
    kinks = checks.finite_differences({"gradient_check_cosine": 1.0, "gradient_check_passed": False})
    assert kinks.status == checks.FAIL and "kinks to tell" in kinks.meaning
    wrong = checks.finite_differences({"gradient_check_cosine": 0.5, "gradient_check_passed": False})
    assert wrong.status == checks.FAIL and "is not the derivative" in wrong.meaning


def made_up(*without: str, **config: Any) -> Evidence:
    """What an audit of a good model and its twin might have measured, without some parts, which failed."""
    task = config.pop("task", "hashing")
    cells = plan(AuditConfig(**config), queries=40, rule="frsf", control="twin", task=task)
    levels = {"by rule": 0.3, "noise": 0.85, "square": 0.6, "random-search": 0.6, "transfer": 0.5}

    def table(cell: Cell) -> pd.DataFrame:
        epsilon, audited = cell.config.epsilon, cells[0].config.epsilon
        level = 0.05 if epsilon == 0.5 else 0.2 if epsilon > audited else 0.3 if epsilon == audited else 0.6
        attacked = levels.get(cell.part.removeprefix("control: "), level)
        columns = {"ap": attacked, "clean_ap": 0.9, "theory_ap": 0.05, "chance_ap": 0.1}
        columns |= {"zero_gradient_share": 0.0, "nonfinite_gradient_share": 0.0}
        return pd.DataFrame({"query_id": np.arange(40), **columns})

    done = [cell for cell in cells if cell.part not in without]
    facts = {"gradient_check_cosine": 1.0, "gradient_check_passed": True}
    return Evidence(
        cells=cells,
        tables={cell.part: table(cell) for cell in done},
        metrics={cell.part: {"linf_max": cell.config.epsilon, **facts} for cell in done},
        errors=dict.fromkeys(without, "it failed"),
        determinism=STEADY,
        validation_score=0.9,
        control_validation_score=0.9,
        control_determinism=STEADY,
    )


def judged(evidence: Evidence) -> dict[str, str]:
    return {check.name: check.status for check in all_checks(evidence)}


def test_a_good_model_passes_and_no_check_is_missing() -> None:
    found = judged(made_up())
    assert set(found.values()) == {PASS} and len(found) == 14
    assert verdict(all_checks(made_up())) == PASS


@pytest.mark.parametrize("part", [cell.part for cell in made_up().cells])
def test_an_attack_without_a_result_fails_the_audit_and_stops_no_other_check(part: str) -> None:
    evidence = made_up(part)
    found = judged(evidence)
    assert found["attacks"] == FAIL and verdict(all_checks(evidence)) == FAIL
    assert headline(evidence).keys() <= headline(made_up()).keys()
    if part != "main":
        assert found.keys() == judged(made_up()).keys()


def test_an_attack_beyond_its_ball_is_named() -> None:
    evidence = made_up()
    evidence.metrics["hag"]["linf_max"] *= 1.01  # type: ignore[index]
    first = all_checks(evidence)[0]
    assert (
        first.status == FAIL
        and first.value == pytest.approx(1.01)
        and "'hag' leaves its ball" in first.meaning
    )


def test_the_sweep_ends_where_half_of_the_pixel_range_is_free() -> None:
    for epsilon in (0.25, 0.3):
        evidence = made_up(epsilon=epsilon)
        assert max(cell.config.epsilon for cell in evidence.cells) == 0.5
        assert len({cell.part for cell in evidence.cells}) == len(evidence.cells)
        assert judged(evidence)["epsilon 0.5"] == PASS


def test_further_attacks_stand_beside_those_of_the_suite() -> None:
    cells = plan(AuditConfig(also=("hag", "noise", "hag")), queries=9, rule="bp", control="twin")
    access = {cell.part: cell.access for cell in cells}
    assert len(access) == len(cells)
    assert access["hag"] == access["also hag"] == access["control: also hag"] == "white box"
    assert access["noise"] == "noise" and access["also noise"] == "gradient-free"


def test_an_attack_that_is_fitted_once_has_one_start_whatever_the_budget() -> None:
    config = AuditConfig(also=("uap",), restarts=4)
    check_attacks(config, "hashing")
    cells = {cell.part: cell.config for cell in plan(config, queries=9, rule="bp", control=None)}
    assert cells["main"].params["restarts"] == 4 and cells["also uap"].params["restarts"] == 1
    check_attacks(AuditConfig(attack="uap"), "hashing")


def test_a_suite_has_another_version_if_any_of_its_attacks_has(monkeypatch: pytest.MonkeyPatch) -> None:
    config = AuditConfig(also=("uap",))
    before = with_version(config, "hashing")
    assert with_version(before, "hashing") == before
    for attack in ("hag", "noise", "square", "uap"):
        with monkeypatch.context() as patch:
            patch.setattr(attacks[attack], "version", attacks.build(attack).version + 1)
            after = with_version(config, "hashing")
        assert after.version == before.version + 1 and after.folder_name != before.folder_name
    assert "version" not in with_version(AuditConfig(attack="pgd"), "classification").to_dict()


def test_an_attack_without_steps_cannot_show_that_it_has_converged() -> None:
    found = judged(made_up(task="classification", attack="fgsm"))
    assert found["twice the steps, more restarts"] == found["one step vs many"] == SKIP


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attack": "square"}, "attack 'square' follows no gradient"),
        ({"attack": "noise"}, "attack 'noise' follows no gradient"),
        ({"queries": 1}, "queries is 1: give at least 2"),
        ({"also": "hag"}, "also is the text 'hag': give a tuple"),
    ],
)
def test_audits_that_could_show_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AuditConfig(**settings)
