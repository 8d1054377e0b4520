"""The pictures of an index, small and encoded anew: nothing of a file but its pixels goes out."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from multimodal.data.pictures import decode
from multimodal.vectors.image_index import ImageIndex

SIDE = 480  # longest side in pixels
QUALITY = 80
MOST = 64 << 20  # bytes that are kept


class Thumbnails:
    """Small JPEGs of pictures by their position in the index; those that were asked for last are kept.

    Args:
        images: the folder of the pictures; None: the one that the index names. Either way a file is only shown if it
            is the one that was indexed.
    """

    def __init__(self, index: ImageIndex, images: Path | None = None) -> None:
        self._index, self._images, self._lock = index, images, Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._size = 0

    def digest(self, position: int) -> str | None:
        """Of the picture's file, in hexadecimal digits; None in an index of before there were any."""
        digests = self._index.digests
        return None if digests is None else digests[position].tobytes().hex()

    def __call__(self, position: int) -> bytes:
        """Raises UserError where the picture is not there, or is another one than was indexed."""
        with self._lock:
            if position in self._kept:
                self._kept.move_to_end(position)
                return self._kept[position]
        image = decode(self._index.content(position, self._images), self._index.ids[position])
        image.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY)
        made = buffer.getvalue()
        with self._lock:
            self._size += len(made) - len(self._kept.pop(position, b""))
            self._kept[position] = made
            while self._size > MOST:
                self._size -= len(self._kept.popitem(last=False)[1])
        return made
