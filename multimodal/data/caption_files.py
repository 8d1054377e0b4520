"""Files of captions as people write them -> a row a picture: its name, captions and split. Opens no picture."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from multimodal.data.images import LABEL
from multimodal.data.pictures import is_picture, walk
from multimodal.data.splits import SPLITS, split_name
from retrieval_prompts.data.csv_rows import csv_rows
from retrieval_prompts.data.lines import fields, json_object, json_rows, read_lines, read_text, string
from retrieval_prompts.errors import DataWarning, UserError, few

EXPECTED = (
    "captions as .json (COCO's, Karpathy's, a list), .jsonl, .csv or .tsv (image,caption), Flickr8k's .token, or a"
    " folder of pictures with a .txt each"
)
TABLES = (".csv", ".tsv", ".txt", ".token")
LINES = (".jsonl", ".ndjson")
BESIDE = ("metadata.jsonl", "metadata.csv")  # the list of a Hugging Face image folder
SEPARATORS = "\t,;|"
# What the name of a picture and its caption are called, the usual first
IMAGE = ("file", "image", "file_name", "filename", "image_name", "filepath", "file_path", "image_path", "path", "img")
CAPTION = ("captions", "caption", "text", "texts", "sentences", "sentence", "title", "comment", "raw", "description")
SHARD = re.compile(rf"\d+|images?|{'|'.join(SPLITS)}")  # a folder that says nothing about its pictures
NUMBERED = re.compile(r"#\d+$")  # Flickr8k's picture.jpg#0
COCO_FILES = ("{}.jpg", "{:012d}.jpg", *(f"COCO_{part}2014_{{:012d}}.jpg" for part in ("train", "val", "test")))
COCO_FOLDERS = ("", "train2014/", "val2014/", "train2017/", "val2017/")


class Row(NamedTuple):
    """What a file says of a picture; several rows may be of one.

    Args:
        where: file and place, for messages.
        image: its name, relative to the root.
        others: where else below the root it may be.
    """

    where: str
    image: str
    captions: list[str]
    split: str | None = None
    others: tuple[str, ...] = ()


def rows(path: Path) -> Iterator[Row]:
    """The rows of a file or folder; see `load_captions`.

    Raises:
        UserError: with file and line for what is malformed.
    """
    if path.is_dir():
        listed = [path / name for name in BESIDE if (path / name).is_file()]
        return rows(next(filter(_says_captions, listed), listed[0])) if listed else _pairs(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file; expected {EXPECTED}")
    kind = suffix(path)
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".json": _json,
        **dict.fromkeys(LINES, _json_lines),
        **dict.fromkeys(TABLES, _table),
    }
    if kind == ".tar":
        raise UserError(
            f"{path} is an archive; unpack it into a folder and pass that: pictures with a .txt each are read"
        )
    if kind not in readers:
        raise UserError(f"{path}: expected {EXPECTED}")
    return readers[kind](path)


def suffix(path: Path) -> str:
    """The extension in lower case, of what is gzipped the one before."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def is_captions(data: str) -> bool:
    """Whether it is a file of captions, by its name and, of a table, its first line; or a folder with captions."""
    path = Path(data)
    if path.is_dir():
        listed = [path / name for name in BESIDE if (path / name).is_file()]
        return any(_says_captions(file) for file in listed) or _has_texts(path)
    if suffix(path) in TABLES and path.is_file():
        return _says_captions(path)
    if suffix(path) in LINES and path.is_file():  # of labelled pictures, perhaps
        return _says_captions(path) or not _says_labels(path)
    return suffix(path) in (".json", ".tar", *LINES)  # an archive is refused as such


def _says_captions(path: Path) -> bool:
    _, line = next(read_lines(path), (1, ""))
    if suffix(path) in LINES:
        with contextlib.suppress(UserError):
            return any(name in json_object(line, f"{path}:1") for name in CAPTION)
        return False
    for separator in SEPARATORS:
        columns = _columns(line, separator)
        if "label" in columns:
            return False
        if "caption" in columns or (_alias(columns, IMAGE) and _alias(columns, CAPTION)):
            return True
    bare = _bare(line)
    return bare is not None and (suffix(path) != ".csv" or " " in line.split(bare, 1)[1].strip())


def _says_labels(path: Path) -> bool:
    """Whether the first object has a class and no caption."""
    _, line = next(read_lines(path), (1, ""))
    with contextlib.suppress(UserError):
        return any(name in json_object(line, f"{path}:1") for name in LABEL)
    return False


def _columns(line: str, separator: str) -> list[str]:
    return [name.strip().lower() for name in fields(line, separator)]


