"""Target labels for targeted attacks."""

from __future__ import annotations

import torch
from torch import Tensor

from hashrobust.errors import InputError
from hashrobust.seeding import keyed_generator

from ._context import as_multi_hot, check_tensor, class_count, label_vectors


def draw_targets(
    labels: Tensor, database_labels: Tensor, *, seed: int = 0, sample_ids: Tensor | None = None
) -> Tensor:
    """A target label vector for each query, (B, C) uint8.

    It exists in the database, is not empty and shares no label with the query; each distinct vector is
    equally likely, drawn by (seed, sample id). Labels are multi-hot (B, C), (N, C) or integers.

    Raises:
        InputError: the database holds no such vector for some query.
    """
    for name, given in (("labels", labels), ("database_labels", database_labels), ("sample_ids", sample_ids)):
        check_tensor(given, name)
    classes = class_count(labels, database_labels)
    queries = as_multi_hot(labels, classes, "labels").float()
    known = label_vectors(as_multi_hot(database_labels, classes, "database_labels"))
    disjoint = queries @ known.float().T == 0
    ids = list(range(len(queries))) if sample_ids is None else sample_ids.tolist()
    chosen: list[Tensor] = []
    for row, sample in enumerate(ids):
        candidates = disjoint[row].nonzero().flatten().cpu()
        if not len(candidates):
            raise InputError(
                f"sample {sample} has no possible target: every label vector of the database shares a "
                "label with it; use a database with more classes"
            )
        generator = keyed_generator("target", seed, sample)
        chosen.append(candidates[torch.randint(len(candidates), (1,), generator=generator)])
    drawn: Tensor = known[torch.cat(chosen).to(known.device)]
    return drawn
