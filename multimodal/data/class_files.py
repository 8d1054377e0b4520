"""Files that say what classes are called -> label -> name. Knows no pictures.

ImageNet labels its classes by WordNet's ids, n01440764, and names each by its synonyms, "tench, Tinca tinca".
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from retrieval_prompts.data.lines import fields, read_lines
from retrieval_prompts.errors import DataWarning, UserError, few, first_line

# What files of names are called in the folder of the data, or the one above
USUAL = (
    *("classnames.txt", "LOC_synset_mapping.txt", "synset_words.txt", "imagenet_class_index.json", "words.txt"),
    *("class_names.txt", "classnames.json", "classes.txt", "labels.txt"),
)
WORDNET = re.compile(r"n\d{8}")
NAMED_ID = re.compile(rf"({WORDNET.pattern})\s*[\s,:;]\s*(\S.*)")
BEHIND_WORDNET = re.compile(rf"{WORDNET.pattern}[\s_-]+(\S.*)")
BEHIND_NUMBER = re.compile(r"\d{3}\.([^\W\d].*)")
NUMBERED = re.compile(r"(\d+)\s*[\s,:;]\s*(\S.*)")
LABEL_COLUMNS = ("label", "id", "class_id", "wnid", "synset", "folder", "index", "class")
NAME_COLUMNS = ("name", "class_name", "classname", "words", "text", "title", "names")
HOLDERS = ("classes", "names", "id2label", "categories", "labels")  # of the list, in a larger file
EXAMPLE = "n01440764, a tab, tench"

Labelled = tuple[str, str, str]  # where it stands, label, name


def read_names(path: Path, only: Collection[str] | None = None) -> dict[str, str]:
    """A class file -> label -> name, in its order.

    On each line a label, a tab and its name; a WordNet id or a number, and the name, as ImageNet's and CoOp's files
    have it; or the name alone. Or CSV (label,name), or JSON: a list of names, or an object of them. Of the synonyms of
    a WordNet id the first is its name, or the first that no other has.

    Args:
        only: the labels to take; None: all.

    Raises:
        UserError: with file and line for an empty name, a label that comes twice, a WordNet id without a name, and a
            file without names.
    """
    names: dict[str, str] = {}
    for where, label, name in _rows(path):
        if not label or not name:
            raise UserError(f"{where}: expected a class name, or a label, a tab and its name")
        if WORDNET.fullmatch(name):
            raise UserError(f"{where}: {name} is a WordNet id and no name; write {EXAMPLE}")
        if label in names:
            raise UserError(f"{where}: the label {label!r} appears twice")
        names[label] = name
    if not names:
        raise UserError(f"{path} is empty; expected a class name on each line")
    names = {label: name for label, name in names.items() if only is None or label in only}
    return _first_synonyms(str(path), names, list(filter(WORDNET.fullmatch, names)))


def check_names(names: Iterable[str]) -> None:
    """Raises UserError for classes that are called by WordNet's ids."""
    if ids := [name for name in names if WORDNET.fullmatch(name)]:
        raise UserError(
            f"{len(ids)} classes are called by WordNet's ids, {few(ids)}, which say nothing to a text tower; write a"
            f" file of their names ({EXAMPLE}) and pass it as --class-file, or put it into the data's folder as"
            f" {USUAL[0]}"
        )


def names_of(labels: Collection[str], folder: Path | None) -> dict[str, str] | None:
    """The names of labels that begin with an id, all of them; None for any others.

    n02085620-Chihuahua and 001.ak47 (Stanford Dogs, Caltech-256) have theirs behind it; those of WordNet's ids alone
    are looked for in a file in their folder or the one above.
    """
    for known in (BEHIND_WORDNET, BEHIND_NUMBER):
        matches = {label: known.fullmatch(label) for label in labels}
        found = {label: match[1] for label, match in matches.items() if match}
        if len(found) == len(labels):
            return _first_synonyms("the data", found, labels)
    if folder is None or not all(map(WORDNET.fullmatch, labels)):
        return None
    for place in (folder, folder.resolve().parent):
        for name in USUAL:
            with contextlib.suppress(UserError):  # it may hold something else
                found = read_names(place / name, labels)
                if len(found) == len(labels):
                    return found
    return None


def _first_synonyms(where: str, names: dict[str, str], ids: Collection[str]) -> dict[str, str]:
    """The names, of the labels that are `ids` the first synonym that no other has, or a number behind it."""
    taken = {name for label, name in names.items() if label not in ids}
    found: dict[str, str] = {}
    again: list[str] = []
    for label, name in names.items():
        if label in ids:
            synonyms = [each.strip() for each in name.split(",") if each.strip()] or [name]
            free = [each for each in synonyms if each not in taken]
            number = 2
            while not free:  # two cranes, that of the bird and that of the building site
                free = [each for each in [f"{synonyms[0]} {number}"] if each not in taken]
                number += 1
            again += [free[0]] * (free[0] not in synonyms)
            taken.add(free[0])
            name = free[0]
        found[label] = name
    if again:
        message = f"{where} has classes of one name; the later ones are called {few(again)} here"
        warnings.warn(message, DataWarning, stacklevel=3)
    return found


