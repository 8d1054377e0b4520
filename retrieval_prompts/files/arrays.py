"""Arrays in numpy's format, read strictly: never pickle, of one type, and no error of numpy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrieval_prompts.errors import first_line


def read_array(path: Path, kind: Any, ndim: int, *, mmap: bool = True) -> Any:
    """An array that is of this type and has so many dimensions; with `mmap` it stays on disk until it is read.

    Raises:
        ValueError: that names the file for anything else: numpy takes what begins as no array for pickle or a zip file,
            evaluates headers, and raises whatever comes of that; OSError for a file that cannot be read.
    """
    import numpy as np

    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
        found = mapped.view(np.ndarray) if mmap else np.array(mapped)  # a plain view, for a memmap is slow to slice
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path.name} is not an array ({first_line(error)})") from None
    if found.dtype != kind or found.ndim != ndim:
        raise ValueError(f"{path.name} is of type {found.dtype} and {found.ndim} dimensions")
    return found
