"""The card of a model that is shared: what it is, how it was made, and every number that was measured of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hashrobust.experiments.measures import MEASURES
from hashrobust.experiments.store import Folder
from hashrobust.reports import labels
from hashrobust.reports.audit_attacks import without_audits
from hashrobust.reports.audits import audits_frame, audits_table
from hashrobust.reports.formats import escape_markdown, to_markdown
from hashrobust.reports.frame import results_frame
from hashrobust.reports.summary import records
from hashrobust.reports.tables import attack_table

_FIRST = ("rule", "feedback_scale", "objective", "bits", "seed")
_SIGN_SYMMETRIC = ("usf", "brsf", "frsf")
_NOT_TOLD = (
    "dataset",
    "image_size",
    "backbone",
    "objective",
    "bits",
    "rule",
    "seed",
    "weights_digest",
    "threads",
)


def model_card(run: Folder, description: Mapping[str, Any]) -> str:
    """The card as Markdown, from the run's folder and the description of its export.

    No number of an attack stands in it without whose gradient the attacker followed.
    """
    training, data = description["training"], description["data"]
    parts = [
        f"# {escape_markdown(description['run'])}",
        _what(description),
        "## Use",
        _use(description),
        "## Data",
        f"- {escape_markdown(data['name'])}: {data['source']}\n- protocol: {data['protocol']}\n- "
        f"fingerprint of images, labels and splits: `{data['fingerprint']}`",
        "## Training",
        _training(training),
        "## Measured",
        *_measured(run),
        "## Files",
        _files(description),
        "## Licence",
        _licence(description),
        "## Versions",
        ", ".join(f"{name} {version}" for name, version in description["versions"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _what(description: Mapping[str, Any]) -> str:
    network, training, rule = description["network"], description["training"], description["training"]["rule"]
    shape = f"{network['channels']} x {network['image_size']} x {network['image_size']}"
    if description["task"] == "hashing":
        does = f"hashes images to codes of {network['outputs']} bits, for retrieval by Hamming distance"
    else:
        does = f"sorts images into {network['outputs']} classes"
    words = (
        f"A `{network['backbone']}` that {does}. It takes float images of {shape} (channels, height, width) in [0, 1]; "
        "normalisation is a layer of it. It was trained on "
        f"{escape_markdown(description['data']['name'])} with the learning rule `{rule}`, seed {training['seed']}."
    )
    if rule == "bp":
        return words
    kind = "a sign-symmetric rule" if rule in _SIGN_SYMMETRIC else "a rule with feedback weights of its own"
    beside = (
        "The feedback that the rule drew is in `feedback.safetensors`."
        if description["feedback"]
        else "The feedback that the rule drew is no part of this folder."
    )
    return (
        f"{words}\n\nThis is {kind}: it changed how the error travelled back in training and nothing else. What is "
        "shared is the plain network, whose exact gradient anyone who holds it can compute. "
        f"{beside}"
    )


def _use(description: Mapping[str, Any]) -> str:
    answer = (
        "The code is the sign of its outputs, sign(0) = +1."
        if description["task"] == "hashing"
        else f"The class is the largest of its logits: {', '.join(map(escape_markdown, description['classes']))}."
    )
    return (
        "`python example.py` in this folder loads it without hashrobust: with safetensors and what `model.py` imports, "
        f"which is the network written down as it answers in eval mode. {answer}\n\n"
        "`hashrobust import` makes a run of it that can be evaluated, attacked and audited."
    )


def _training(training: Mapping[str, Any]) -> str:
    first = {name: training[name] for name in _FIRST if name in training}
    rest = {name: value for name, value in training.items() if name not in (*_FIRST, *_NOT_TOLD)}
    lines = [
        f"- {name.replace('_', ' ')}: {_value(value)}"
        for name, value in (first | rest).items()
        if value != {}
    ]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(own)}" for name, own in value.items())
    return "none" if value is None else labels.setting("", value)


def _measured(run: Folder) -> list[str]:
    if not run.has("accuracy.json" if run.classifies else "metrics.json") and not run.attacks():
        return ["Nothing yet: `hashrobust evaluate` was not run before the export."]
    frame = results_frame(run.path)
    attacked, left_out = without_audits(frame)
    audits = audits_frame(run.path)
    parts = _clean(records(frame))
    rows = [row for row in records(attacked) if row["attack"] != "none"]
    parts += [to_markdown(attack_table(pd.DataFrame(rows))).strip()] if rows else []
    parts += [*left_out, to_markdown(audits_table(audits)).strip()] if not audits.empty else []
    return (
        parts
        if rows or not audits.empty
        else [*parts, "No attack was measured: nothing is known of its robustness."]
    )


def _clean(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    clean = [row for row in rows if row["attack"] == "none"]
    if not clean:
        return ["Without an attack: not evaluated on all queries."]
    row = clean[0]
    mean = MEASURES[row["task"]].mean
    said = labels.interval(mean, row.get(mean), row.get(f"{mean}_low"), row.get(f"{mean}_high"))
    lines = [
        f"Without an attack: {labels.name(mean)} {said}% (95% over {labels.setting('', row['queries'])} "
        f"{'images' if mean == 'accuracy' else 'queries'}), chance {labels.number(mean, row.get(f'chance_{mean}'))}%."
    ]
    if not labels.is_missing(row.get("map_at_k")):
        k, score = labels.setting("k", row.get("k")), labels.number("map", row["map_at_k"])
        lines.append(
            f"mAP@{k} {score}% (over relevant items retrieved), chance "
            f"{labels.number('map', row.get('chance_map_at_k'))}%."
        )
    return [" ".join([*lines, "Ties count in expectation."] if mean == "map" else lines)]


def _files(description: Mapping[str, Any]) -> str:
    said = {
        "model.safetensors": "the weights",
        "model.json": "what this card says, for programs",
        "model.py, example.py": "the network in plain torch, and how it is loaded",
        **({"feedback.safetensors": "what the rule drew"} if description["feedback"] else {}),
        "checksums.json": "SHA-256 of every file",
    }
    lines = [f"- `{name}`: {words}" for name, words in said.items()]
    checked = dict(description["checked"])
    images = checked.pop("images")
    lines += [
        f"- `{name}` was held against the trained model on {images} real images: {found['differ']} of "
        f"{found['values']} {'bits' if description['task'] == 'hashing' else 'classes'} differ, outputs by at most "
        f"{found['largest_difference']:.2g}"
        for name, found in checked.items()
    ]
    return "\n".join(lines)


def _licence(description: Mapping[str, Any]) -> str:
    data, start = description["data"], description["training"].get("weights", "none")
    lines = [
        "The licence of these weights is for whoever shares them to state here.",
        f"They were trained on {escape_markdown(data['name'])}, whose licence is: {data['licence'] or 'unknown'}.",
    ]
    if start == "imagenet":
        lines.append("They started from ImageNet weights; ImageNet is for non-commercial research.")
    elif start != "none":
        lines.append(f"They started from {start}, whose terms apply as well.")
    return " ".join(lines)