def _rows(path: Path) -> Iterator[Labelled]:
    lines = list(read_lines(path))
    start = lines[0][1].lstrip() if lines else ""
    text = "".join(line for _, line in lines)
    if lines and path.suffix.lower() in (".yaml", ".yml"):
        return _json(path, _yaml(path, text))
    if lines and path.suffix.lower() == ".json":
        return _json(path, _parsed(path, text))
    if start.startswith(("{", "[")):
        with contextlib.suppress(UserError):  # a name may begin so too
            return _json(path, _parsed(path, text))
    if path.suffix.lower() == ".csv":
        return _without_header(_csv(path, lines))
    numbered = [NUMBERED.fullmatch(line.strip()) for _, line in lines]
    numbers = [int(match[1]) for match in numbered if match]
    if len(numbers) == len(lines) > 1 and numbers in (list(range(len(lines))), list(range(1, len(lines) + 1))):
        return ((f"{path}:{at}", match[1], match[2]) for (at, _), match in zip(lines, numbered, strict=True) if match)
    return _without_header(_line(f"{path}:{number}", line) for number, line in lines)


def _line(where: str, line: str) -> Labelled:
    label, tab, name = line.strip("\r\n").partition("\t")
    if not tab and (match := NAMED_ID.fullmatch(line.strip())):
        return where, match[1], match[2]
    return where, label.strip(), (name if tab else label).strip()


def _csv(path: Path, lines: list[tuple[int, str]]) -> Iterator[Labelled]:
    separator = next((each for each in ",;\t" if lines and each in lines[0][1]), ",")
    for number, line in lines:
        columns = [column.strip() for column in fields(line, separator)]
        if len(columns) > 2:
            if not WORDNET.fullmatch(columns[0]):
                raise UserError(f"{path}:{number}: expected label,name, got {len(columns)} values: {line.strip():.60}")
            columns = [columns[0], ", ".join(columns[1:])]
        yield f"{path}:{number}", columns[0], columns[-1]


def _without_header(rows: Iterable[Labelled]) -> Iterator[Labelled]:
    for number, (where, label, name) in enumerate(rows):
        one = label == name and where.rpartition(":")[0].lower().endswith(".csv")
        known = (*LABEL_COLUMNS, *NAME_COLUMNS) if one else LABEL_COLUMNS
        if number or label.lower() not in known or (name.lower() not in NAME_COLUMNS and not one):
            yield where, label, name


def _parsed(path: Path, text: str) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: for what is none, and for anything but a list or an object.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        try:  # as Python writes a dictionary
            content = ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise UserError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(content, list | dict) or not content:
        raise UserError(f"{path}: expected a list of class names, or an object of them, got {content!r:.40}")
    return content


def _yaml(path: Path, text: str) -> Any:
    """The content of a YAML file, as YOLO has one. Raises UserError."""
    import yaml

    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML ({first_line(error)})") from None
    if not isinstance(content, list | dict) or not content:
        raise UserError(f"{path}: expected a list of class names, or an object of them, got {content!r:.40}")
    return content


def _json(path: Path, content: Any) -> Iterator[Labelled]:
    if isinstance(content, dict):
        known = [content[key] for key in HOLDERS if isinstance(content.get(key), list | dict)]
        content = known[0] if known else content
    if isinstance(content, dict) and content and all(type(value) is int for value in content.values()):
        content = sorted(content, key=content.__getitem__)  # name -> number
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in entries:
        label, name = _entry(str(key), value, listed=isinstance(content, list))
        if label is None or name is None:
            message = f"{path}: {key}: expected a class name, or a label and its name, got {value!r:.40}"
            raise UserError(message)
        yield f"{path}: {key}", label.strip(), name.strip()


def _entry(key: str, value: Any, *, listed: bool) -> tuple[str | None, str | None]:
    """(label, name) of an entry of a list or an object."""
    if isinstance(value, str):
        return (value if listed else key), value
    if isinstance(value, dict):
        label, name = (
            next((value[each] for each in known if each in value), None) for known in (LABEL_COLUMNS, NAME_COLUMNS)
        )
        return (None if label is None else str(label)), (name if isinstance(name, str) else None)
    if isinstance(value, list | tuple) and value and all(isinstance(each, str) for each in value):
        if len(value) == 2 and (listed or WORDNET.fullmatch(value[0])):  # imagenet_class_index.json
            return value[0], value[1].replace("_", " ")
        return (value[0] if listed else key), ", ".join(value)
    return None, None