def _alias(names: Iterable[str], known: tuple[str, ...]) -> str | None:
    return next((name for name in known if name in names), None)


def _bare(line: str) -> str | None:
    """The separator of a table without a header: behind the name of a picture."""
    for separator in SEPARATORS:
        name, found, _ = line.partition(separator)
        if found and is_picture(NUMBERED.sub("", name.strip().strip('"'))):
            return separator
    return None


def _json(path: Path) -> Iterator[Row]:
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{") and getattr(error, "msg", "") == "Extra data":
            return _json_lines(path)
        raise UserError(f"{path} is not valid JSON ({error})") from None
    if isinstance(content, list):
        return _records((f"{path}: entry {number}", entry) for number, entry in enumerate(content))
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        if isinstance(content.get("annotations"), list):
            return _coco(path, content["images"], content["annotations"])
        return _karpathy(path, content["images"])
    if isinstance(content, dict) and content and all(_texts(value) is not None for value in content.values()):
        return (Row(f"{path}: {name}", name, _texts(value) or []) for name, value in content.items())
    raise UserError(
        f'{path}: expected Karpathy\'s {{"images": [...]}}, COCO\'s with "annotations" beside it, a list of objects, or'
        " an object of captions by picture"
    )


def _coco(path: Path, images: list[Any], annotations: list[Any]) -> Iterator[Row]:
    """images: [{"id", "file_name"}], annotations: [{"image_id", "caption"}] (Chen et al. 2015, "COCO Captions")."""
    names: dict[str, str] = {}
    splits: dict[str, str | None] = {}
    for number, entry in enumerate(images):
        where = f"{path}: images[{number}]"
        name = string(_object(entry, where), _alias(entry, ("file_name", *IMAGE)) or "file_name", where, empty=False)
        id = _identity(entry, "id", where)
        if names.setdefault(id, name) != name:
            raise UserError(f"{where}: the id {id} belongs to {names[id]} already")
        splits[id] = _split(entry.get("split"), where)
    captions: dict[str, list[str]] = {id: [] for id in names}
    strange: list[str] = []
    for number, entry in enumerate(annotations):
        where = f"{path}: annotations[{number}]"
        if "caption" not in _object(entry, where):
            hint = "; the file of captions is called captions_*.json" if "bbox" in entry else ""
            raise UserError(f'{where}: expected the field "caption", got only {", ".join(entry)[:80]}{hint}')
        caption, id = string(entry, "caption", where), _identity(entry, "image_id", where)
        strange += [id] * (id not in names)
        captions.setdefault(id, []).append(caption)
    bare = [names[id] for id in names if not captions[id]]
    if len(strange) == len(annotations):
        raise UserError(f"{path}: none of the {len(annotations)} annotations is of a picture in its images")
    for odd, message in ((strange, "captions of pictures that it does not list"), (bare, "pictures without a caption")):
        if odd:
            warnings.warn(f"{path}: left out {len(odd)} {message} ({few(odd)})", DataWarning, stacklevel=4)
    part = path.name.split(".")[0].rpartition("_")[2]  # captions_val2017.json is about val2017/*
    for id, name in names.items():
        if captions[id]:
            yield Row(f"{path}: image {id}", name, captions[id], splits[id], (f"{part}/{name}", Path(name).name))


def _identity(entry: dict[str, Any], key: str, where: str) -> str:
    return str(entry[key]) if type(entry.get(key)) is int else string(entry, key, where, empty=False)


def _karpathy(path: Path, entries: list[Any]) -> Iterator[Row]:
    """[{"filename", "sentences": [{"raw"}], "split"}], and maybe "filepath" (Karpathy and Fei-Fei 2015)."""
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries):
        where = f"{path}: images[{number}]"
        key = _alias(_object(entry, where), ("filename", "file_name")) or "filename"
        name = string(entry, key, where, empty=False)
        others: tuple[str, ...] = ()
        if "filepath" in entry:  # COCO's folder, which is often unpacked into one with the others
            others = (name,)
            name = (Path(string(entry, "filepath", where, empty=False)) / name).as_posix()
        if (first := seen.setdefault(name, number)) != number:
            raise UserError(f"{where}: {name} is images[{first}] already")
        captions = _texts(entry.get("sentences"))
        if captions is None:
            raise UserError(f'{where}: expected "sentences": [{{"raw": TEXT}}, ...]')
        yield Row(where, name, captions, _split(entry.get("split"), where), others)


def _json_lines(path: Path) -> Iterator[Row]:
    return _records((f"{path}:{number}", row) for number, row in json_rows(path))


