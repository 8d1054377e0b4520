"""What classes are called: labelled pictures with the words that a class file says for their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from multimodal.data.class_files import check_names, names_of, read_names
from multimodal.data.images import ImageData, called, load_images, same_name
from multimodal.data.pictures import Picture
from retrieval_prompts.errors import UserError, few


def load_named(source: str, class_file: Path | None = None) -> ImageData:
    """`load_images`, with the classes called as the class file says.

    Without one, classes that begin with an id are called by what stands behind it, or as a file in the data's folder
    says (`names_of`).

    Raises:
        UserError: for what cannot be read, and for classes that are ids alone.
    """
    loaded = load_images(source)
    if class_file is not None:
        return renamed(loaded, read_names(class_file, loaded.classes))
    path = Path(source)
    names = names_of(loaded.classes, path if path.is_dir() else path.parent if path.is_file() else None)
    check_names(loaded.classes if names is None else names.values())
    return loaded if names is None else renamed(loaded, names)


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
