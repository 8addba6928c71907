from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hashrobust.seeding import key_seed, keyed_generator

KEYS = st.lists(st.one_of(st.integers(), st.text(max_size=5)), min_size=1, max_size=4).map(tuple)


@given(KEYS, KEYS)
@settings(deadline=None, max_examples=60)
def test_equal_keys_equal_seeds_and_no_others(one: tuple[int | str, ...], two: tuple[int | str, ...]) -> None:
    assert (key_seed(*one) == key_seed(*two)) == (one == two)


@given(KEYS)
@settings(deadline=None, max_examples=60)
def test_torch_and_numpy_take_the_seed(key: tuple[int | str, ...]) -> None:
    assert 0 <= key_seed(*key) < 2**63
    assert keyed_generator(*key).initial_seed() == key_seed(*key)


def test_parts_of_a_key_do_not_run_together() -> None:
    assert len({key_seed(1, 23), key_seed(12, 3), key_seed("1", 23), key_seed(123)}) == 4


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_a_number_is_the_same_key_whatever_its_type(kind: type) -> None:
    assert key_seed("start", kind(3), 5) == key_seed("start", 3, 5)


def test_the_seed_is_that_of_other_processes() -> None:
    code = "from hashrobust.seeding import key_seed; print(key_seed('start', 3, -1))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == key_seed("start", 3, -1)


def test_generators_of_one_key_draw_the_same_and_leave_the_global_state() -> None:
    state = torch.get_rng_state()
    first, second = (torch.rand(4, generator=keyed_generator("a", 1)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(4, generator=keyed_generator("a", 2)))
    assert torch.equal(state, torch.get_rng_state())
