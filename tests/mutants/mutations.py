"""Small mistakes put into a module, one at a time: each makes a mutant, for which some test should fail."""

from __future__ import annotations

import ast
import copy
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add, ast.Mult),
    ast.Mult: (ast.Add, ast.Div),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Mult, ast.Div),
    ast.Mod: (ast.FloorDiv, ast.Mult),
    ast.Pow: (ast.Mult, ast.Add),
    ast.MatMult: (ast.Mult,),
    ast.BitAnd: (ast.BitOr, ast.BitXor),
    ast.BitOr: (ast.BitAnd, ast.BitXor),
    ast.BitXor: (ast.BitAnd, ast.BitOr),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE, ast.NotEq),
    ast.LtE: (ast.Lt, ast.Gt, ast.Eq),
    ast.Gt: (ast.GtE, ast.LtE, ast.NotEq),
    ast.GtE: (ast.Gt, ast.Lt, ast.Eq),
    ast.Eq: (ast.NotEq, ast.LtE, ast.GtE),
    ast.NotEq: (ast.Eq, ast.Lt, ast.Gt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPPOSITES = {"min": "max", "argmin": "argmax", "amin": "amax", "minimum": "maximum", "any": "all"}
OPPOSITES |= {"floor": "ceil", "sum": "mean", "ones": "zeros", "ones_like": "zeros_like", "cumsum": "cumprod"}
OPPOSITES |= {new: old for old, new in OPPOSITES.items()}
NEVER_RUN = ("annotation", "returns")
Function = ast.FunctionDef | ast.AsyncFunctionDef
Conditional = ast.If | ast.While | ast.IfExp | ast.Assert


@dataclass(frozen=True)
class Mutant:
    """A module with one mistake in it."""

    kind: str
    line: int
    span: tuple[int, int]
    """First and last of the lines that run when the mistake does; of what runs at import, the whole definition."""
    at_import: bool
    source: str  # of all the module, without comments
    diff: str


@dataclass(frozen=True)
class _Place:
    """What can be put in the place of a node, which is the last of a path from the module down."""

    kind: str
    path: tuple[
        tuple[str, int | None, ast.AST], ...
    ]  # a field of the node before, an index into it, the node there
    choices: tuple[ast.AST, ...]


def mutants(source: str, seed: int = 0) -> list[Mutant]:
    """All mutants of a module, one for each place and kind of mistake: which one is drawn by the seed."""
    tree, random, found = ast.parse(source), Random(seed), []
    plain, modules, end = ast.unparse(tree), _imported_modules(tree), len(source.splitlines())
    for place in _places(tree, (), modules):
        mutated = _with(tree, place, random.choice(place.choices))
        if mutated == plain:
            continue
        line = next(node.lineno for _, _, node in reversed(place.path) if hasattr(node, "lineno"))
        at_import, span = _span(place, end)
        found.append(Mutant(place.kind, line, span, at_import, mutated, _diff(plain, mutated)))
    return found


def _places(
    owner: ast.AST, path: tuple[tuple[str, int | None, ast.AST], ...], modules: set[str]
) -> Iterator[_Place]:
    for field, value in ast.iter_fields(owner):
        nodes = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, node in nodes:
            if field in NEVER_RUN or not isinstance(node, ast.AST) or _is_for_typing(node):
                continue
            here = (*path, (field, index, node))
            for kind, choices in _changes(node, owner, modules):
                yield _Place(kind, here, tuple(choices))
            yield from _places(node, here, modules)


def _is_for_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imported_modules(tree: ast.AST) -> set[str]:
    """Names of modules: `torch.exp(x)` is called on x, `x.exp()` on what stands before the dot."""
    found = {"F"}  # torch.nn.functional
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    return found


def _with(tree: ast.AST, place: _Place, new: ast.AST) -> str:
    """The module with another node in a place; the tree stays as it was."""
    owner = place.path[-2][2] if len(place.path) > 1 else tree
    field, index, _ = place.path[-1]
    old = getattr(owner, field)
    setattr(owner, field, new if index is None else [*old[:index], new, *old[index + 1 :]])
    try:
        return ast.unparse(tree)
    finally:
        setattr(owner, field, old)


def _span(place: _Place, end: int) -> tuple[bool, tuple[int, int]]:
    """Whether a place runs when the module is imported, and the lines of `Mutant.span`."""
    at_import, span, owner = True, (1, end), None
    for field, _, node in place.path:
        if isinstance(owner, Function) and field == "body":
            at_import = False
        if at_import and isinstance(node, Function | ast.ClassDef):
            span = (node.lineno, node.end_lineno or node.lineno)
        if not at_import and isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            span = _own_lines(node)
        owner = node
    return at_import, span


def _own_lines(node: ast.stmt | ast.ExceptHandler | ast.match_case) -> tuple[int, int]:
    """Those of a statement, without the statements in it."""
    first = node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno
    if body := getattr(node, "body", None):
        return first, max(first, body[0].lineno - 1)
    return first, getattr(node, "end_lineno", None) or first


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in list(lines)[2:] if not line.startswith("@@"))


