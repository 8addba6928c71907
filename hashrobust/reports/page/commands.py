"""The command that makes a folder again, from its stored configuration."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from hashrobust.experiments.store import AT_EPOCH, CLASSIFY, EXPORTED

_OF_STORE = {"format", "task", "weights_digest", "surrogate_digest", "control_digest", "epoch", "version"}
_OWN = {"objective_params": "--param", "defence_params": "--defence-param", "params": "--param"}
_NOT_OF_PRETRAINING = {"head_learning_rate_factor", "schedule", "patience"}


def run_command(name: str, config: Mapping[str, Any], results: str) -> str:
    """The command line that makes a run, or a remark where none does."""
    task = str(config.get("task", "finetune"))
    if task == "foreign":
        imported = config.get("model") == EXPORTED
        return "# imported from an export" if imported else f"# a model made elsewhere: {config.get('model')}"
    options = dict(config)
    words = ["hashrobust", "pretrain" if task == "pretrain" else "finetune"]
    if task == CLASSIFY or options.pop("protocol", None) == "classification":
        words += ["--task", "classification"]
    if task == "pretrain":
        options = {key: value for key, value in options.items() if key not in _NOT_OF_PRETRAINING}
    elif "patience" not in config:
        options["patience"] = 0
    line = shlex.join([*words, *_options(options), "--results", results])
    if AT_EPOCH in name:
        line += f"\n# taken at epoch {config.get('epoch', name.rpartition('-')[2])} of that training, to match an audit"
    return line


def attack_command(run: str, config: Mapping[str, Any], results: str) -> str:
    """The command line that makes an attack on a run."""
    options = dict(config)
    start = options.pop("start_epsilons", [])
    epsilons = [*start, options.pop("epsilon")]
    if options.get("gradient") == "none":
        del options["gradient"]
    words = ["hashrobust", "attack", run, "--epsilon", ",".join(_epsilon(value) for value in epsilons)]
    words += ["--warm-start"] if start else []
    return shlex.join([*words, *_options(options), "--results", results])


def audit_command(run: str, config: Mapping[str, Any], results: str) -> str:
    """The command line that makes an audit of a run."""
    options = {name: value for name, value in config.items() if name != "epsilon"}
    words = ["hashrobust", "audit", run, "--epsilon", _epsilon(config["epsilon"])]
    also = options.pop("also", [])
    words += ["--also", ",".join(also)] if also else []
    return shlex.join([*words, *_options(options), "--results", results])


def _options(config: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for key, value in config.items():
        if key in _OWN:
            for name, own in value.items():
                words += [_OWN[key], f"{name}={_value(own)}"]
        elif isinstance(value, bool):
            words += [f"--{_dashes(key)}"] if value else []
        elif key not in _OF_STORE:
            words += [f"--{_dashes(key)}", _value(value)]
    return words


def _dashes(key: str) -> str:
    return key.replace("_", "-")


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _epsilon(value: float) -> str:
    """As 255ths where that is the same number."""
    text = f"{255 * value:.6g}"
    return f"{text}/255" if float(text) / 255 == value else repr(value)
