"""`hashrobust check`."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from hashrobust.cli._console import key_value_table, print_json, stdout
from hashrobust.cli._options import DataDir, Json


def command(data_dir: DataDir = None, json: Json = False) -> None:
    """Say what works on this machine: versions, device, threads, FAISS, weights, datasets."""
    import numpy as np
    import torch

    from hashrobust.backbones import backbones
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
    files = {name: getattr(backbones[name], "imagenet_file", lambda: None)() for name in backbones}
    weights = {
        name: "present" if file.exists() else f"missing; `--weights imagenet` fetches it to {file}"
        for name, file in files.items()
        if file is not None
    }
    infos = [dataset_info(name, data_dir=data_dir) for name in datasets]
    states = {True: "present", False: "missing", None: "name a folder"}
    if json:
        present = {info.name: states[info.present] for info in infos}
        print_json({"machine": machine, "ImageNet weights": weights, "datasets": present})
        return
    stdout.print(key_value_table("this machine", list(machine.items())))
    stdout.print(key_value_table("ImageNet weights", list(weights.items())))
    table = Table(
        "dataset", "state", "looked for in", "what fetches it", title="datasets", title_justify="left"
    )
    for info in infos:
        table.add_row(info.name, states[info.present], "\n".join(info.places), info.fetch)
    stdout.print(table)
