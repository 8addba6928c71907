"""Data sets of anybody: lists, folders, image files, annotations, pickles, idx files, archives."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hashrobust.datasets import flickr25k, nuswide

from .mutations import JUNK, examples, misshapen, mutated

EXIF = Image.Exif()
EXIF[0x0112] = 6


def noise(seed: int, mode: str = "RGB", size: tuple[int, int] = (11, 9)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


Image.init()
WRITTEN = {*Image.SAVE}
"""Some formats are not those of every Pillow."""
GREYS = Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (9, 11), dtype=np.uint16))
IMAGES = {
    "jpeg": encoded(noise(1), "JPEG", exif=EXIF),
    "progressive": encoded(noise(2), "JPEG", progressive=True),
    "cmyk": encoded(noise(3, "CMYK"), "JPEG"),
    "png": encoded(noise(4, "RGBA"), "PNG"),
    "palette": encoded(noise(5, "P"), "PNG", transparency=3),
    "sixteen": encoded(GREYS, "PNG"),
    "gif": encoded(noise(6), "GIF", save_all=True, append_images=[noise(7), noise(8)]),
    "webp": encoded(noise(9), "WEBP", save_all=True, append_images=[noise(10)]),
    "tiff": encoded(noise(11), "TIFF", compression="tiff_lzw"),
    "deflated": encoded(GREYS, "TIFF", compression="tiff_deflate"),
    "bmp": encoded(noise(12), "BMP"),
    "ico": encoded(noise(13, size=(32, 32)), "ICO"),
    "icns": encoded(noise(14, size=(32, 32)), "ICNS"),
    "ppm": encoded(noise(15), "PPM"),
    "tga": encoded(noise(16), "TGA", compression="tga_rle"),
    "jp2": encoded(noise(17), "JPEG2000"),
    "dds": encoded(noise(18), "DDS"),
    "pcx": encoded(noise(19), "PCX"),
    "sgi": encoded(noise(20), "SGI"),
    "dib": encoded(noise(21), "DIB"),
    "mpo": encoded(noise(22), "MPO", save_all=True, append_images=[noise(23)]),
    "animated": encoded(noise(24), "PNG", save_all=True, append_images=[noise(25), noise(26)]),
    "transparent": encoded(noise(27, "P"), "GIF", transparency=3),
    "packed": encoded(noise(28, "CMYK"), "TIFF", compression="packbits"),
    "in tiff": encoded(noise(29), "TIFF", compression="jpeg"),
    "lab": encoded(noise(30, "LAB"), "TIFF"),
    "bits": encoded(noise(31, "1"), "XBM"),
    "msp": encoded(noise(32, "1"), "MSP"),
    "dcx": struct.pack("<III", 987654321, 12, 0) + encoded(noise(34), "PCX"),
    "sun": struct.pack(">8I", 0x59A66A95, 11, 9, 24, 12 * 27, 1, 0, 0) + bytes(range(256)) + bytes(68),
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 11, 8, 3) + bytes(14) + bytes(range(256)) + bytes(41),
    "xpm": b'/* XPM */\nstatic char *x[] = {\n"2 2 2 1",\n"a c #FF0000",\n"b c #00FF00",\n"ab",\n"ba"};\n',
    "fits": b"".join(
        line.ljust(80)
        for line in (
            b"SIMPLE  =                    T", b"BITPIX  =                    8", b"NAXIS   =                    2",
            b"NAXIS1  =                   11", b"NAXIS2  =                    9", b"END",
        )
    ).ljust(2880) + bytes(range(99)),
    "flic": struct.pack("<IHHHHHHI", 200, 0xAF12, 1, 11, 9, 8, 3, 10).ljust(128, b"\0")
    + struct.pack("<IHH8x", 16 + 6 + 99, 0xF1FA, 1) + struct.pack("<IH", 6 + 99, 16) + bytes(range(99)),
} | {
    name: encoded(noise(seed, mode), name.upper())
    for seed, (name, mode) in enumerate({"avif": "RGB", "qoi": "RGBA", "blp": "P", "im": "RGB"}.items(), start=50)
    if name.upper() in WRITTEN
}  # fmt: skip


def check(found, *words: str) -> None:
    assert "value" in found or (found["code"] == 2 and any(word in found["refused"] for word in words)), found


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of five images; the first image of all is the one that tests change."""
    for number in range(10):
        path = tmp_path / "data" / ("duck", "goose")[number // 5] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(100 + number), "PNG"))
    return tmp_path / "data"


# Image files


@pytest.mark.parametrize("kind", [*IMAGES])
def test_whole_images_are_read(worker, folder, kind):
    (folder / "duck" / "0.png").write_bytes(IMAGES[kind])
    assert worker("data", f"folder:{folder}")["value"] == 10


@examples(80)
@given(data=st.data())
def test_changed_images(worker, folder, data):
    """What passes the check of headers and fails when it is decoded is refused by name."""
    content = data.draw(st.sampled_from([*IMAGES.values()]))
    (folder / "duck" / "0.png").write_bytes(data.draw(mutated(content)))
    check(worker("data", f"folder:{folder}"), "0.png")


def png(width: int, height: int, content: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (2**16, 2**16), (2**30, 1), (0, 0), (0, 7)])
def test_sizes_that_no_photograph_has(worker, folder, size):
    (folder / "duck" / "0.png").write_bytes(png(*size))
    assert worker("data", f"folder:{folder}")["value"] == 9


