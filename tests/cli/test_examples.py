"""Every command that the documentation and the examples name has the options that they give it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from hashrobust.cli import app

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.sh"))]
END = re.compile(r"\s(\||>|2>|&&|;|#)(\s|$).*")


def commands(text: str) -> list[list[str]]:
    """The words of each command line that begins with `hashrobust`, and of each in back-quotes."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line.strip().removeprefix("$ ") for line in joined.splitlines()]
    found = [line for line in lines if re.match(r"hashrobust\s+-*[a-z]", line)]
    found += re.findall(r"`(hashrobust [^`]+)`", joined)
    return [shlex.split(END.sub("", line))[1:] for line in found]


CASES = [(path.relative_to(ROOT).as_posix(), words) for path in FILES for words in commands(path.read_text())]


def test_there_are_commands_to_check():
    files = {name for name, _ in CASES}
    assert {"README.md", "examples/demo.sh"} <= files


@pytest.mark.parametrize(("file", "words"), CASES, ids=lambda value: str(value)[:60])
def test_command_lines_parse(file, words):
    group = typer.main.get_command(app)
    if words[0].startswith("-"):
        known = {option for parameter in group.params for option in parameter.opts} | {"--help", "-h"}
        assert words[0] in known
        return
    assert words[0] in group.commands, f"{file} names a command that does not exist: {' '.join(words)}"
    command = group.commands[words[0]]
    context = command.context_class(command, info_name=words[0])
    command.make_parser(context).parse_args(words[1:])


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell(path):
    subprocess.run(["sh", "-n", str(path)], check=True, timeout=30)


def test_the_attack_of_the_documentation_works_as_a_plugin(results, tmp_path):
    section = (ROOT / "docs" / "adding.md").read_text().partition("## An attack")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    assert 10 < len(code.splitlines()) <= 30
    (name,) = re.findall(r'register\("(\w+)"\)', code)
    plugin = tmp_path / "plugin.py"
    plugin.write_text(code)
    command = [sys.executable, "-m", "hashrobust", "attack", "digits-lenet-dpsh", "--attack", name]
    command += [
        "--plugin",
        str(plugin),
        "--steps",
        "3",
        "--queries",
        "5",
        "--no-picture",
        "--results",
        str(results),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout
    assert list(results.glob(f"*/attacks/{name}-*/metrics.json"))
