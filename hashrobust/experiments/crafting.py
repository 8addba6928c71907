"""The images of an attack, crafted batch by batch; batches that are stored are not crafted again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from hashrobust.attacks import (
    AttackContext,
    AttackResult,
    inside_ball,
    outward,
    perturbation,
    round_to_8_bits,
)
from hashrobust.errors import HashRobustError
from hashrobust.experiments.attack_scores import Crafted
from hashrobust.experiments.bench import Bench
from hashrobust.experiments.opened import Model
from hashrobust.experiments.store import Folder, config_hash
from hashrobust.models import load_tensors, save_tensors, sign
from hashrobust.progress import Progress
from hashrobust.rules import exact_gradient

PARTS, FITTED = "parts", "fitted"
_COUNTS = ("gradient_evaluations", "zero_gradients", "nonfinite_gradients", "queries")
"""What an attack counts of each sample."""


def craft(bench: Bench, folder: Folder, progress: Progress) -> Crafted:
    """Attack all chosen queries; batches that are stored already are read back."""
    size, total = bench.config.batch_size, len(bench.chosen)
    parts = {start: f"{PARTS}/{start:07d}.npz" for start in range(0, total, size)}
    done = sum(min(size, total - start) for start, part in parts.items() if folder.has(part))
    fitted = _fitted(bench, progress) if done < total else None
    with progress.track(
        f"{bench.config.attack} ({bench.config.gradient})", total, "queries", done
    ) as advance:
        for start, part in parts.items():
            if folder.has(part):
                continue
            stop = min(start + size, total)
            arrays = craft_batch(bench, start, stop, fitted)
            folder.write_arrays(part, arrays)
            advance(stop - start, "")
    return Crafted.read([folder.file(part, made_by=folder.command) for part in parts.values()])


def discard_parts(folder: Folder) -> None:
    """Remove the batches of an attack that is finished."""
    folder.unseal(*(name for name in folder.checksums if name.startswith(f"{PARTS}/")))
    shutil.rmtree(folder.path / PARTS, ignore_errors=True)


def _fitted(bench: Bench, progress: Progress) -> dict[str, Tensor] | None:
    """What the attack learns once per model, stored in the attacked run for every later attack alike."""
    if not bench.attack.fits:
        return None
    whole = bench.config.to_dict()
    relevant = {key: whole[key] for key in whole if key not in ("queries", "query_seed", "batch_size")}
    name = f"{FITTED}/{bench.config.attack}-{config_hash(relevant)}.safetensors"
    run = bench.subject.folder
    if not run.has(name):
        progress.say(f"{bench.config.attack} is fitted on the training images, once for this run")
        with bench.attacker() as through:
            known = bench.context(0, 0, through, bench.source)
            learned = bench.attack.fit(through, replace(known, targets=None, sample_ids=None))
        with run.writing(name) as temporary:
            save_tensors(learned, temporary, {"attack": bench.config.attack})
    return load_tensors(run.file(name, made_by="attack"))[0]


def craft_batch(
    bench: Bench, start: int, stop: int, fitted: Mapping[str, Tensor] | None
) -> dict[str, NDArray[Any]]:
    """What is kept of the queries at these positions, as `Crafted` holds it of all.

    Raises:
        HashRobustError: an image has left its ball, or the model's answers do not repeat.
    """
    clean = bench.batch(start, stop)
    labels = bench.data.asked.labels[bench.chosen[start:stop]].to(bench.device)
    with bench.attacker() as through:
        context = bench.context(start, stop, through, bench.source, fitted)
        result = _run(bench, through, clean, labels, context)
    # Attacks of others may have replaced the check in `run`.
    if result.bounded and not inside_ball(result.images, clean, bench.config.epsilon):
        raise HashRobustError(
            f"attack '{bench.config.attack}' left its ball of radius {255 * bench.config.epsilon:g}/255: "
            "mend the attack, its images do not count"
        )
    reach = bench.config.epsilon if result.bounded else 1.0
    rounded = round_to_8_bits(result.images, clean, reach)
    answers = bench.subject.answers(clean)
    check_forward(bench, clean, answers)
    arrays = {
        "clean": answers,
        "attacked": bench.subject.answers(result.images),
        "attacked_8bit": bench.subject.answers(rounded),
        "theory": _theory(bench, answers, labels, start, stop, fitted),
        "targets": torch.zeros(0) if bench.targets is None else bench.targets[start:stop],
        "objective": result.objective,
        "gradient_evaluations": result.gradient_evaluations,
        "model_queries": result.queries,
        "finished": result.finished,
        "zero_gradients": result.zero_gradients,
        "nonfinite_gradients": result.nonfinite_gradients,
        "images": result.images[[i - start for i in bench.examples() if start <= i < stop]],
        **{f"perturbation_{name}": values for name, values in perturbation(clean, result.images).items()},
    }
    return {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()}


def _theory(
    bench: Bench,
    codes: Tensor,
    labels: Tensor,
    start: int,
    stop: int,
    fitted: Mapping[str, Tensor] | None,
) -> Tensor:
    """The codes that full success would reach, from the clean ones; empty if the attack aims at none."""
    theory = None
    if bench.subject.codes:
        # In the codes of the model under attack, whoever lent the gradient.
        learned = fitted if bench.source is bench.subject else None
        own = bench.context(start, stop, bench.model, bench.subject, learned)
        theory = bench.attack.theory_codes(codes.float().to(bench.device), labels, own)
    return torch.zeros(0) if theory is None else sign(theory)


def _run(bench: Bench, through: Model, clean: Tensor, labels: Tensor, context: AttackContext) -> AttackResult:
    """The attack, through the smaller epsilons first if it is warm-started; the work of all is counted."""
    links: list[AttackResult] = []
    epsilons = (*bench.config.start_epsilons, bench.config.epsilon)
    for before, epsilon in zip((0.0, *epsilons), epsilons, strict=False):
        if links:
            context = replace(context, start_images=outward(links[-1].images, clean, before, epsilon))
        attack = replace(bench.attack, epsilon=epsilon)
        links.append(attack.run(through, clean, labels=labels, context=context))
    work = {name: sum(getattr(link, name) for link in links) for name in _COUNTS}
    return replace(links[-1], **work)


def check_forward(bench: Bench, clean: Tensor, answers: Tensor) -> None:
    """Answers must be the same twice, and the same with and without the rule's feedback."""
    with exact_gradient(bench.model):
        if not torch.equal(bench.subject.answers(clean), answers):
            raise HashRobustError(
                f"run '{bench.subject.name}' gives the same images other answers when asked again: its answers "
                "are random or depend on the gradient's mode, so its attacks mean nothing"
            )