def test_a_line_of_pixels_is_not_enlarged(worker, folder):
    """Its short side enlarged to what a network sees, the long one would take gigabytes."""
    (folder / "duck" / "0.png").write_bytes(encoded(Image.new("L", (1, 60_000)), "PNG"))
    assert worker("data", f"folder:{folder}")["value"] == 9


@pytest.mark.parametrize("kind", ["PNG", "ICO", "GIF", "TIFF"])
def test_small_files_of_many_pixels(worker, folder, kind):
    """Of 65 million pixels and some kilobytes: decoded in bounded memory, or refused."""
    image = Image.new("1" if kind != "GIF" else "L", (8000, 8000))
    options = {"TIFF": {"compression": "group4"}}.get(kind, {})
    content = encoded(image, "PNG" if kind == "ICO" else kind, **options)
    if kind == "ICO":  # whose own header tells of 16 x 16 pixels
        content = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(content), 22) + content
    (folder / "duck" / "0.png").write_bytes(content)
    check(worker("data", f"folder:{folder}"), "0.png")


def test_names_of_folders_and_files_need_be_no_text(worker, folder):
    odd = folder.parent / "odd"
    shutil.copytree(folder / "duck", odd / os.fsdecode(b"\xff$\\frac$"))
    shutil.copytree(folder / "goose", odd / "[red]\n&<b>")
    assert worker("data", f"folder:{odd}")["value"] == 10


# Lists


def listed(folder: Path) -> dict[str, str]:
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    lines = [f"{name} {int(number < 5)} {int(number >= 5)}\n" for number, name in enumerate(names)]
    parts = {"train": [0, 5], "test": [1, 6], "database": [2, 4, 7, 9, 0, 5], "validation": [3, 8]}
    return {f"{part}.txt": "".join(lines[place] for place in places) for part, places in parts.items()} | {
        "classes.txt": "duck\ngoose\n"
    }


PATHS = st.sampled_from(
    [
        "../../etc/passwd",
        "/etc/passwd",
        "duck/../../x",
        ".",
        "..",
        "",
        "\0",
        "a" * 300,
        "duck",
        "loop",
        "out/x",
    ]
)


@examples(40)
@given(data=st.data())
def test_changed_lists(worker, folder, data):
    lists = listed(folder)
    (folder / "loop").unlink(missing_ok=True)
    (folder / "loop").symlink_to(folder / "loop")
    changed = data.draw(st.sampled_from([*lists]))
    for name, text in lists.items():
        content = text.encode()
        if name == changed:
            content = data.draw(
                st.one_of(
                    mutated(content), st.builds(lambda path, c=content: f"{path} 1 0\n".encode() + c, PATHS)
                )
            )
        (folder / name).write_bytes(content)
    check(worker("data", f"list:{folder}"), str(folder))


def test_lists_do_not_lead_out_by_a_link(worker, folder):
    secret = folder.parent / "secret.png"
    secret.write_bytes(encoded(noise(1), "PNG"))
    (folder / "link.png").symlink_to(secret)
    for name, text in listed(folder).items():
        (folder / name).write_text(text.replace("duck/2.png", "link.png"))
    assert "leaves the folder" in worker("data", f"list:{folder}")["refused"]


# Annotations of published sets, which jobs.py makes smaller


@pytest.fixture
def nus(tmp_path) -> Path:
    root = tmp_path / "nuswide"
    (root / "images").mkdir(parents=True)
    (root / "AllLabels").mkdir()
    (root / "Imagelist.txt").write_text("".join(f"x\\{number}.png\n" for number in range(12)))
    for place, concept in enumerate(nuswide.CONCEPTS):
        lines = [int(number and number % len(nuswide.CONCEPTS) == place) for number in range(12)]
        (root / "AllLabels" / f"Labels_{concept}.txt").write_text("".join(f"{line}\n" for line in lines))
    for number in range(12):
        (root / "images" / f"{number}.png").write_bytes(encoded(noise(number), "PNG"))
    return tmp_path


def test_the_whole_of_nuswide_is_read(worker, nus):
    assert worker("data", "nuswide", nus)["value"] == 11


