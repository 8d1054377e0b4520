"""Prompts of texts over one index, as they are served: each is checked against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.evaluation.hybrid import UNLABELLED
from retrieval_prompts.interop.frameworks.searcher import Searcher
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.serving.by_name import FROZEN, Shelf
from retrieval_prompts.vectors.index_manifest import read_manifest


@dataclass(frozen=True, eq=False)
class Loaded:
    """Prompts as they are served; see `by_name.Named`."""

    name: str
    folder: str
    biencoder: BiEncoder

    @property
    def strength(self) -> float:
        return self.biencoder.strength

    @property
    def both_sides(self) -> bool:
        """Whether the documents of the index were encoded with these prompts too."""
        return "document" in self.biencoder.prompts


def open_shelf(index: str | Path, prompts: Mapping[str, Path], root: Path | None = None, **options: Any) -> TextShelf:
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
    return TextShelf(Searcher.open(index, first, **options), prompts, root)


class TextShelf(Shelf[Loaded]):
    """Prompts of texts by name.

    Args:
        searcher: of the index, with the frozen model unless the index is of documents with a prompt.
        given, root: see `Shelf`.
    """

    def __init__(self, searcher: Searcher, given: Mapping[str, Path], root: Path | None = None) -> None:
        self.searcher = searcher
        super().__init__(given, root)

    @property
    def frozen(self) -> bool:
        """Whether the frozen model's queries fit the documents of the index."""
        return self.searcher.index.manifest["encoder"].get("document_prompt") is None

    def get(self, name: str | None) -> Loaded | None:
        """See `Shelf.get`. Raises UserError also for the frozen model, where it does not fit."""
        if name in (None, FROZEN) and not self.frozen:
            raise UserError(f"this index holds documents encoded with a prompt; name {few(self._loaded)} as the prompt")
        return super().get(name)

    def made(self, name: str, folder: str, place: Path) -> Loaded:
        """See `Shelf.made`."""
        searcher = self.searcher
        made = BiEncoder.with_prompts(searcher.biencoder.tower, load_prompts(place), source=folder)
        searcher.index.check_encoder(made.identity())
        with searcher.lock:
            made.bind(searcher.hybrid or searcher.index)
        if made.first_pass is not None:
            made.first_pass.lock = searcher.lock
        return Loaded(name, folder, made)

    def weight(self, prompt: Loaded | None) -> float:
        """Of BM25, where nobody asks for another."""
        if self.searcher.hybrid is None:
            return 0.0
        own = None if prompt is None else prompt.biencoder.bm25_weight
        return UNLABELLED if own is None else own
