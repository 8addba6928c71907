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


def test_attacks_are_not_taken_to_last_as_long_as_trainings(clock: SimpleNamespace) -> None:
    found = pace.Pace()
    found.note(cell("train"), 1, 60.0)
    found.note(cell("attack"), 20, 40.0)
    clock.now += 100
    left = found.seconds_left([(cell("train"), 2), (cell("attack"), 30)])
    assert left == pytest.approx(2 * 60 + 30 * 2)


def test_two_processes_end_in_half_the_time(clock: SimpleNamespace) -> None:
    found = pace.Pace()
    found.note(cell("train"), 1, 60.0)
    found.note(cell("train"), 1, 60.0)
    clock.now += 60
    assert found.seconds_left([(cell("train"), 4)]) == pytest.approx(120)


def test_a_kind_that_was_not_met_takes_the_mean_of_all(clock: SimpleNamespace) -> None:
    found = pace.Pace()
    found.note(cell("train"), 1, 30.0)
    found.note(cell("attack"), 2, 6.0)
    clock.now += 36
    assert found.seconds_left([(cell("audit"), 1)]) == pytest.approx(12)


def test_nothing_is_known_before_anything_is_done(clock: SimpleNamespace) -> None:
    found = pace.Pace()
    found.note(cell("attack"), 3, 0.0)  # skipped, since what it needs failed
    assert found.seconds_left([(cell("train"), 1)]) == math.inf
