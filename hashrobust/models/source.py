"""A network written down as a Python file of its own, which needs torch alone, or torch and torchvision."""

from __future__ import annotations

import ast
import copy
import inspect
import re
from types import ModuleType
from typing import Any

from torch import Tensor, fx, nn

from hashrobust.errors import InputError
from hashrobust.models.network import Network
from hashrobust.rules import convert

_PLACE = {"device", "dtype"}

_FILE = '''"""{title}

Written down by hashrobust from the network as it answers in eval mode; needs {needs} alone. The tensors are named as
in model.safetensors, see example.py.
"""

{imports}

def layers() -> dict[str, nn.Module]:
    """The layers, freshly initialised, by name."""
    return {{
{layers}
    }}


def tensors() -> dict[str, torch.Tensor]:
    """What belongs to no layer, not filled in yet, by name."""
    return {{
{tensors}
    }}


class Model(nn.Module):
    """{summary}"""

    def __init__(self) -> None:
        super().__init__()
        for name, layer in layers().items():
            holder, last = self._holder(name)
            holder.add_module(last, layer)
        for name, tensor in tensors().items():
            holder, last = self._holder(name)
            holder.register_buffer(last, tensor)

    def _holder(self, name: str) -> tuple[nn.Module, str]:
        """The module that holds what has this dotted name, and the last part of the name."""
        holder: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            if part not in holder._modules:
                holder.add_module(part, nn.Module())
            holder = holder.get_submodule(part)
        return holder, last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """{forward}"""
        layer = self.get_submodule
{body}
'''


def plain_source(network: Network) -> str:
    """The source of a file with a class `Model` that computes what the network does in eval mode.

    Its state dict has the names and shapes of the network's; what a learning rule drew is no part of it.

    Raises:
        InputError: a network that cannot be traced, or that holds what cannot be written down.
    """
    plain = copy.deepcopy(network).eval()
    convert(plain, "bp")
    try:
        graph = fx.Tracer().trace(plain)
    except Exception as error:  # anything may happen in tracing the code of others
        first = " ".join(str(error).split())[:200]
        raise _unwritable(network, f"it cannot be traced ({type(error).__name__}: {first})") from error
    names = list(dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "call_module"))
    written = {name: _constructor(network, name, plain.get_submodule(name)) for name in names}
    loose = {
        name: f"torch.zeros({tuple(tensor.shape)}, dtype={tensor.dtype})"
        for name, tensor in plain.state_dict().items()
        if name.rpartition(".")[0] not in _holders(plain, names)
    }
    for node in graph.nodes:
        if node.op == "get_attr" and node.target not in loose:
            raise _unwritable(
                network, f"it holds the constant '{node.target}', which is not among its weights"
            )
    body, imports = _body(network, graph, names)
    channels, height, width = network.input_shape
    what = "z (batch, bits), whose signs are the code" if network.kind == "hash" else "the logits of classes"
    return _FILE.format(
        title=f"{network.spec['backbone']} for images of {channels} x {height} x {width} (channels, height, width).",
        needs=" and ".join(sorted({"torch", *(line.split()[1].partition(".")[0] for line in imports)})),
        imports="\n".join(["import torch", *imports, "from torch import nn", ""]),
        layers="\n".join(f"        {name!r}: {call}," for name, call in written.items()),
        tensors="\n".join(f"        {name!r}: {call}," for name, call in loose.items()),
        summary=f"Images in [0, 1] to {what}.",
        forward="Of images (batch, channels, height, width) in [0, 1].",
        body=body,
    )


def _holders(model: nn.Module, names: list[str]) -> set[str]:
    """The names of these layers and of all that is in them."""
    return {
        f"{name}.{inner}".rstrip(".")
        for name in names
        for inner, _ in model.get_submodule(name).named_modules()
    }


def _constructor(network: Network, name: str, layer: nn.Module) -> str:
    """The call that makes a layer of torch.nn anew."""
    kind = type(layer)
    arguments = []
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.name in _PLACE or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = _given(layer, parameter)
        if value is parameter.empty or not _is_literal(value):
            raise _unwritable(
                network, f"'{parameter.name}' of its layer '{name}' ({kind.__name__}) is not known"
            )
        if value != parameter.default:
            arguments.append(f"{parameter.name}={value!r}")
    return f"nn.{kind.__name__}({', '.join(arguments)})"


def _given(layer: nn.Module, parameter: inspect.Parameter) -> Any:
    """What a layer was made with, as far as its attributes tell; of a bias, whether there is one."""
    value = getattr(layer, parameter.name, parameter.default)
    if isinstance(value, Tensor) or (value is None and isinstance(parameter.default, bool)):
        return value is not None
    return value


def _is_literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def _body(network: Network, graph: fx.Graph, names: list[str]) -> tuple[str, list[str]]:
    """The statements of the forward pass, and the imports that they need."""
    for node in graph.nodes:
        if node.op == "call_module":
            node.target = f"part_{names.index(str(node.target))}_"
    code = graph.python_code("self")
    text = code.src.partition("def forward")[2].partition("\n")[2]
    text = re.sub(r";(\s*\w+ =)+ None", "", text)
    text = re.sub(r"^( *\w+) : [\w.]+ = ", r"\1 = ", text, flags=re.MULTILINE)
    text = re.sub(r"self\.part_(\d+)_", lambda found: f'layer("{names[int(found[1])]}")', text)
    needed = {name: value for name, value in code.globals.items() if re.search(rf"\b{name}\b", text)}
    lines = [f"    {line}" for line in text.rstrip().splitlines()]
    return "\n".join(lines), sorted(
        _import(network, name, value) for name, value in needed.items() if name != "torch"
    )


def _import(network: Network, name: str, value: Any) -> str:
    """The statement that gives `value` its name."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}"
    home, own = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if home is None or own is None or home.partition(".")[0] == "hashrobust":
        raise _unwritable(network, f"it uses {name}, which torch does not have")
    return f"from {home} import {own} as {name}" if own != name else f"from {home} import {own}"


def _unwritable(network: Network, reason: str) -> InputError:
    return InputError(
        f"backbone '{network.spec['backbone']}' cannot be written down as a file of its own: {reason}; "
        "share its weights (model.safetensors) and the file that defines it"
    )