@examples(40)
@given(
    data=st.data(),
    name=st.sampled_from(["Imagelist.txt", "AllLabels/Labels_sky.txt", "AllLabels/Labels_lake.txt"]),
)
def test_changed_texts_of_nuswide(worker, nus, data, name):
    file = nus / "nuswide" / name
    whole = file.read_bytes()
    try:
        file.write_bytes(data.draw(mutated(whole)))
        check(worker("data", "nuswide", nus), "nuswide", "NUS-WIDE")
    finally:
        file.write_bytes(whole)


@pytest.fixture
def flickr(tmp_path) -> Path:
    root = tmp_path / "flickr25k"
    (root / "annotations").mkdir(parents=True)
    (root / "mirflickr").mkdir()
    for place, name in enumerate(flickr25k.ANNOTATIONS):
        (root / "annotations" / f"{name}.txt").write_text(f"{place % 12 + 1}\n{(place + 5) % 12 + 1}\n")
    for number in range(1, 13):
        (root / "mirflickr" / f"im{number}.jpg").write_bytes(encoded(noise(number), "JPEG"))
    return tmp_path


def test_the_whole_of_flickr25k_is_read(worker, flickr):
    assert worker("data", "flickr25k", flickr)["value"] == 12 + 3


@examples(20)
@given(data=st.data())
def test_changed_texts_of_flickr25k(worker, flickr, data):
    file = flickr / "flickr25k" / "annotations" / f"{flickr25k.ANNOTATIONS[3]}.txt"
    file.write_bytes(data.draw(mutated(b"1\n12\n000000003\n")))
    check(worker("data", "flickr25k", flickr), "flickr25k")


def coco_of(images: range) -> dict[str, object]:
    return {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in images],
        "annotations": [{"image_id": number, "category_id": number % 2} for number in images],
        "categories": [{"id": 0, "name": "person"}, {"id": 1, "name": "toothbrush"}],
    }


@pytest.fixture
def coco(tmp_path) -> Path:
    root = tmp_path / "mscoco"
    (root / "annotations").mkdir(parents=True)
    for part, images in (("train", range(8)), ("val", range(8, 12))):
        (root / f"{part}2014").mkdir()
        (root / "annotations" / f"instances_{part}2014.json").write_text(json.dumps(coco_of(images)))
        for number in images:
            (root / f"{part}2014" / f"{number}.png").write_bytes(encoded(noise(number), "PNG"))
    return tmp_path


def test_the_whole_of_mscoco_is_read(worker, coco):
    assert worker("data", "mscoco", coco)["value"] == 12


@examples(60)
@given(data=st.data())
def test_annotations_of_another_shape(worker, coco, data):
    file = coco / "mscoco" / "annotations" / "instances_train2014.json"
    document = coco_of(range(8))
    file.write_text(json.dumps(data.draw(st.one_of(misshapen(document), misshapen(document), JUNK))))
    check(worker("data", "mscoco", coco), "mscoco")


@pytest.mark.parametrize("change", [("id", [1]), ("id", "0"), ("file_name", "\ud800"), ("file_name", "\0")])
def test_images_of_annotations_that_are_none(worker, coco, change):
    file = coco / "mscoco" / "annotations" / "instances_train2014.json"
    document = coco_of(range(8))
    document["images"][0][change[0]] = change[1]
    file.write_text(json.dumps(document))
    check(worker("data", "mscoco", coco), "mscoco")


# Pickles, records, idx files

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
BATCHES = [
    pickle.dumps(
        {b"batch_label": b"one", b"labels": [1, 9], b"data": PIXELS, b"filenames": [b"a", b"b"]}, protocol=n
    )
    for n in (0, 2, 3, 4)
]
OPCODES = [
    *(
        b"(",
        b")",
        b"]",
        b"}",
        b"t",
        b"l",
        b"d",
        b"a",
        b"e",
        b"s",
        b"u",
        b"\x85",
        b"\x86",
        b"\x87",
        b"R",
        b"b",
        b"\x93",
    ),
    *(
        b"q\0",
        b"h\0",
        b"\x94",
        b"K\1",
        b"N",
        b"U\1a",
        b"X\1\0\0\0a",
        b"C\1a",
        b"X\4\0\0\0data",
        b"X\6\0\0\0labels",
    ),
    *(
        b"cnumpy\ndtype\n",
        b"cnumpy\nndarray\n",
        b"cnumpy._core.multiarray\n_reconstruct\n",
        b"c_codecs\nencode\n",
    ),
    *(b"U\2u1", b"U\1b", b"X\6\0\0\0latin1", b"J\0\x0c\0\0", b"U\1=", b")q\0" + b"h\0\x86q\0" * 40),
]
HARMFUL = [
    *(b"cos\nsystem\n(S'true'\ntR", b"r\xff\xff\xff\xff", b"cnumpy\ndtype\nU\x02O8\x85R"),
    *(b"2", b"\x8f", b"\x81", b"b"),
]


