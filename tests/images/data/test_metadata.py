"""Sound pictures with broken metadata: they are read, and turned where their orientation can still be read."""

from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from toy_pictures import encoded

from multimodal.data.metadata import exif_of, orientation, without_metadata
from multimodal.data.pictures import decode
from retrieval_prompts.errors import UserError

Entry = tuple[int, int, int, int | bytes]  # tag, type, count, value
TURNED: Entry = (0x0112, 3, 1, 6)
PICTURE = Image.linear_gradient("L").resize((40, 24)).convert("RGB")
UPRIGHT = np.asarray(PICTURE.transpose(Image.Transpose.ROTATE_270))


def exif(*entries: Entry, order: str = "<") -> bytes:
    """An EXIF block of these entries, right or wrong."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    start, table, behind = 8 + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, count, value in entries:
        field = value if isinstance(value, bytes) else struct.pack(f"{order}HH", value, 0)
        if len(field) > 4:
            field, behind = struct.pack(f"{order}I", start + len(behind)), behind + field
        table += struct.pack(f"{order}HHI", tag, kind, count) + field.ljust(4, b"\0")
    return b"Exif\0\0" + head + table + bytes(4) + behind


BROKEN = {
    "no fault": exif(TURNED, (0x011A, 5, 1, struct.pack("<II", 72, 1))),
    "Motorola's order": exif(TURNED, order=">"),
    "a resolution of 0/0": exif(TURNED, (0x011A, 5, 1, bytes(8)), (0x0128, 3, 1, 2)),
    "a resolution in letters": exif(TURNED, (0x011A, 2, 6, b"72dpi\0")),
    "three resolutions": exif(TURNED, (0x011A, 5, 3, struct.pack("<6I", *range(6)))),
    "a resolution elsewhere": exif(TURNED, (0x011A, 5, 1, struct.pack("<I", 99999))),
    "an unknown type": exif(TURNED, (0x011A, 77, 1, 72)),
    "a maker in numbers": exif(TURNED, (0x010F, 3, 1, 7)),
    "a missing directory": exif(TURNED, (0x8769, 4, 1, struct.pack("<I", 99999))),
    "a directory in itself": exif(TURNED, (0x8769, 4, 1, struct.pack("<I", 8))),
    "an orientation in letters": exif((0x0112, 2, 2, b"6\0")),
    "a cut directory": exif(TURNED, (0x011A, 5, 1, struct.pack("<II", 72, 1)))[:-14],
}


def shown(content: bytes) -> np.ndarray:
    return np.asarray(decode(content, "x"))


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_read_and_turned_whatever_else_its_exif_holds(name: str, action: str, format: str) -> None:
    block = BROKEN[name]
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {"lossless": True}
    content = encoded(PICTURE, format, exif=block, **options)
    with warnings.catch_warnings():
        warnings.simplefilter(action)  # type: ignore[arg-type]
        found = shown(content)
    assert orientation(exif_of(content)) == 6
    assert np.abs(found.astype(int) - UPRIGHT).max() <= 1


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0junkjunkjunk",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        exif((0x0112, 3, 1, 99)),
        exif((0x0112, 3, 0, 6)),
        exif(),
    ],
)
def test_without_a_readable_orientation_a_picture_is_as_it_is_stored(block: bytes) -> None:
    assert orientation(block) is None
    for format in ("PNG", "WEBP"):
        assert np.array_equal(shown(encoded(PICTURE, format, exif=block, lossless=True)), np.asarray(PICTURE))
    assert shown(encoded(PICTURE, "JPEG", exif=block)).shape == (24, 40, 3)


def chunk(kind: bytes, data: bytes, *, checksum: int | None = None) -> bytes:
    crc = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"tEXt", b"Comment\0hello", checksum=1),
        chunk(b"iCCP", b"profile\0\0junk"),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**7))),
        chunk(b"pHYs", b"\0"),
        chunk(b"gAMA", b""),
        chunk(b"eXIf", BROKEN["a cut directory"][6:]),
    ],
    ids=["checksum", "profile", "large text", "resolution", "gamma", "EXIF"],
)
def test_other_chunks_of_a_png_never_cost_the_picture(odd: bytes) -> None:
    whole = encoded(PICTURE)
    content = whole[:33] + odd + whole[33:]  # behind the header
    turned = b"eXIf" in odd
    assert np.array_equal(shown(content), UPRIGHT if turned else np.asarray(PICTURE))
    assert without_metadata(content) == whole
    cut = bytearray(content)
    cut[cut.index(b"IDAT") + 20] ^= 0xFF  # a fault of the picture itself
    with pytest.raises(UserError, match="x cannot be read as a picture"):
        shown(bytes(cut))


@pytest.mark.parametrize(
    "value", [struct.pack("<HII", 2, 6, 8), struct.pack("<HII", 5, 1, 99999), struct.pack("<HII", 5, 9, 8)]
)
def test_a_tiff_with_a_broken_resolution(value: bytes) -> None:
    content = bytearray(encoded(PICTURE, "TIFF", dpi=(72, 72)))
    at = content.index(struct.pack("<HHI", 282, 5, 1))
    content[at + 2 : at + 12] = value
    assert np.array_equal(shown(bytes(content)), np.asarray(PICTURE))
    bare = without_metadata(bytes(content))
    assert bare is not None and np.array_equal(shown(bare), np.asarray(PICTURE))


def test_what_is_left_when_metadata_is_gone() -> None:
    for format in ("JPEG", "WEBP"):
        content = encoded(PICTURE, format, exif=exif(TURNED), icc_profile=b"x" * 200, xmp=b"<x/>", comment=b"hello")
        bare = without_metadata(content)
        assert bare is not None and len(bare) < len(content) - 200 and exif_of(bare) == b""
        stored = shown(content)
        assert np.array_equal(shown(bare), np.asarray(Image.fromarray(stored).transpose(Image.Transpose.ROTATE_90)))
    cmyk = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", exif=exif(TURNED))
    assert np.array_equal(shown(without_metadata(cmyk) or b""), shown(cmyk)), "Adobe's segment says what colours are"
    for nothing in (b"", b"GIF89a", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"II*\0"):
        assert without_metadata(nothing) is None and exif_of(nothing) == b""
