"""Pictures: where their bytes are, and how the bytes become RGB. Knows no label, no model and no size."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from multimodal.data.metadata import ORIENTATION, exif_of, orientation, without_metadata
from retrieval_prompts.errors import DataWarning, UserError, few, first_line

# What Pillow reads; but no EPS and WMF, which start a program or ask the system, nor what is mostly no picture
FORMATS = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI"),
    *("TGA", "TIFF", "WEBP", "XBM"),
)
EXTENSIONS = frozenset(
    {".apng", ".avif", ".avifs", ".bmp", ".bw", ".dds", ".dib", ".gif", ".icns", ".ico", ".j2c", ".j2k", ".jfif"}
    | {".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".png", ".pnm"}
    | {".ppm", ".psd", ".qoi", ".rgb", ".rgba", ".sgi", ".tga", ".tif", ".tiff", ".webp", ".xbm"}
)
HEIF = (".heic", ".heif", ".hif")  # of phones; read where pillow-heif is installed
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
USUAL = (".jpg", ".png", ".webp", ".gif", ".tif")
HEIF_NEEDS = 'pip install "retrieval-prompts[heic]" reads it'
LITTER = ("thumbs.db", "desktop.ini")  # of a file manager
# What describes pictures and lies beside them
COMPANIONS = (".txt", ".csv", ".tsv", ".token", ".json", ".jsonl", ".ndjson", ".md", ".xml", ".yaml", ".yml", ".gz")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MOST = 1 << 30  # bytes of a file
ELONGATION = 200  # times as long as wide: scaling the short side to a model's would make such a strip huge


class TooManyPixels(UserError):
    """A picture that unpacks to more pixels than are read."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is read when asked for.

    Args:
        name: its path relative to the data's root, with "/", or its id there; unique within the data.
        source: a file, or a function that gives the bytes of one.
    """

    name: str
    source: Path | Callable[[], bytes]

    @property
    def place(self) -> str:
        """What messages call it: the path of its file, else its name."""
        return str(self.source) if isinstance(self.source, Path) else self.name

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            UserError: that names the picture, also for what is no file or holds over 1 GB.
        """
        try:
            return _content(self.source) if isinstance(self.source, Path) else self.source()
        except OSError as error:
            raise UserError(f"{self.place} cannot be read ({error.strerror or error})") from None

    def load(self) -> Image.Image:
        """The picture in RGB; see `decode`. Raises UserError."""
        return decode(self.read(), self.place)


