"""The prompts that a server has at hand, by name: loaded and unloaded while it runs. Knows not what they are for."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Generic, Protocol, TypeVar

from retrieval_prompts.errors import UserError, few

FROZEN = "frozen"  # the name of no prompt
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Taken(UserError):
    """There are prompts of this name."""


class Unknown(UserError):
    """There are no prompts of this name, or no such folder that may be opened."""


class Named(Protocol):
    """Prompts as they are served; whoever holds them may use them, whether they are still on the shelf or not.

    Args:
        folder: as people know it.
    """

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> str: ...


Prompts = TypeVar("Prompts", bound=Named)


class Shelf(ABC, Generic[Prompts]):
    """Prompts by name.

    Args:
        given: name -> folder, as the server was started; each is loaded.
        root: a folder; those in it may be loaded too, at any depth.

    Raises:
        UserError: as `add`.
    """

    def __init__(self, given: Mapping[str, Path], root: Path | None = None) -> None:
        self.root = None if root is None else root.resolve()
        if self.root is not None and not self.root.is_dir():
            raise UserError(f"{root} is not a folder; --prompts-root is one that holds prompt folders")
        self._given = {name: Path(folder) for name, folder in given.items()}
        self._loaded: dict[str, Prompts] = {}
        self._adding = Lock()
        for name in given:
            self.add(name)

    @property
    def frozen(self) -> bool:
        """Whether the frozen model may be asked."""
        return True

    @abstractmethod
    def made(self, name: str, folder: str, place: Path) -> Prompts:
        """The prompts of a folder, as people know it, that is at this place. Raises UserError where it does not fit."""

    def all(self) -> list[Prompts]:
        return list(self._loaded.values())

    def get(self, name: str | None) -> Prompts | None:
        """The prompts of a name; None for the frozen model. Raises Unknown."""
        if name is None or name == FROZEN:
            return None
        try:
            return self._loaded[name]
        except KeyError:
            there = few([*self._loaded, *([FROZEN] if self.frozen else [])])
            raise Unknown(f"there are no prompts named {name!r}; there are {there}") from None

    def add(self, name: str, folder: str | None = None) -> Prompts:
        """Load prompts, from `folder` below the root, or from the folder that this name, or this folder's, was started
        with. Raises UserError: Taken, Unknown, and where the folder is none or does not fit."""
        if not NAME.fullmatch(name) or name == FROZEN:
            raise UserError(
                f"expected a name of letters, digits and . _ - that is not {FROZEN!r}, at most 64 of them, got {name!r}"
            )
        with self._adding:
            if name in self._loaded:
                raise Taken(f"there are prompts named {name!r} already; unload them first, or take another name")
            shown, place = self._located(name, folder)
            try:
                found = self.made(name, shown, place)
            except UserError as error:  # which names the folder as people know it, and not where it is
                raise UserError(str(error).replace(str(place), shown)) from None
            self._loaded = {**self._loaded, name: found}
        return found

    def remove(self, name: str) -> None:
        """Unload; queries that are under way are still answered with them. Raises Unknown."""
        with self._adding:
            if name not in self._loaded:
                raise Unknown(f"there are no prompts named {name!r}; there are {few(self._loaded) or 'none'}")
            self._loaded = {each: loaded for each, loaded in self._loaded.items() if each != name}

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
