from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hashrobust.errors import InputError, UnknownNameError
from hashrobust.registry import Registry, did_you_mean, load_plugin


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[float]:
    """A registry over a package of its own: two components, and a private module that must not load."""
    folder = tmp_path / "shapes_for_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from hashrobust.registry import Registry\nshapes = Registry('shape', 'shapes_for_tests')\n"
    )
    register = "from shapes_for_tests import shapes\n@shapes.register('{0}')\n"
    (folder / "square.py").write_text(
        register.format("square")
        + "def square(*, side: float) -> float:\n    '''Sides alike.\n\n    Euclid.'''\n    return side**2\n"
    )
    (folder / "any.py").write_text(
        register.format("any") + "def any_shape(**sizes: float) -> float:\n    return sum(sizes.values())\n"
    )
    (folder / "_broken.py").write_text("raise RuntimeError('private modules are not imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("shapes_for_tests")]:
        monkeypatch.delitem(sys.modules, name)
    module = __import__("shapes_for_tests")
    registry: Registry[float] = module.shapes
    return registry


def test_names_are_found_sorted_and_described(shapes: Registry[float]) -> None:
    assert list(shapes) == ["any", "square"]
    assert "square" in shapes and "circle" not in shapes
    assert shapes.describe("square") == "Sides alike."
    assert shapes.describe("any") == ""
    assert list(shapes.parameters("square")) == ["side"]


def test_build_passes_parameters(shapes: Registry[float]) -> None:
    assert shapes.build("square", side=3.0) == 9.0
    assert shapes.build("any", a=1.0, b=2.0) == 3.0


def test_unknown_names_suggest_the_nearest(shapes: Registry[float]) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown shape 'Sqare': did you mean 'square'.*any, square"):
        shapes.build("Sqare")
    assert "did you mean" not in did_you_mean("zzz", ["square"])
    assert did_you_mean("hga", ["tha", "hag", "ha"]).startswith("did you mean 'hag'?")


def test_unknown_and_missing_parameters_are_named(shapes: Registry[float]) -> None:
    with pytest.raises(InputError, match="shape 'square' has no parameter 'sides': did you mean 'side'"):
        shapes.build("square", sides=3.0)
    with pytest.raises(InputError, match=r"shape 'square': missing.*'side'"):
        shapes.build("square")


def test_an_error_inside_a_component_is_not_taken_for_a_wrong_call(shapes: Registry[float]) -> None:
    with pytest.raises(TypeError):
        shapes.build("any", a="three")


def test_a_name_belongs_to_one_component(shapes: Registry[float]) -> None:
    assert "square" in shapes
    with pytest.raises(InputError, match="shape 'square' is registered already"):

        @shapes.register("square")
        def other(*, side: float) -> float:
            return side


def test_a_plugin_replaces_nothing_by_a_class_of_the_same_name(
    shapes: Registry[float], tmp_path: Path
) -> None:
    """Nor if it comes before the component that it would replace."""
    file = tmp_path / "my_square.py"
    file.write_text(
        "from shapes_for_tests import shapes\n@shapes.register('square')\ndef square(*, side: float) -> float:\n"
        "    return 0.0\n"
    )
    with pytest.raises(InputError, match="shape 'square' is registered already"):
        load_plugin(file)
    assert shapes.build("square", side=3.0) == 9.0


def test_a_refused_plugin_leaves_all_other_components(shapes: Registry[float]) -> None:
    with pytest.raises(InputError, match="shape 'any' is registered already"):
        shapes.register("any")(lambda: 0.0)
    assert list(shapes) == ["any", "square"]


def test_components_that_could_not_be_imported_are_asked_for_again(
    shapes: Registry[float], tmp_path: Path
) -> None:
    late = tmp_path / "shapes_for_tests" / "late.py"
    late.write_text("import not_there_yet\n")
    with pytest.raises(ModuleNotFoundError):
        list(shapes)
    (tmp_path / "not_there_yet.py").touch()
    importlib.invalidate_caches()
    assert list(shapes) == ["any", "square"]


def test_two_plugins_of_one_file_name_are_two(shapes: Registry[float], tmp_path: Path) -> None:
    text = "from shapes_for_tests import shapes\n@shapes.register('mine')\ndef mine() -> float:\n    return {0}\n"
    for number in (1, 2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "plugin.py").write_text(text.format(number))
    load_plugin(tmp_path / "1" / "plugin.py")
    with pytest.raises(InputError, match="shape 'mine' is registered already"):
        load_plugin(tmp_path / "2" / "plugin.py")
    assert shapes.build("mine") == 1


@pytest.mark.parametrize("postponed", [True, False])
def test_values_are_held_against_annotations_however_a_plugin_writes_them(
    shapes: Registry[float], tmp_path: Path, postponed: bool
) -> None:
    plugin = tmp_path / "annotated.py"
    plugin.write_text(
        ("from __future__ import annotations\n" if postponed else "")
        + "from shapes_for_tests import shapes\n@shapes.register('annotated')\n"
        "def annotated(*, side: float, corners: int | None = None) -> float:\n    return side\n"
    )
    load_plugin(plugin)
    assert shapes.build("annotated", side=2, corners=None) == 2
    with pytest.raises(InputError, match="side of shape annotated is 'two': give a number"):
        shapes.build("annotated", side="two")
    with pytest.raises(InputError, match=r"corners of shape annotated is 0\.5: give a whole number or none"):
        shapes.build("annotated", side=2.0, corners=0.5)


def test_plugins_register(shapes: Registry[float], tmp_path: Path) -> None:
    plugin = tmp_path / "circle.py"
    plugin.write_text(
        "from shapes_for_tests import shapes\n@shapes.register('circle')\ndef circle(*, r: float) -> float:\n"
        "    '''Round.'''\n    return 3 * r * r\n"
    )
    load_plugin(plugin)
    load_plugin(plugin)  # giving a plugin twice is no mistake
    assert shapes.build("circle", r=2.0) == 12.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a Python file"),
        ("def broken(:\n", "fails when imported.*SyntaxError"),
        ("1 / 0\n", "fails when imported.*ZeroDivisionError"),
        ("import not_there_at_all\n", "fails when imported.*ModuleNotFoundError"),
    ],
)
def test_plugins_that_do_not_load_say_why(content: str | None, message: str, tmp_path: Path) -> None:
    plugin = tmp_path / "bad.py"
    if content is not None:
        plugin.write_text(content)
    with pytest.raises(InputError, match=message):
        load_plugin(plugin)


