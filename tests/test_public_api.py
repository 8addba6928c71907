"""The public names, and the example of the design document as a user would type it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import hashrobust as hr


@pytest.mark.parametrize("name", hr.__all__)
def test_public_names_resolve_and_are_documented(name: str) -> None:
    assert getattr(hr, name).__doc__
    assert name in dir(hr)


def test_no_public_name_is_hidden_and_no_other_resolves() -> None:
    assert set(hr.__all__) == set(hr._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'finetunes'"):
        hr.finetunes  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, hashrobust; assert not {'torch', 'numpy', 'faiss', 'pandas'} & set(sys.modules); "
        "from hashrobust import InputError; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_example() -> None:
    data = hr.load_dataset("digits")
    model = hr.HashModel(backbone="lenet", bits=32)
    report = hr.convert(model, rule="frsf", seed=0)
    assert "backbone.conv1" in report.converted and "head" in report.converted and report.left == {}
    settings = {"batch_size": 32, "learning_rate": 1e-3}
    result = hr.finetune(model, data, objective="hyp2", epochs=6, **settings)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4, 5, 6]

    index = hr.HammingIndex.build(model.encode(data.database.images))
    queries, labels = data.query.images[:40], data.query.labels[:40]
    clean = hr.average_precision(model.encode(queries), index.codes, labels, data.database.labels)
    chance = hr.chance(labels, data.database.labels, k=None, normalizer="all")
    assert clean.shape == (40,) and clean.dtype == np.float64
    assert clean.mean() > 2 * chance

    attack = hr.build_attack("hag", epsilon=64 / 255, steps=20)
    with hr.exact_gradient(model):
        adversarial = attack(model, queries)
    assert adversarial.shape == queries.shape
    attacked = hr.average_precision(model.encode(adversarial), index.codes, labels, data.database.labels)
    assert attacked.mean() < clean.mean() - 0.1


def test_attacks_with_labels_and_a_context() -> None:
    data = hr.load_dataset("digits")
    model = hr.HashModel(backbone="lenet", bits=12).eval()
    context = hr.AttackContext(train_codes=model.encode(data.train), train_labels=data.train.labels)
    attack = hr.build_attack("center", epsilon=8 / 255, steps=8)
    images, labels = data.query.images[:5], data.query.labels[:5]
    adversarial = attack(model, images, labels=labels, context=context)
    assert 0 < float((adversarial - images).abs().max()) <= 8 / 255 + 1e-6
    with pytest.raises(hr.InputError, match="attack center needs labels"):
        attack(model, images, context=context)
