"""Prompts of many over one frozen model, chosen for each query of a batch: what a server holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.plain_texts import as_texts
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.evaluation.first_pass import SECOND, prompts_of
from retrieval_prompts.evaluation.hybrid import HybridIndex
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.prompts.strength import between_each, checked
from retrieval_prompts.towers.conventions import Conventions
from retrieval_prompts.towers.text import Floats, TextTower, load_tower
from retrieval_prompts.vectors.encode import encode_each, encode_texts
from retrieval_prompts.vectors.index import Index


class PromptSet:
    """Named query prompts over one frozen model, and one index of its documents.

    A query is encoded with the prompt of a name, or with None by the frozen model, and gets the vector that it gets
    from that prompt alone, to 1e-6, whatever the others of its batch have. Input prompts of any lengths share forward
    passes; prefixes share them with those of their length, as do input prompts where the model leaves them out of its
    pooling. What needs the frozen vector (a strength below 1, prompts that read documents, mixtures) takes one more
    pass, also shared.

    Args:
        tower: the frozen model.
        index: of documents as it encodes them; only prompts that read documents need one to encode.
    """

    def __init__(self, tower: TextTower, index: Index | HybridIndex | None = None) -> None:
        self.tower, self.index = tower, index
        self._prompts: dict[str, BiEncoder] = {}

    @classmethod
    def open(
        cls,
        prompts: Mapping[str, Path | str] | Iterable[Path | str],
        index: Index | HybridIndex | None = None,
        *,
        model: str | Path | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> PromptSet:
        """Prompt folders over the model that the first of them names, or over `model`.

        Args:
            prompts: name -> folder; or folders, each named as it says itself, else as the folder is.

        Raises:
            UserError: where they belong to different models, and for a name that occurs twice.
        """
        named = list(prompts.items()) if isinstance(prompts, Mapping) else [(None, folder) for folder in prompts]
        if not named:
            raise UserError("expected at least one prompt folder, got none")
        first = load_prompts(named[0][1])
        recorded = Conventions.recorded(first.base)
        wanted = first.base["name"] if model is None else model
        tower = load_tower(wanted, device=device, trust_remote_code=trust_remote_code, conventions=recorded)
        found = cls(tower, index)
        for name, folder in named:
            found.add(folder, name)
        return found

    @property
    def names(self) -> list[str]:
        """In the order in which they were added."""
        return list(self._prompts)

    def add(self, folder: Path | str, name: str | None = None) -> str:
        """Have one more; returns its name.

        Raises:
            UserError: for a name that is taken, and for prompts of another model or with a document side, whose index
                is another one.
        """
        saved = load_prompts(folder)
        name = name or saved.label.name or Path(folder).resolve().name
        if name in self._prompts:
            raise UserError(f"there are prompts named {name} already; give {folder} another name")
        if "document" in saved.vectors:
            raise UserError(f"{folder} has a document prompt, so its index is another one; serve it by itself")
        made = BiEncoder.with_prompts(self.tower, saved, source=str(folder))
        if self.index is not None:
            made.bind(self.index)
        self._prompts = {**self._prompts, name: made}  # what another thread has at hand stays as it is
        return name

    def remove(self, name: str) -> None:
        """Have one less.

        Raises:
            UserError: for a name that there is not.
        """
        self._of(name)
        self._prompts = {each: made for each, made in self._prompts.items() if each != name}

    def encode_query(
        self,
        texts: Iterable[str],
        prompts: str | Sequence[str | None] | None = None,
        strengths: float | Sequence[float | None] | None = None,
    ) -> Floats:
        """Queries -> vectors (queries, dimension) in float32.

        Args:
            prompts: one name for all, or one a query; None: the frozen model.
            strengths: one for all, or one a query; None: as the prompts were saved.

        Raises:
            UserError: for what is no text, no name and no strength.
        """
        texts = as_texts(texts)
        return self.encode_chosen(texts, self._chosen(len(texts), prompts), strengths)

    @torch.no_grad()
    def encode_chosen(
        self,
        texts: list[str],
        chosen: Sequence[BiEncoder | None],
        strengths: float | Sequence[float | None] | None = None,
    ) -> Floats:
        """The same with the prompts themselves, over this tower and bound to an index where they need one; with a name
        or without."""
        tower = self.tower
        share = _strengths(chosen, strengths)
        made = [each is not None and each.made_for_each is not None for each in chosen]
        found = np.zeros((len(texts), tower.dimension), dtype=np.float32)
        plain = [place for place, of in enumerate(share) if of < 1 or made[place]]
        found[plain] = encode_texts(tower, [texts[place] for place in plain], "query")
        own = self._own(texts, found, chosen, share)
        for kind in dict.fromkeys(each.kind for each in chosen if each is not None):
            there = [place for place in own if chosen[place].kind == kind]  # type: ignore[union-attr]
            if there:
                vectors = [own[place][0] for place in there]
                prompted = encode_each(tower, [texts[place] for place in there], "query", kind, vectors)
                whole = between_each(found[there], prompted, [own[at][1] for at in there], unit=tower.unit_length)
                found[there] = between_each(found[there], whole, share[there], unit=tower.unit_length)
        return found

    def query_vectors(
        self,
        texts: Iterable[str],
        prompts: str | Sequence[str | None] | None = None,
        strengths: float | Sequence[float | None] | None = None,
    ) -> Floats:
        """The same, ready to be compared by inner product."""
        return self.tower.comparable(self.encode_query(texts, prompts, strengths))

    def _own(
        self, texts: list[str], frozen: Floats, chosen: Sequence[BiEncoder | None], share: NDArray[np.float64]
    ) -> dict[int, tuple[Tensor, float]]:
        """Place -> the prompt (layers, length, width) of a query, and how much it counts at strength 1; none for the
        frozen model."""
        found: dict[int, tuple[Tensor, float]] = {}
        for one in {id(each): each for each in chosen if each is not None}.values():
            there = [place for place, each in enumerate(chosen) if each is one and share[place] > 0]
            if one.made_for_each is None:
                prompt = one.prompt("query")
                assert prompt is not None
                found |= dict.fromkeys(there, (prompt, 1.0))
                continue
            for start in range(0, len(there), SECOND):
                part = there[start : start + SECOND]
                asked = [texts[place] for place in part]
                vectors, counts = prompts_of(self.tower, asked, frozen[part], one.made_for_each, one.first_pass)
                each = zip(part, vectors, counts, strict=True)
                found |= {place: (vector, float(count)) for place, vector, count in each if count > 0}
        return found

    def _of(self, name: str) -> BiEncoder:
        if name not in self._prompts:
            raise UserError(f"there are no prompts named {name!r}; there are {few(self._prompts) or 'none'}")
        return self._prompts[name]

    def _chosen(self, count: int, prompts: str | Sequence[str | None] | None) -> list[BiEncoder | None]:
        names = [prompts] * count if prompts is None or isinstance(prompts, str) else list(prompts)
        if len(names) != count:
            raise UserError(f"expected a prompt's name, or None, for each of {count} queries, got {len(names)}")
        return [None if name is None else self._of(name) for name in names]


def _strengths(
    chosen: Sequence[BiEncoder | None], strengths: float | Sequence[float | None] | None
) -> NDArray[np.float64]:
    given = [strengths] * len(chosen) if strengths is None or isinstance(strengths, int | float) else list(strengths)
    if len(given) != len(chosen):
        raise UserError(f"expected a strength, or None, for each of {len(chosen)} queries, got {len(given)}")
    each = [
        0.0 if one is None else one.strength if strength is None else checked(strength)
        for one, strength in zip(chosen, given, strict=True)
    ]
    return np.array(each, dtype=np.float64)
