"""The prompts that a server has at hand, by name: loaded and unloaded while it runs, each checked against the index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.evaluation.hybrid import UNLABELLED
from retrieval_prompts.interop.frameworks.searcher import Searcher
from retrieval_prompts.prompts.folder import PromptFolder, load_prompts
from retrieval_prompts.vectors.index_manifest import read_manifest

FROZEN = "frozen"  # the name of no prompt
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Taken(UserError):
    """There are prompts of this name."""


class Unknown(UserError):
    """There are no prompts of this name, or no such folder that may be opened."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """Prompts as they are served; whoever holds this may use them, whether they are still on the shelf or not.

    Args:
        folder: as people know it.
    """

    name: str
    folder: str
    biencoder: BiEncoder

    @property
    def both_sides(self) -> bool:
        """Whether the documents of the index were encoded with these prompts too."""
        return "document" in self.biencoder.prompts


def open_shelf(index: str | Path, prompts: Mapping[str, Path], root: Path | None = None, **options: Any) -> Shelf:
    """Open an index with the frozen model, and load prompts; `options` are those of `Searcher.open`.

    An index of documents with a prompt is opened with the first of the prompts, which has to be that one.

    Raises:
        UserError: where there are none then, and where anything does not belong together.
    """
    first = None
    if read_manifest(Path(index))["encoder"].get("document_prompt") is not None:
        if not prompts:
            raise UserError(f"{index} holds documents encoded with a prompt; give that prompt: --prompts NAME=FOLDER")
        first = next(iter(prompts.values()))
    return Shelf(Searcher.open(index, first, **options), prompts, root)


class Shelf:
    """Prompts by name.

    Args:
        searcher: of the index, with the frozen model unless the index is of documents with a prompt.
        given: name -> folder, as the server was started; each is loaded.
        root: a folder; those in it may be loaded too, at any depth.

    Raises:
        UserError: as `add`.
    """

    def __init__(self, searcher: Searcher, given: Mapping[str, Path], root: Path | None = None) -> None:
        self.searcher, self.root = searcher, None if root is None else root.resolve()
        if self.root is not None and not self.root.is_dir():
            raise UserError(f"{root} is not a folder; --prompts-root is one that holds prompt folders")
        self._given = {name: Path(folder) for name, folder in given.items()}
        self._loaded: dict[str, Loaded] = {}
        self._adding = Lock()
        for name in given:
            self.add(name)

    @property
    def frozen(self) -> bool:
        """Whether the frozen model's queries fit the documents of the index."""
        return self.searcher.index.manifest["encoder"].get("document_prompt") is None

    def all(self) -> list[Loaded]:
        return list(self._loaded.values())

    def get(self, name: str | None) -> Loaded | None:
        """The prompts of a name; None for the frozen model. Raises Unknown, and UserError where it does not fit."""
        if name is None or name == FROZEN:
            if not self.frozen:
                raise UserError(
                    f"this index holds documents encoded with a prompt; name {few(self._loaded)} as the prompt"
                )
            return None
        try:
            return self._loaded[name]
        except KeyError:
            there = few([*self._loaded, *([FROZEN] if self.frozen else [])])
            raise Unknown(f"there are no prompts named {name!r}; there are {there}") from None

    def add(self, name: str, folder: str | None = None) -> Loaded:
        """Load prompts, from `folder` below the root, or from the folder that this name, or this folder's, was started
        with. Raises UserError: Taken, Unknown, and where the folder is none or does not fit the index."""
        if not NAME.fullmatch(name) or name == FROZEN:
            raise UserError(
                f"expected a name of letters, digits and . _ - that is not {FROZEN!r}, at most 64 of them, got {name!r}"
            )
        with self._adding:
            if name in self._loaded:
                raise Taken(f"there are prompts named {name!r} already; unload them first, or take another name")
            shown, place = self._located(name, folder)
            searcher, saved = self.searcher, _read(place, shown)
            made = BiEncoder.with_prompts(searcher.biencoder.tower, saved, source=shown)
            searcher.index.check_encoder(made.identity())
            with searcher.lock:
                made.bind(searcher.hybrid or searcher.index)
            found = Loaded(name, shown, made)
            self._loaded = {**self._loaded, name: found}
        return found

    def remove(self, name: str) -> None:
        """Unload; queries that are under way are still answered with them. Raises Unknown."""
        with self._adding:
            if name not in self._loaded:
                raise Unknown(f"there are no prompts named {name!r}; there are {few(self._loaded) or 'none'}")
            self._loaded = {each: loaded for each, loaded in self._loaded.items() if each != name}

    def weight(self, prompt: Loaded | None) -> float:
        """Of BM25, where nobody asks for another."""
        if self.searcher.hybrid is None:
            return 0.0
        own = None if prompt is None else prompt.biencoder.bm25_weight
        return UNLABELLED if own is None else own

    def _located(self, name: str, folder: str | None) -> tuple[str, Path]:
        """A folder as people know it, and where it is."""
        if folder is None and name in self._given:
            return str(self._given[name]), self._given[name]
        for given in self._given.values():  # what a request says is compared, not opened
            if folder == str(given):
                return folder, given
        wanted = name if folder is None else folder
        place = self._below(wanted)
        if place is None:
            where = "the server was started without --prompts-root" if self.root is None else "not below --prompts-root"
            raise Unknown(f"there is no folder of prompts {wanted!r} that may be loaded ({where})")
        return wanted, place

    def _below(self, wanted: str) -> Path | None:
        """A folder below the root, links followed; None where there is none, or it is elsewhere."""
        if self.root is None or "\0" in wanted:
            return None
        try:
            place = (self.root / wanted).resolve()
            return place if place != self.root and place.is_relative_to(self.root) and place.is_dir() else None
        except (OSError, RuntimeError, ValueError):  # a name that is too long, links in a circle
            return None


def _read(place: Path, shown: str) -> PromptFolder:
    """The prompts of a folder. Raises UserError, which names it as people know it and not where it is."""
    try:
        return load_prompts(place)
    except UserError as error:
        raise UserError(str(error).replace(str(place), shown)) from None
