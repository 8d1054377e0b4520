"""What stands in a picture file beside the picture: which way up it is, and the file without all that. Knows no pixel.

Cameras and editors write tags that no decoder expects (a resolution in letters, an offset behind the end of the file).
They say nothing about the pixels, so a file that fails with them is tried once more without.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

EXIF = b"Exif\0\0"
ORIENTATION = 0x0112
JPEG, PNG, RIFF = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF"
EXIF_PARTS = (b"\xe1", b"eXIf", b"EXIF")
PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
WEBP_DROPPED = (b"EXIF", b"XMP ", b"ICCP")
WEBP_FLAGS = 0x2C  # of VP8X: that these chunks are there
JPEG_DROPPED = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})  # APP1 to 15 and comments, but not Adobe's, about colours
JPEG_SCAN = 0xDA
# What a TIFF reader needs to find the pixels and to understand them (TIFF 6.0), and which way up they are
TIFF_KEPT = frozenset({254, 255, *range(256, 260), 262, 266, 273, 274, *range(277, 280), 284, 292, 293, 317})
TIFF_KEPT |= {320, *range(322, 326), 332, 338, 339, 347, *range(529, 533)}


def orientation(exif: bytes) -> int | None:
    """The orientation, from 1 to 8, of an EXIF block, however broken its other tags are; None where there is none."""
    block = exif.removeprefix(EXIF)
    order, places = _entries(block)
    for at in places:
        tag, kind, count = struct.unpack_from(f"{order}HHI", block, at)
        if tag == ORIENTATION and count:
            value = block[at + 8 : at + 12]
            if kind == 2:  # a digit
                number = value[0] - ord("0")
            else:
                number = struct.unpack(f"{order}{'I' if kind == 4 else 'H2x'}", value)[0]
            return number if 1 <= number <= 8 else None
    return None


def exif_of(content: bytes) -> bytes:
    """The EXIF block of a JPEG, PNG or WebP file; empty where there is none that can be found."""
    blocks = (data for kind, data, _ in _parts(content) if kind in EXIF_PARTS)
    return next((data for data in blocks if data.startswith((EXIF, b"II", b"MM"))), b"")


def without_metadata(content: bytes) -> bytes | None:
    """A JPEG, PNG, WebP or TIFF file with its picture alone; None for any other, and for one that is not whole."""
    if content.startswith((b"II*\0", b"MM\0*")):
        return _bare_tiff(content)
    parts = list(_parts(content))
    if not parts:
        return None
    if content.startswith(PNG):
        return PNG + b"".join(raw for kind, _, raw in parts if kind in PNG_KEPT)
    if content.startswith(RIFF):
        body = b"WEBP" + b"".join(_without_flags(kind, raw) for kind, _, raw in parts if kind not in WEBP_DROPPED)
        return RIFF + struct.pack("<I", len(body)) + body
    return JPEG + b"".join(raw for kind, _, raw in parts if kind[0] not in JPEG_DROPPED)


def _parts(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(kind, data, all bytes) of the segments of a JPEG, or of the chunks of a PNG or WebP file, as far as they go."""
    if content.startswith(JPEG):
        return _segments(content)
    if content.startswith(PNG):
        return _chunks(content, len(PNG), order=">I4s", after=4)
    if content.startswith(RIFF) and content[8:12] == b"WEBP":
        return _chunks(content, 12, order="<4sI", after=0)
    return iter(())


def _segments(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The scan is one with all that follows."""
    at = len(JPEG)
    while at + 4 <= len(content) and content[at] == 0xFF:
        kind, length = struct.unpack_from(">cH", content, at + 1)
        if kind == b"\xff":  # filling
            at += 1
            continue
        end = len(content) if kind[0] == JPEG_SCAN else at + 2 + length
        yield kind, content[at + 4 : end], content[at:end]
        at = end


def _chunks(content: bytes, at: int, *, order: str, after: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """order: of length and kind; after: bytes of a checksum."""
    while at + 8 <= len(content):
        first, second = struct.unpack_from(order, content, at)
        kind, length = (second, first) if after else (first, second)
        end = at + 8 + length + (after or length % 2)
        yield kind, content[at + 8 : at + 8 + length], content[at:end]
        at = end


def _without_flags(kind: bytes, chunk: bytes) -> bytes:
    """WebP's header does not announce what was left out."""
    return chunk[:8] + bytes([chunk[8] & ~WEBP_FLAGS]) + chunk[9:] if kind == b"VP8X" and len(chunk) > 8 else chunk


def _entries(block: bytes) -> tuple[str, list[int]]:
    """(byte order, where the entries of the first directory stand) of what is built as a TIFF file."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2], "")
    if not order or len(block) < 8:
        return "<", []
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return order, []
    (count,) = struct.unpack_from(f"{order}H", block, start)
    places = [start + 2 + 12 * number for number in range(count)]
    return order, [place for place in places if place + 12 <= len(block)]


def _bare_tiff(content: bytes) -> bytes | None:
    """With a new directory at the end, of the entries about the pixels."""
    order, places = _entries(content)
    kept = [place for place in places if struct.unpack_from(f"{order}H", content, place)[0] in TIFF_KEPT]
    if not kept:
        return None
    padded = content + bytes(len(content) % 2)
    entries = b"".join(content[place : place + 12] for place in kept)
    directory = struct.pack(f"{order}H", len(kept)) + entries + bytes(4)
    return padded[:4] + struct.pack(f"{order}I", len(padded)) + padded[8:] + directory
