"""Every command of docs/your-images.md, in its order, on photographs cut into tiles; smaller, to take seconds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import matplotlib
import pytest
import sklearn.datasets
from PIL import Image

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "your-images.md"
TILE, TILES = 64, 20
SMALLER = {
    "data": ["--image-size", 8],
    "pretrain": ["--image-size", 8, "--epochs", 1, "--threads", 1],
    "finetune": ["--image-size", 8, "--epochs", 1, "--threads", 1],
    "attack": ["--queries", 4, "--steps", 2, "--threads", 1],
    "audit": ["--queries", 4, "--steps", 4, "--search", 4, "--threads", 1],
}
"""What is added to a command, where the last of two equal options counts."""


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    lines = re.sub(r"\\\n\s*", " ", "".join(blocks)).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("hashrobust ")]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiles of three real photographs, a class each, in the working directory."""
    monkeypatch.chdir(tmp_path)
    samples = Path(sklearn.datasets.__file__).parent / "images"
    places = [samples / "china.jpg", samples / "flower.jpg"]
    places.append(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    for place in places:
        folder = tmp_path / "photos" / place.stem
        folder.mkdir(parents=True)
        picture = Image.open(place).convert("RGB")
        corners = [
            (x, y)
            for y in range(0, picture.height - TILE + 1, TILE)
            for x in range(0, picture.width - TILE + 1, TILE)
        ]
        for x, y in corners[:TILES]:
            picture.crop((x, y, x + TILE, y + TILE)).save(folder / f"{x:04d}-{y:04d}.png")
    return tmp_path / "photos"


def test_the_five_commands_are_five() -> None:
    named = [words[0] for words in commands()]
    assert [name for name in named if name in ("pretrain", "finetune", "index", "attack", "audit")] == [
        *("pretrain", "finetune", "index", "attack", "audit")
    ]


def test_every_command_of_the_document_works(cli, photos: Path) -> None:  # type: ignore[no-untyped-def]
    listed = commands()
    assert len(listed) >= 8
    for words in listed:
        outcome = cli(*words, *SMALLER.get(words[0], []))
        assert outcome.code == 0, f"{shlex.join(words)}: {outcome.err}"
    results = photos.parent / "results"
    (audit,) = results.glob("folder-photos-resnet20-dpsh-*/audits/*/audit.json")
    assert '"verdict"' in audit.read_text()
    assert (photos.parent / "page.html").is_file() and (photos.parent / "found.png").is_file()