def test_of_many_names_only_the_nearest_are_told() -> None:
    known = [f"name{number}" for number in range(100)]
    told = did_you_mean("nam7", known)
    assert told.startswith("did you mean 'name7'? known: name7, ") and told.endswith(" and 95 more")
    assert did_you_mean("zzz", known) == "known: name0, name1, name2, name3, name4 and 95 more"


@pytest.fixture
def families(shapes: Registry[float]) -> Registry[float]:
    @shapes.register_family("regular")
    def find(member: str) -> Callable[..., float]:
        """Polygons with equal sides."""
        if not member.isdigit():
            raise UnknownNameError(f"no polygon '{member}': give the number of its sides")
        return lambda side: int(member) * side

    return shapes


def test_members_of_a_family_are_found_but_not_listed(families: Registry[float]) -> None:
    assert families.build("regular:6", side=2.0) == 12.0
    assert families.families == {"regular:NAME": "Polygons with equal sides."}
    assert list(families) == ["any", "square"]
    assert "regular:5" in families and "regular:five" not in families
    with pytest.raises(InputError, match="shape 'regular' is registered already"):
        families.register_family("regular")(lambda member: sum)
    with pytest.raises(UnknownNameError, match="no polygon 'five'"):
        families.build("regular:five", side=1.0)
    with pytest.raises(UnknownNameError, match="unknown shape 'other:5'"):
        families.build("other:5", side=1.0)
