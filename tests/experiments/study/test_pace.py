"""The time left of a study: parts of a kind last as long as those of their kind that are done."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from hashrobust.experiments.study import pace
from hashrobust.experiments.study.plan import Cell


def cell(stage: str, task: str = "hashing") -> Cell:
    return SimpleNamespace(stage=stage, task=task)  # type: ignore[return-value]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands at what `now` says."""
    hand = SimpleNamespace(now=100.0)
    monkeypatch.setattr(pace.time, "perf_counter", lambda: hand.now)
    return hand


def left(
    clock: SimpleNamespace, done: list[tuple[str, int, float]], after: float, missing: list[tuple[str, int]]
) -> float:
    """Seconds left for so many units of each stage, when others took so long and so much time has passed."""
    found = pace.Pace()
    for stage, units, seconds in done:
        found.note(cell(stage), units, seconds)
    clock.now += after
    return found.seconds_left([(cell(stage), units) for stage, units in missing])


def test_attacks_are_not_taken_to_last_as_long_as_trainings(clock: SimpleNamespace) -> None:
    done = [("train", 1, 60.0), ("attack", 20, 40.0)]
    assert left(clock, done, 100, [("train", 2), ("attack", 30)]) == pytest.approx(2 * 60 + 30 * 2)


def test_two_processes_end_in_half_the_time(clock: SimpleNamespace) -> None:
    done = [("train", 1, 60.0), ("train", 1, 60.0)]
    assert left(clock, done, 60, [("train", 4)]) == pytest.approx(120)


def test_a_kind_that_was_not_met_takes_the_mean_of_all(clock: SimpleNamespace) -> None:
    done = [("train", 1, 30.0), ("attack", 2, 6.0)]
    assert left(clock, done, 36, [("audit", 1)]) == pytest.approx(12)


def test_nothing_is_known_before_anything_is_done(clock: SimpleNamespace) -> None:
    skipped = [("attack", 3, 0.0)]  # since what it needs failed
    assert left(clock, skipped, 0, [("train", 1)]) == math.inf