def _records(entries: Iterable[tuple[str, Any]]) -> Iterator[Row]:
    """Objects with a picture and its captions, each with where it stands."""
    for where, entry in entries:
        key = _alias(_object(entry, where), IMAGE)
        others: tuple[str, ...] = ()
        if key is None and "image_id" in entry:
            name = _identity(entry, "image_id", where)
            others = _coco_places(name)
        else:
            name = string(entry, key or "file", where, empty=False)
        captions = _texts(entry.get(_alias(entry, CAPTION) or "captions"))
        if captions is None:
            came = repr(entry.get(_alias(entry, CAPTION) or "captions"))
            raise UserError(f'{where}: expected "captions": [TEXT, ...] or "caption": TEXT, got {came:.40}')
        yield Row(where, name, captions, _split(entry.get("split", entry.get("flickr8k_split")), where), others)


def _coco_places(id: str) -> tuple[str, ...]:
    """Where the picture of this id is in COCO's folders."""
    if not id.isdecimal():
        return (f"{id}.jpg",)
    return tuple(folder + file.format(int(id)) for folder in COCO_FOLDERS for file in COCO_FILES)


def _texts(given: Any) -> list[str] | None:
    """Captions from a text, a list of texts, or of objects with a text; None for anything else."""
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list):
        return None
    given = [each.get(_alias(each, ("raw", *CAPTION)) or "raw") if isinstance(each, dict) else each for each in listed]
    texts = [text for text in given if isinstance(text, str)]
    return texts if len(texts) == len(given) else None


def _table(path: Path) -> Iterator[Row]:
    _, line = next(read_lines(path), (1, ""))
    for separator in SEPARATORS:
        columns = _columns(line, separator)
        image, caption = _alias(columns, IMAGE), _alias(columns, CAPTION)
        if image is not None and caption is not None:
            return _with_header(path, image, caption, last=columns[-1] == caption)
    bare = _bare(line)
    if bare is None:
        return _with_header(path, "image", "caption", last=False)  # raises
    return _without_header(path, bare)


def _with_header(path: Path, image: str, caption: str, *, last: bool) -> Iterator[Row]:
    for number, row in csv_rows(path, (image, caption), ("split",), rest=last):
        where = f"{path}:{number}"
        if not (name := NUMBERED.sub("", row[image] or "")):
            raise UserError(f"{where}: the image is empty")
        yield Row(where, name, [row[caption] or ""], _split(row["split"], where))


def _without_header(path: Path, separator: str) -> Iterator[Row]:
    """Lines "picture.jpg#0<tab>caption", as Flickr8k and Flickr30k have them, or without the number."""
    for number, line in read_lines(path):
        name, *captions = fields(line, separator)
        if len(captions) > 1:
            captions = [line.partition(separator)[2]]
        if not captions or not name.strip():
            raise UserError(f"{path}:{number}: expected the name of a picture, a separator as on line 1, and a caption")
        yield Row(f"{path}:{number}", NUMBERED.sub("", name.strip()), [captions[0].strip()])


def _pairs(folder: Path) -> Iterator[Row]:
    """Pictures with a text file of the same name beside them, a caption a line, as img2dataset writes them."""
    bare: list[str] = []
    for picture in _pictures(folder):
        name = picture.relative_to(folder)
        text = picture.with_suffix(".txt")
        if text.is_file():
            split = SPLITS.get(name.parts[0].lower()) if len(name.parts) > 1 else None
            yield Row(str(text), name.as_posix(), [line for _, line in read_lines(text)], split)
        else:
            bare.append(name.as_posix())
    if bare:
        message = f"{folder}: left out {len(bare)} pictures without a .txt beside them ({few(bare)})"
        warnings.warn(message, DataWarning, stacklevel=3)


def _has_texts(folder: Path) -> bool:
    """Whether the first picture of a folder, which is not in that of a class, has words in a text file beside it."""
    picture = next(_pictures(folder), None)
    if picture is None or not all(SHARD.fullmatch(name.lower()) for name in picture.relative_to(folder).parts[:-1]):
        return False
    text = picture.with_suffix(".txt")
    return text.is_file() and any(re.search(r"[^\W\d_]", line) for _, line in read_lines(text))


def _pictures(folder: Path) -> Iterator[Path]:
    return (file for file in walk(folder) if is_picture(file.name))


def _object(entry: Any, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: expected an object, got {type(entry).__name__}")
    return entry


def _split(given: Any, where: str) -> str | None:
    """None for a picture that is in no split: no value, an empty one, or "none"."""
    return None if given in (None, "", "none") else split_name(str(given), where)