def _content(path: Path) -> bytes:
    """A file's bytes. A pipe would never end, and a link may lead to a device that does not either."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} cannot be read as a picture (it is not a file)")
    if found.st_size > MOST:
        raise UserError(
            f"{path} cannot be read as a picture (it has {found.st_size >> 20:,} MB, more than {MOST >> 20:,})"
        )
    return path.read_bytes()


def decode(content: bytes, place: str, most: int | None = None) -> Image.Image:
    """Bytes of a picture file -> RGB, as a viewer shows it.

    The first frame, turned as its EXIF says, what is transparent over white, 16 bits a channel scaled to 8. Metadata
    that is broken never costs the picture.

    Args:
        most: pixels; None: `PIL.Image.MAX_IMAGE_PIXELS`, which is the most in any case. A few bytes can unpack to more
            than the memory holds.

    Raises:
        UserError: that names `place` for bytes that are no whole picture, and for one that is too elongated or, as
            TooManyPixels, too large.
    """
    try:
        return _decoded(content, most)
    except (TooManyPixels, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixels(f"{place} cannot be read as a picture ({first_line(error)})") from None
    except UserError as error:
        reason = str(error)
    except UnidentifiedImageError:
        reason = f"it is not one of {', '.join(FORMATS)}" if content else "it is empty"
    except Exception as error:  # Pillow's decoders raise whatever the bytes make them stumble on
        reason = first_line(error)
    bare = without_metadata(content)
    if bare is not None:
        with contextlib.suppress(Exception):
            return _decoded(bare, most, orientation(exif_of(content)))
    raise UserError(f"{place} cannot be read as a picture ({reason})")


def _decoded(content: bytes, most: int | None = None, turn: int | None = None) -> Image.Image:
    """turn: the orientation, where the file has none of its own."""
    with Image.open(io.BytesIO(content), formats=_formats(content)) as image:
        _check_size(*image.size, most)
        image.load()
        turns = TURNS.get(turn or _orientation(image) or 1)
        return rgb(image if turns is None else image.transpose(turns))


def _formats(content: bytes) -> tuple[str, ...]:
    """Those that these bytes may be of. Raises UserError for HEIC without what reads it."""
    box = content[8 : int.from_bytes(content[:4])] if content[4:8] == b"ftyp" else b""
    if box[:4] not in HEIF_BRANDS or b"avif" in box:
        return FORMATS
    if not reads_heif():
        raise UserError(f"it is HEIC: {HEIF_NEEDS}")
    import pillow_heif

    pillow_heif.register_heif_opener()  # turns the picture as its file says
    return ("HEIF",)


@functools.cache
def reads_heif() -> bool:
    """Whether pictures of phones in HEIC can be read."""
    return importlib.util.find_spec("pillow_heif") is not None


def _orientation(image: Image.Image) -> int | None:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # one broken tag, and Pillow gives none
        return orientation(image.info.get("exif", b""))


def load_pictures(source: str | Path | Sequence[str | Path]) -> list[Picture]:
    """The pictures of a folder and of the folders in it, or the given files, or a mixture; without labels.

    A folder gives its files with a picture's extension, sorted by name and without hidden ones; named relative to the
    folder if it is the only source. Others, but texts and lists, are counted in a DataWarning. A file is taken whatever
    its extension is, and once if it is given twice.

    Raises:
        UserError: for what does not exist, and if there is no picture at all.
    """
    alone = isinstance(source, str | Path)
    sources = [Path(source)] if isinstance(source, str | Path) else [Path(one) for one in source]
    pictures: dict[str, Picture] = {}
    others: list[str] = []
    for path in sources:
        if path.is_dir():
            for file in walk(path):
                name = (file.relative_to(path) if alone else file).as_posix()
                if is_picture(file.name):
                    pictures.setdefault(name, Picture(name, file))
                elif file.suffix.lower() not in COMPANIONS:
                    others.append(name)
        elif path.is_file():
            name = path.name if alone else path.as_posix()
            pictures.setdefault(name, Picture(name, path))
        else:
            raise UserError(f"{path} does not exist; expected a picture or a folder of pictures")
    if not pictures:
        where = ", ".join(str(path) for path in sources[:3]) or "an empty list"
        raise UserError(f"no picture found in {where}; expected files that end in {extensions()}")
    if others:
        warnings.warn(left_out(", ".join(map(str, sources[:3])), others), DataWarning, stacklevel=2)
    return list(pictures.values())


def short_names(names: Sequence[str]) -> list[str]:
    """What tells files apart at a glance: their own names, and the folder too of those that share one.

    >>> short_names(["train/cat/1.png", "train/dog/1.png", "train/dog/rex.png"])
    ['cat/1.png', 'dog/1.png', 'rex.png']
    """
    parts = [name.split("/") for name in names]
    times = Counter(part[-1] for part in parts)
    return ["/".join(part[-1 if times[part[-1]] == 1 else -2 :]) for part in parts]


def left_out(place: str, names: Sequence[str]) -> str:
    """What is said of files that are no pictures."""
    kinds = Counter(os.path.splitext(name)[1].lower() or "no extension" for name in names)
    said = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    message = f"{place}: left out {len(names)} files whose names are not those of pictures, {said} ({few(names)})"
    heif = any(name.lower().endswith(HEIF) for name in names)
    return f"{message}; of HEIC, {HEIF_NEEDS}" if heif and not reads_heif() else message


def extensions() -> str:
    """For messages: the extensions that make a file in a folder a picture."""
    return f"{', '.join(USUAL)} or another extension that Pillow reads"


def is_picture(name: str) -> bool:
    """Whether a file of this name is a picture: by its extension, and not if it is hidden."""
    ending = os.path.splitext(name)[1].lower()
    return not name.startswith(".") and (ending in EXTENSIONS or (ending in HEIF and reads_heif()))


def walk(folder: Path) -> Iterator[Path]:
    """The files of a folder, then those of the folders in it, sorted by name; without hidden ones.

    Links are followed, but into no folder twice.
    """
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(parent, name) for name in sorted(files) if not (name.startswith(".") or name.lower() in LITTER)
        )


def _check_size(width: int, height: int, most: int | None) -> None:
    limits = [limit for limit in (most, Image.MAX_IMAGE_PIXELS) if limit is not None]
    if limits and width * height > min(limits):
        raise TooManyPixels(f"{width} x {height} pixels, more than {min(limits):,}; scale it down")
    if max(width, height) > ELONGATION * min(width, height):
        raise ValueError(f"{width} x {height} pixels, more than {ELONGATION} times as long as wide")


def rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Gray in more than 8 bits -> 8 bits. `convert` would clip what is above 255 to white."""
    values = np.asarray(image, dtype=np.float32)
    highest = float(values.max())
    if image.mode == "F" and highest <= 1:
        full = 1.0
    elif image.mode.startswith("I;16"):
        full = 65535.0
    else:  # 32 bits: of the usual ranges the least that holds the values
        full = next((limit for limit in (255.0, 65535.0) if highest <= limit), highest)
    return Image.fromarray((values.clip(0, full) * (255 / full)).round().astype(np.uint8))