def _like(node: ast.AST, **changed: object) -> ast.AST:
    new = copy.copy(node)
    for field, value in changed.items():
        setattr(new, field, value)
    return new


def _negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _without(values: list[ast.expr]) -> list[list[ast.expr]]:
    return [values[:index] + values[index + 1 :] for index in range(len(values))]


def _changes(node: ast.AST, owner: ast.AST, modules: set[str]) -> Iterator[tuple[str, list[ast.AST]]]:
    """Kinds of mistake that can be made with a node, and for each what may stand in its place."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            yield "operator", [_like(node, op=new()) for new in ARITHMETIC[type(op)]]
            yield "operand", [left, right]
        case ast.AugAssign(op=op):
            yield "operator", [_like(node, op=new()) for new in ARITHMETIC[type(op)]]
        case ast.Compare(ops=[first, *others]):
            yield "comparison", [_like(node, ops=[new(), *others]) for new in COMPARISONS[type(first)]]
        case ast.BoolOp(op=op, values=values):
            yield "condition", [_like(node, op=ast.And() if isinstance(op, ast.Or) else ast.Or())]
            yield (
                "operand",
                [_like(node, values=some) if len(some) > 1 else some[0] for some in _without(values)],
            )
        case ast.UnaryOp(operand=operand):
            yield "sign", [operand]
        case ast.Constant(value=bool(value)):
            yield "constant", [ast.Constant(not value)]
        case ast.Constant(value=int() | float() as value):
            yield "constant", [ast.Constant(new) for new in {value + 1, value - 1, 0 * value} - {value}]
        case ast.Name(id=name) if name in OPPOSITES and isinstance(owner, ast.Call):
            yield "opposite", [_like(node, id=OPPOSITES[name])]
        case ast.Attribute(attr=name) if name in OPPOSITES and isinstance(owner, ast.Call):
            yield "opposite", [_like(node, attr=OPPOSITES[name])]
        case ast.Call(keywords=keywords):
            for index, keyword in enumerate(keywords):
                if keyword.arg:
                    yield "keyword", [_like(node, keywords=keywords[:index] + keywords[index + 1 :])]
            if not isinstance(owner, ast.Expr) and (argument := _argument(node, modules)):
                yield "call", [argument]
        case ast.Slice(lower=lower, upper=upper) if lower and upper:
            yield "slice", [_like(node, lower=None), _like(node, upper=None)]
        case ast.comprehension(ifs=[test, *others]):
            yield "condition", [_like(node, ifs=[_negated(test), *others])]
        case ast.ExceptHandler(type=ast.expr()):
            yield "exception", [_like(node, type=ast.Tuple([], ast.Load()))]
        case ast.Break():
            yield "statement", [ast.Continue()]
        case ast.Continue():
            yield "statement", [ast.Break()]
        case ast.Expr(value=value) if not isinstance(value, ast.Constant):
            yield "statement", [ast.Pass()]
        case ast.Raise() | ast.Delete():
            yield "statement", [ast.Pass()]
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement", [ast.Pass()]
        case ast.For():
            yield "loop", [_like(node, iter=ast.Tuple([], ast.Load()))]
    if isinstance(node, Conditional):
        yield "condition", [_like(node, test=_negated(node.test))]
    if isinstance(node, ast.AugAssign | ast.Assert):
        yield "statement", [ast.Pass()]
    if isinstance(node, Function | ast.ClassDef) and node.decorator_list:
        yield "decorator", [_like(node, decorator_list=some) for some in _without(node.decorator_list)]


def _argument(call: ast.Call, modules: set[str]) -> ast.expr | None:
    """What a call makes something else of: its first argument, or the object of a method."""
    root = call.func
    while isinstance(root, ast.Attribute):
        root = root.value
    if isinstance(call.func, ast.Attribute) and not (isinstance(root, ast.Name) and root.id in modules):
        return call.func.value
    return call.args[0] if call.args and not isinstance(call.args[0], ast.Starred) else None
