"""Where outputs may be written, what each kind of output folder holds, and which paths stay inside a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from retrieval_prompts.errors import UserError


@dataclass(frozen=True)
class Kind:
    """What a folder of one kind of output holds: only such a folder is replaced.

    Args:
        needs: patterns of files; each such folder has one of each.
        may: patterns of what else it may hold. A "*" stands for any characters within one name.
    """

    needs: tuple[str, ...]
    may: tuple[str, ...] = ()

    def lacks(self, folder: Path) -> str | None:
        """The first pattern that no file of the folder has."""
        names = [path.name for path in folder.iterdir() if path.is_file()]
        return next((need for need in self.needs if not any(fnmatchcase(name, need) for name in names)), None)

    def strangers(self, folder: Path) -> list[str]:
        """What in the folder no such output holds, links included, sorted; empty folders count."""
        found = []
        for place, folders, files in os.walk(folder):
            here = Path(place).relative_to(folder)
            links = [name for name in folders if (Path(place) / name).is_symlink()]
            empty = [here.as_posix()] if here.parts and not (folders or files) else []
            names = [(here / name).as_posix() for name in (*files, *links)]
            found += [name for name in (*names, *empty) if not self._own(name)]
        return sorted(found)

    def _own(self, name: str) -> bool:
        parts = PurePosixPath(name).parts
        return any(
            len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))
            for wanted in (PurePosixPath(pattern).parts for pattern in (*self.needs, *self.may))
        )


PROMPTS = Kind(("prompt.json", "prompt.safetensors"), ("README.md", "prompt_encoder.safetensors"))
_INDEX = (
    "lists.ivf",
    "ids.json",
    "ids.npy",
    "documents.jsonl",
    "offsets.npy",
    "lines.npy",
    "chunks.npy",
    "chunks.json",
    "bm25/*.index.json",
    "bm25/*.index.npy",
    "bm25/words.json",
    "pictures/digests.npy",
)
INDEX = Kind(("manifest.json", "index.faiss"), _INDEX)
STORED = Kind(("manifest.json", "ids.json"), _INDEX)  # its vectors are elsewhere
RUNS = Kind(("results.json", "*.trec"), ("*.trec.gz", "*.qrels.tsv", "SHA256SUMS"))
ADAPTER = Kind(("adapter_config.json", "adapter_model.safetensors"), ("README.md", "SHA256SUMS"))
CLASSES = Kind(
    ("classes.json", "classes.safetensors"),
    ("SHA256SUMS", *(f"index/{name}" for name in (*INDEX.needs, *_INDEX))),
)
DATA = Kind(("corpus.jsonl", "queries.jsonl", "sources.json"), ("qrels", "qrels/*.tsv", "qrels/SHA256SUMS"))
_MODEL = ("*.json", "*.txt", "*.model", "model*.safetensors", "README.md", "*.py", "SHA256SUMS")
CHECKPOINT = Kind(("modules.json", "config_sentence_transformers.json"), (*_MODEL, "[0-9]_*/*", "[0-9][0-9]_*/*"))


def check_output(path: Path, *, overwrite: bool, holds: Kind | None = None) -> None:
    """Refuse an output that exists, unless `overwrite`, and one that cannot be written. Raises UserError.

    Args:
        holds: the output is a folder of this kind: one that lacks what each such folder has, or holds anything else,
            is a user's own and not replaced even with `overwrite`. None: the output is a file.
    """
    if path.exists():
        if not overwrite:
            raise UserError(f"{path} exists already; choose another name or pass --overwrite (overwrite=True)")
        if holds is None and path.is_dir():
            raise UserError(f"{path} is a folder; expected the name of a file")
        if holds is not None:
            _check_kind(path, holds)
    check_place(path)


def check_place(path: Path) -> None:
    """Raises UserError where nothing may be written."""
    parent = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if parent is None:
        raise UserError(f"{path} is not a name for an output; give the path to write to")
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"{path} cannot be written: {parent} is not a folder that you may write to")


def check_readable(folder: Path) -> None:
    """Raises UserError that names the first file of a folder which may not be read: libraries say anything of one."""
    for path in folder.rglob("*"):
        if not os.access(path, os.R_OK):
            raise UserError(f"{path} may not be read; ask its owner for permission")


def _check_kind(path: Path, holds: Kind) -> None:
    if path.is_dir() and not any(path.iterdir()):
        return
    lacks = holds.lacks(path) if path.is_dir() else holds.needs[0]
    if lacks is not None:
        raise UserError(f"{path} is not replaced, as it is something else: it holds no {lacks}; choose another name")
    if others := holds.strangers(path):
        raise UserError(f"{path} is not replaced, as it holds other things ({others[0]}); choose another name")


def inside(folder: Path, name: str) -> Path:
    """The path of a file that is named in a folder's description.

    Raises:
        UserError: where it is not a regular file, and where it leads out of the folder, by its name or by a link; the
            files of a hub's cache are links to their place in it, and may be.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise UserError(f"{folder} names the file {name!r}, which lies outside it; it is not read")
    real, home = (folder / path).resolve(), folder.resolve()
    cached = home.parent.name == "snapshots" and real.is_relative_to(home.parent.parent / "blobs")
    if not (real.is_relative_to(home) or cached):
        raise UserError(f"{folder / path} is a link to {real}, outside its folder; it is not read")
    check_regular(folder / path)
    return folder / path


def check_regular(path: Path) -> None:
    """Raises UserError for a pipe, a socket or a device, which may never end; not for what is not there."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is not a regular file but a pipe, a socket or a device; it is not read")


def default_cache() -> Path:
    """$RETRIEVAL_PROMPTS_CACHE, else retrieval-prompts in the user's cache folder."""
    if named := os.environ.get("RETRIEVAL_PROMPTS_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retrieval-prompts"
