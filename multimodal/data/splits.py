"""What lists of labelled pictures and lists of captions share: the names of splits."""

from __future__ import annotations

from multimodal.data.pictures import Picture
from retrieval_prompts.errors import UserError

Listing = dict[str, list[tuple[Picture, str]]]  # split -> pictures, each with the name of its class

# The names that data sets give their splits -> ours
SPLITS = {
    "train": "train",
    "training": "train",
    "restval": "train",  # Karpathy's COCO: validation pictures that are trained on
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_name(name: str, where: str) -> str:
    """A data set's name of a split -> "train", "val" or "test".

    Raises:
        UserError: that begins with `where`.
    """
    try:
        return SPLITS[name.strip().lower()]
    except KeyError:
        raise UserError(f"{where}: expected the split train, val (dev) or test, got {name!r}") from None
