"""What lies at a path, and whether it is as it was written: a verdict on each artifact, by its checksums."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_prompts.errors import UserError, first_line

Check = Callable[[Path], bool]  # True: sound; False: it has no checksums; UserError: what is wrong
RUNS, RANKED = "runs", (".trec", ".trec.gz", ".qrels.tsv")
BLOCK = re.compile(r"[0-9a-f]{64}\.npy")


@dataclass(frozen=True)
class Verdict:
    """What was found of one artifact.

    Args:
        sound: None: nobody can tell.
        reason: what is wrong with one that is not sound, or why nobody can tell.
    """

    path: Path
    kind: str
    sound: bool | None
    reason: str = ""

    def line(self) -> str:
        """For people."""
        if self.sound is None:
            return f"{self.path}: {self.kind}, cannot be checked: {self.reason or 'written without checksums'}"
        return f"{self.path}: {self.kind}, " + ("sound" if self.sound else f"NOT SOUND: {self.reason}")


def verdicts(path: Path, more: tuple[tuple[str, str, Check], ...] = ()) -> Iterator[Verdict]:
    """The verdicts on an artifact, or on all artifacts in a folder.

    Args:
        more: (pattern of a file's name, kind, check) of kinds that this package does not know.

    Raises:
        UserError: for a path that does not exist.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_dir():
        yield from _folders(path, more)
    else:
        found = _file(path, more)
        yield found if found is not None else Verdict(path, "file", False, "it is not an artifact of this package")


def _folders(path: Path, more: tuple[tuple[str, str, Check], ...]) -> Iterator[Verdict]:
    kind = None
    for marker, kind, check in FOLDERS:
        if (path / marker).is_file():
            yield _verdict(path, kind, check)
            if kind != RUNS:  # a benchmark holds prompts too
                return
            break
    else:
        kind = None
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _folders(path / entry.name, more)
        elif (path / entry.name).is_dir():  # entry.is_dir() fails at a link to itself
            yield Verdict(path / entry.name, "folder", None, "a link, which is not followed; name it to look there")
        elif not (kind == RUNS and entry.name.endswith(RANKED)) and (found := _file(path / entry.name, more)):
            yield found


def _file(path: Path, more: tuple[tuple[str, str, Check], ...]) -> Verdict | None:
    if BLOCK.fullmatch(path.name):
        return _verdict(path, "cached vectors", _block)
    if path.name.endswith((".partial", ".partial.2")) or ".partial.fold" in path.name:
        return _verdict(path, "checkpoint", _checkpoint)
    if path.name.endswith(RANKED):
        return _verdict(path, "run" if ".trec" in path.name else "judgements", _listed)
    for pattern, kind, check in more:
        if fnmatch.fnmatchcase(path.name, pattern):
            return _verdict(path, kind, check)
    return None


def _verdict(path: Path, kind: str, check: Check) -> Verdict:
    try:
        _check_regular(path)
        return Verdict(path, kind, True if check(path) else None)
    except (UserError, OSError) as error:
        return Verdict(path, kind, False, first_line(error))


def _check_regular(artifact: Path) -> None:
    """Raises UserError for a pipe, a socket or a device in place of a file of an artifact."""
    from retrieval_prompts.files import check_regular

    for path in (artifact, *sorted(artifact.rglob("*"))):
        check_regular(path)


def _prompts(folder: Path) -> bool:
    from retrieval_prompts.files import check_seal, inside, read_json
    from retrieval_prompts.prompts.folder import DESCRIPTION, OLD_CLIP, describe, load_prompts, read
    from retrieval_prompts.prompts.label_folder import load_labels
    from retrieval_prompts.prompts.writing_folder import load_writing

    about = read_json(inside(folder, DESCRIPTION))
    if isinstance(about, dict) and (about.get("for") == "clip" or about.get("format") == OLD_CLIP):
        read(folder, describe(folder, "clip"))
    elif isinstance(about, dict) and about.get("for") == "labels":
        load_labels(folder)
    elif isinstance(about, dict) and about.get("for") == "writing":
        load_writing(folder)
    else:
        load_prompts(folder)
    return check_seal(folder / DESCRIPTION, about)


def _index(folder: Path) -> bool:
    from retrieval_prompts.vectors.index import Index
    from retrieval_prompts.vectors.index_files import verify

    sound = verify(folder)
    if not sound:
        Index.open(folder)
    return sound


def _runs(folder: Path) -> bool:
    from retrieval_prompts.files import check_all_listed, check_seal, listed, read_json

    read = read_json(folder / "results.json")
    result = read if isinstance(read, dict) else {}
    sealed = check_seal(folder / "results.json", result)
    if isinstance(datasets := result.get("datasets"), dict):  # of a benchmark, which may hold a run of its next system
        from retrieval_prompts.experiments.benchmark_dataset import run_file

        names = [run_file(folder, name, system).name for name, found in datasets.items() for system in _systems(found)]
        if gone := [name for name in names if not (folder / name).is_file()]:
            raise UserError(
                f"{folder / gone[0]} is gone, though results.json has figures of it; run the benchmark again"
            )
        names += ["table.*"] * any(name.startswith("table.") for name in listed(folder))  # older lists have none
    else:
        names = [f"*{ending}" for ending in RANKED]
    return check_all_listed(folder, names) and sealed


def _alone(folder: Path) -> bool:
    """Runs without results.json, which are nobody's or those of a benchmark that has lost it."""
    from retrieval_prompts.files import listed

    if "table.md" in listed(folder):
        raise UserError(f"{folder / 'results.json'} is gone, and table.md is made from it; run the benchmark again")
    return _all_listed(folder)


def _systems(found: Any) -> Iterable[str]:
    return found.get("systems", ()) if isinstance(found, dict) else ()


def _all_listed(folder: Path) -> bool:
    from retrieval_prompts.files import check_all_listed

    return check_all_listed(folder, ("*.json", "*.safetensors", "*.txt", "*.faiss", "*.npy"))


def _listed(path: Path) -> bool:
    from retrieval_prompts.files import check_listed

    return check_listed(path)


def _block(path: Path) -> bool:
    from retrieval_prompts.vectors.blocks import sound

    if not sound(path):
        raise UserError(
            "it is damaged, or was written before there were checksums; it is encoded again when it is needed"
        )
    return True


def _checkpoint(path: Path) -> bool:
    from retrieval_prompts.training.loop import read_checkpoint

    read_checkpoint(path)
    return True


def _classes(folder: Path) -> bool:
    index = _index(folder / "index")
    return _all_listed(folder) and index


def _shards(folder: Path) -> bool:
    from retrieval_prompts.interop.scale.vector_files import check

    return check(folder)


FOLDERS: tuple[tuple[str, str, Check], ...] = (
    ("prompt.json", "prompts", _prompts),
    ("prompt.safetensors", "prompts", _prompts),
    ("classes.json", "classifier", _classes),
    ("classes.safetensors", "classifier", _classes),
    ("manifest.json", "index", _index),
    ("index.faiss", "index", _index),
    ("_shards.json", "vectors in shards", _shards),
    ("modules.json", "checkpoint of sentence-transformers", _all_listed),
    ("config_sentence_transformers.json", "checkpoint of sentence-transformers", _all_listed),
    ("adapter_config.json", "PEFT adapter", _all_listed),
    ("adapter_model.safetensors", "PEFT adapter", _all_listed),
    ("results.json", RUNS, _runs),
    ("SHA256SUMS", RUNS, _alone),
)
