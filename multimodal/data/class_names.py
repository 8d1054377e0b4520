"""What classes are called: a file that says which word a folder's or label's class is written as in a prompt."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from multimodal.data.images import ImageData, called, same_name
from retrieval_prompts.data.lines import read_lines
from retrieval_prompts.errors import UserError, few


def read_names(path: Path) -> dict[str, str]:
    """A class file -> label -> name: on each line a label, a tab and its name, or the name alone, in order.

    Raises UserError with file and line for an empty name, a label that comes twice, and a file without names.
    """
    names: dict[str, str] = {}
    for number, line in read_lines(path):
        label, tab, name = line.strip("\r\n").partition("\t")
        label, name = label.strip(), (name if tab else label).strip()
        if not label or not name:
            raise UserError(f"{path}:{number}: expected a class name, or a label, a tab and its name")
        if label in names:
            raise UserError(f"{path}:{number}: the label {label!r} comes twice")
        names[label] = name
    if not names:
        raise UserError(f"{path} is empty; expected a class name on each line")
    return names


def renamed(data: ImageData, names: dict[str, str]) -> ImageData:
    """The data with its classes called as `names` says. Raises UserError for a class without a name, and for two
    classes of one name."""
    if missing := [label for label in data.classes if label not in names]:
        raise UserError(f"the class file has no name for {few(missing)}; name every class of {data.name}")
    new = {label: names[label] for label in data.classes}
    times = Counter(map(same_name, new.values()))
    if twice := [name for name in new.values() if times[same_name(name)] > 1]:
        raise UserError(f"the class file gives several classes the name {few(twice)}; names must differ")
    return called(data, new)