@examples(150)
@given(data=st.data())
def test_changed_pickles(worker, tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(BATCHES)))
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(content)))
        content[place:place] = data.draw(st.sampled_from(HARMFUL)) * data.draw(st.sampled_from([1, 2, 40]))
    file = tmp_path / "batch"
    file.write_bytes(data.draw(mutated(bytes(content))))
    check(worker("cifar_file", file), "CIFAR")


@examples(50)
@given(codes=st.lists(st.sampled_from(OPCODES), max_size=30))
def test_pickles_of_any_instructions(worker, tmp_path, codes):
    file = tmp_path / "batch"
    file.write_bytes(b"\x80\4" + b"".join(codes) + b".")
    check(worker("cifar_file", file), "CIFAR")


@examples(30)
@given(data=st.data())
def test_changed_records(worker, tmp_path, data):
    file = tmp_path / "batch.bin"
    file.write_bytes(data.draw(mutated(b"\x01" + bytes(3072) + b"\x09" + bytes(3072))))
    check(worker("cifar_file", file), "CIFAR")


@examples(80)
@given(data=st.data(), packed=st.booleans())
def test_changed_idx_files(worker, tmp_path, data, packed):
    whole = b"\0\0\x08\x03" + struct.pack(">3I", 3, 4, 5) + bytes(60)
    if packed and data.draw(st.booleans()):
        content = gzip.compress(data.draw(mutated(whole)), mtime=0)
    else:
        content = data.draw(mutated(gzip.compress(whole, mtime=0) if packed else whole))
    file = tmp_path / ("images.gz" if packed else "images")
    file.write_bytes(content)
    check(worker("idx", file, 3), "idx")


def test_a_packed_idx_file_of_a_gigabyte_is_refused(worker, tmp_path):
    file = tmp_path / "images.gz"
    with gzip.open(file, "wb", compresslevel=1) as stream:
        stream.write(b"\0\0\x08\x02" + struct.pack(">2I", 2**15, 2**14))
        for _ in range(2**5):
            stream.write(bytes(2**24))
    assert "more than" in worker("idx", file, 2)["refused"]


# Archives


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind in (
            ("set", tarfile.DIRTYPE),
            ("set/a.txt", tarfile.REGTYPE),
            ("b.txt", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, 0 if kind == tarfile.DIRTYPE else 700
            archive.addfile(info, io.BytesIO(bytes(700)))
    return stream.getvalue()


def zipped(method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo("set/"), b"")
        for name in ("set/a.txt", "b.txt"):
            archive.writestr(zipfile.ZipInfo(name), bytes(700), method)
    return stream.getvalue()


ZIPS = [
    zipped(method)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
]
BAD_NAMES = [b"../", b"/etc", b"..", b"\0", b"C:/", b"a\\b", b"x" * 90, b"set", b"b.txt/"]


@examples(150)
@given(data=st.data(), kind=st.sampled_from(["zip", "tar.gz", "tar in gz"]))
def test_changed_archives(worker, tmp_path, data, kind):
    """Nothing is written outside of the folder, and nothing is left of what is refused."""
    content = data.draw(st.sampled_from(ZIPS)) if kind == "zip" else tarred()
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(BAD_NAMES))
        place = content.find(data.draw(st.sampled_from([b"set/a.txt", b"b.txt"])))
        content = content[:place] + name + content[place + len(name) :]
    if kind == "tar.gz":
        content = data.draw(mutated(gzip.compress(content, mtime=0)))
    else:
        content = data.draw(mutated(content))
        content = gzip.compress(content, mtime=0) if kind == "tar in gz" else content
    place = tmp_path / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    archive = place / f"a.{'zip' if kind == 'zip' else 'tar.gz'}"
    archive.write_bytes(content)
    folder = place / "folder"
    check(worker("unpacked", archive, folder), "archive", "in the way")
    assert {path.name for path in place.iterdir()} <= {archive.name, "folder"}
    assert not [path for path in folder.rglob("*") if path.is_symlink() or path.name.startswith(".unpacking")]


def test_methods_that_take_as_much_memory_as_a_header_says_are_refused(worker, tmp_path):
    content = bytearray(ZIPS[3])
    place = content.find(b"set/a.txt") + len("set/a.txt") + 4 + 1
    content[place : place + 4] = struct.pack("<I", 2**32 - 1)
    archive = tmp_path / "a.zip"
    archive.write_bytes(content)
    assert "another method" in worker("unpacked", archive, tmp_path / "folder")["refused"]
