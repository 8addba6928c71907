"""Synthetic run folders with the files that the steps leave behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hashrobust.experiments.config import AttackConfig, FinetuneConfig, PretrainConfig
from hashrobust.experiments.store import Folder

QUERIES = 40
CHANCE = 0.1
THEORY = 0.02
CLEAN = {"bp": 0.9, "usf": 0.86, "frsf": 0.84}
RULE_GAP = {"bp": 0.0, "usf": 0.1, "frsf": 0.25}
CONTROL_GAP = 0.2


def exact_map(rule: str, epsilon: float, seed: int) -> float:
    """What the synthetic exact attack leaves of a rule's clean mAP."""
    return (CLEAN[rule] + 0.01 * seed - THEORY) * float(np.exp(-epsilon * 255 / 3)) + THEORY


def query_table(mean: float, clean: float, seed: int) -> pd.DataFrame:
    """Per-query scores with exactly the mean asked for."""
    noise = np.random.default_rng(seed).normal(0, 0.01, QUERIES)
    noise -= noise.mean()
    return pd.DataFrame({"query_id": np.arange(QUERIES), "clean_ap": clean + noise, "ap": mean + noise[::-1]})


def add_run(root: Path, rule: str, seed: int, *, evaluated: bool = True, **config: Any) -> Folder:
    """One fine-tuned run, evaluated or not."""
    settings = FinetuneConfig(
        rule=rule, seed=seed, weights=f"run:digits-lenet-pretrained-s{seed}-0123abcd", **config
    )
    run = Folder.create(root / settings.run_name, {"task": "finetune", **settings.to_dict()})
    epochs = np.arange(1, 9)
    history = {
        "epoch": epochs,
        "loss": 2 / epochs,
        "validation_map": 0.9 - 0.5 / epochs,
        "learning_rate": 1e-4,
    }
    run.write_table("history.csv", pd.DataFrame(history))
    layers = [
        {"epoch": e, "layer": layer, "angle_degrees": 30 + 3 * i + e, "norm_ratio": 1.0 + 0.1 * i}
        for e in epochs
        for i, layer in enumerate(("conv1", "conv2", "hash"))
    ]
    run.write_table("alignment.csv", pd.DataFrame(layers))
    if evaluated:
        clean = CLEAN[rule] + 0.01 * seed
        metrics = {"map": clean, "map_low": clean - 0.02, "map_high": clean + 0.02, "map_at_k": clean + 0.01}
        run.write_json("metrics.json", {**metrics, "chance_map": CHANCE, "queries": QUERIES, "k": None})
    return run


def add_attack(run: Folder, mean: float, *, finished: bool = True, **config: Any) -> Folder:
    """One attack on a run, with the score asked for."""
    settings = AttackConfig(**config)
    attack = Folder.create(run.path / "attacks" / settings.folder_name, settings.to_dict())
    if not finished:
        return attack
    clean = CLEAN[run.config["rule"]] + 0.01 * run.config["seed"]
    metrics: dict[str, Any] = {
        **{"goal": "non-targeted", "queries": QUERIES, "clean_map": clean, "clean_map_low": clean - 0.02},
        **{"clean_map_high": clean + 0.02, "map": mean, "map_low": mean - 0.01, "map_high": mean + 0.01},
        **{"map_8bit": mean, "map_at_k": mean, "chance_map": CHANCE, "l2_mean": 1.25, "steps": 100},
        "theory_map": None if settings.attack == "noise" else THEORY,
    }
    if settings.attack == "dhta":
        metrics |= {
            "goal": "targeted",
            "t_map": 0.6,
            "clean_t_map": 0.1,
            "theory_t_map": 0.95,
            "chance_t_map": 0.1,
        }
    attack.write_json("metrics.json", metrics)
    attack.write_table("queries.parquet", query_table(mean, clean, len(attack.name + settings.gradient)))
    return attack


