"""What classes are called: labelled pictures with the words that a class file says for their labels."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from multimodal.data.class_files import USUAL, WORDNET, check_names, names_of, read_names
from multimodal.data.images import ImageData, called, load_images, same_name
from multimodal.data.pictures import Picture
from retrieval_prompts.errors import DataWarning, UserError, few


def load_named(source: str, class_file: Path | None = None) -> ImageData:
    """`load_images`, with the classes called as the class file says.

    Without one, classes that begin with an id are called by what stands behind it, or as a file in the data's folder
    says (`names_of`); so are those that are numbers alone, where the file has as many names.

    Raises:
        UserError: for what cannot be read, and for classes that are ids alone.
    """
    loaded = load_images(source)
    if class_file is not None:
        given = read_names(class_file, loaded.classes)
        if len(given) < len(loaded.classes):
            given = fitted(read_names(class_file), loaded.classes, str(class_file)) or given
        return renamed(loaded, given)
    path = Path(source)
    names = names_of(loaded.classes, path if path.is_dir() else path.parent if path.is_file() else None)
    if names is None and path.is_dir() and all(each.isdecimal() for each in loaded.classes):
        names = _of_numbers(loaded.classes, path)
    check_names(loaded.classes if names is None else names.values())
    return loaded if names is None else renamed(loaded, names)


def _of_numbers(classes: Sequence[str], folder: Path) -> dict[str, str] | None:
    """The names of classes that are numbers, by a file of as many names in the data's folder; else None, and a warning:
    digits are numbers that say what a picture shows, and most others are not."""
    for file in (folder / name for name in USUAL):
        with contextlib.suppress(UserError):  # it may hold something else
            given = read_names(file)
            if len(given) == len(classes) and (found := fitted(given, classes, str(file))) is not None:
                return found
    message = f"{folder}: its classes are called by numbers, {few(classes)}; unless they are digits, say what they"
    warnings.warn(f"{message} show with --class-file, or in {USUAL[0]} in the data's folder", DataWarning, stacklevel=4)
    return None


def fitted(names: dict[str, str], classes: Sequence[str], where: str) -> dict[str, str] | None:
    """A class file of other labels than the data's -> class -> its name, where there is one way to read it; else None.

    A list may name the classes as they are, spelt as people do; count numbers that are the classes, 000 or 0; or give
    the names of all WordNet ids in their order, as lists of ImageNet's classes do.
    """
    spelt = {same_name(name): name for name in names.values()} | {same_name(key): name for key, name in names.items()}
    if all(same_name(each) in spelt for each in classes):
        return {each: spelt[same_name(each)] for each in classes}
    numbered = all(label.isdecimal() for label in names)
    by_number = {int(label): name for label, name in names.items()} if numbered else {}
    if all(each.isdecimal() for each in classes):
        if not numbered and all(label == name for label, name in names.items()):
            by_number = dict(enumerate(names.values(), min(1, *map(int, classes))))
        return {each: by_number[int(each)] for each in classes} if {*map(int, classes)} <= {*by_number} else None
    listed = numbered or all(label == name for label, name in names.items())
    if listed and len(names) == len(classes) and all(map(WORDNET.fullmatch, classes)):
        found = dict(zip(sorted(classes), names.values(), strict=True))
        example = f"{min(found)} is {found[min(found)]}"
        message = f"{where} says no ids; its names are taken in the order of the folders: {example}, and so on"
        warnings.warn(message, DataWarning, stacklevel=3)
        return found
    return None


def renamed(data: ImageData, names: dict[str, str]) -> ImageData:
    """The data with its classes called as `names` says.

    Raises:
        UserError: for a class without a name, and for two classes of one name.
    """
    if missing := [label for label in data.classes if label not in names]:
        raise UserError(f"the class file has no name for {few(missing)}; name every class of {data.name}")
    new = {label: names[label] for label in data.classes}
    times = Counter(map(same_name, new.values()))
    if twice := [name for name in new.values() if times[same_name(name)] > 1]:
        raise UserError(f"the class file gives several classes the name {few(twice)}; names must differ")
    return called(data, new)


def by_folder(pictures: Sequence[Picture], sources: Sequence[Path], classes: Sequence[str]) -> list[int] | None:
    """The class that the folder of each picture is called by, as a position in `classes`; None unless all have one.

    Args:
        sources: what the pictures were read from; folders above them say nothing.
    """
    numbers = {same_name(name): number for number, name in enumerate(classes)}
    roots = [path for path in sources if path.is_dir()]
    found = []
    for picture in pictures:
        file = picture.source
        root = next((root for root in roots if isinstance(file, Path) and file.is_relative_to(root)), None)
        if root is None or not isinstance(file, Path):
            return None
        folders = [root.resolve().name, *file.relative_to(root).parent.parts]
        known = [numbers[same_name(folder)] for folder in folders if same_name(folder) in numbers]
        if not known:
            return None
        found.append(known[-1])
    return found