def add_examples(attack: Folder, *, n: int = 3, k: int = 4, channels: int = 1, side: int = 16) -> Path:
    """Pictures of an attack, as the attack step stores them."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 220, side, dtype=np.uint8)
    clean = np.broadcast_to(ramp[None, :, None, None], (n, side, side, channels)).copy()
    adversarial = np.clip(clean.astype(int) + rng.integers(-8, 9, clean.shape), 0, 255).astype(np.uint8)
    retrieved = rng.integers(0, 256, (n, k, side, side, channels), dtype=np.uint8)
    with attack.writing("examples/examples.npz") as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            clean=clean,
            adversarial=adversarial,
            retrieved_clean=retrieved,
            retrieved_adversarial=255 - retrieved,
            relevant_clean=np.ones((n, k), dtype=bool),
            relevant_adversarial=np.eye(n, k, dtype=bool),
            labels=np.array([f"digit {i}" for i in range(n)]),
        )
    attack.seal("examples/examples.npz")
    return attack.path / "examples" / "examples.npz"


def add_audit(
    run: Folder, cells: dict[str, Folder], number: int = 0, asked: int = QUERIES, **found: Any
) -> Folder:
    """A finished audit of a run whose parts are these attack folders."""
    config = {"attack": "center", "epsilon": 8 / 255, "queries": asked}
    audit = Folder.create(run.path / "audits" / f"audit-{number:08x}", config)
    access = {"by rule": "rule", "noise": "noise"}
    rows = []
    for part, attack in cells.items():
        config, metrics = attack.config, attack.read_json("metrics.json", made_by="attack")
        row = {name: config[name] for name in ("attack", "epsilon", "gradient")}
        row |= {name: metrics[name] for name in ("map", "map_low", "map_high", "clean_map", "theory_map")}
        row |= {"part": part, "access": access.get(part, "white box"), "error": None}
        on_control = part.startswith("control: ")
        folder = f"{attack.path.parents[1].name}/attacks/{attack.name}"
        rows.append({**row, "on_control": on_control, "folder": folder})
    parts = {row["part"]: row for row in rows}
    headline: dict[str, Any] = {"queries": QUERIES, "chance_map": CHANCE}
    if "main" in parts:
        exact = parts["main"]["map"]
        headline |= {"clean_map": parts["main"]["clean_map"], "exact_map": exact, "theory_map": THEORY}
        headline |= {"worst_map": exact - 0.02, "worst_map_low": exact - 0.04, "worst_map_high": exact}
    if "by rule" in parts:
        gap = parts["by rule"]["map"] - headline["exact_map"]
        headline |= {"rule_map": parts["by rule"]["map"], "masking_gap": gap, "gradient_cosine": 0.2}
        headline |= {"masking_gap_low": gap - 0.01, "masking_gap_high": gap + 0.01}
        headline |= {"gradient_sign_agreement": 0.6}
    depth = [
        {
            "layer": layer,
            "depth": place,
            "cosine": 0.9 / (place + 1),
            "sign_agreement": 0.9,
            "norm_ratio": 1.0,
        }
        for place, layer in enumerate(("hash", "conv2", "conv1"))
    ]
    check = {
        "name": "masking",
        "status": "FAIL",
        "value": 0.3,
        "limit": "0.02",
        "meaning": "the gap is large",
    }
    whole = {"attacks": rows, "headline": headline, "rule": run.config["rule"], "matched": None}
    whole |= {"verdict": "FAIL", "sentence": "The claim fails.", "checks": [check]}
    audit.write_json("audit.json", {**whole, "gradient_by_depth": depth, **found})
    return audit


def build_results(root: Path) -> Path:
    """Three rules, two seeds, three epsilons, both gradients, a control, noise, a targeted attack."""
    pretrained = PretrainConfig()
    Folder.create(root / pretrained.run_name, {"task": "pretrain", **pretrained.to_dict()})
    add_run(root, "usf", 7, evaluated=False)
    for rule in CLEAN:
        for seed in (0, 1):
            run = add_run(root, rule, seed)
            add_attack(run, CLEAN[rule] - 0.01, attack="noise", epsilon=8 / 255)
            for n in (2, 4, 8):
                exact = exact_map(rule, n / 255, seed)
                attack = add_attack(run, exact, attack="center", epsilon=n / 255, preset="saat")
                if n == 8 and seed == 0:
                    add_examples(attack)
                if rule == "bp":
                    control = {"attack": "center", "preset": "saat", "gradient": "rule:frsf"}
                    add_attack(run, exact + CONTROL_GAP, epsilon=n / 255, **control)
                else:
                    own = {"attack": "center", "preset": "saat", "gradient": "rule"}
                    add_attack(run, exact + RULE_GAP[rule], epsilon=n / 255, **own)
            if seed == 0:
                add_attack(run, 0.3, attack="dhta", epsilon=8 / 255, params={"n_t": 9})
                add_attack(run, 0.0, attack="hag", epsilon=8 / 255, finished=False)
    return root


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def make() -> dict[str, Callable[..., Any]]:
    """Builders of run folders, for tests that need folders of their own."""
    return {"run": add_run, "attack": add_attack, "examples": add_examples, "audit": add_audit}
