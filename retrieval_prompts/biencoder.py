"""A bi-encoder: one frozen tower, and a soft prompt on its query side, its document side, or both."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.data.plain_texts import Texts, as_texts, one_or_many
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.first_pass import FirstPass, encode_twice
from retrieval_prompts.evaluation.hybrid import HybridIndex
from retrieval_prompts.files import default_cache
from retrieval_prompts.prompts.encoders import CHANGING, ENCODERS, KINDS, SIDES, PromptSum, PromptTable, fingerprint
from retrieval_prompts.prompts.feedback import FeedbackPrompt, Start, maker, modules_of, shape_of
from retrieval_prompts.prompts.folder import Feedback, PromptFolder, load_prompts, save_prompts
from retrieval_prompts.prompts.initialize import initial_vectors
from retrieval_prompts.prompts.label import Label
from retrieval_prompts.prompts.mixture import MixturePrompt
from retrieval_prompts.prompts.settings import PromptSettings
from retrieval_prompts.prompts.strength import between, checked
from retrieval_prompts.towers import injection
from retrieval_prompts.towers.conventions import Conventions
from retrieval_prompts.towers.probe import check_made, check_room, verify
from retrieval_prompts.towers.text import DEFAULT_MODEL, Floats, TextTower, load_tower
from retrieval_prompts.vectors.blocks import Contents, VectorBlocks, combined, encode_blocks
from retrieval_prompts.vectors.encode import embed_texts, encode_texts
from retrieval_prompts.vectors.index import Index

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class BiEncoder(nn.Module):
    """A frozen text tower with soft prompts.

    Its trainable parameters are those of its prompt encoders; the tower's weights are not among them.

    Args:
        tower: the frozen model.
        kind: "input" or "prefix".
        prompts: side -> prompt encoder; a side without one is the frozen model.
        strength: from 0 to 1. 0 is exactly the frozen model, 1 exactly the prompted one; between them a vector
            moves along the straight line from the one to the other, kept at the model's unit length if it has one.

    `bm25_weight` is that of BM25 in hybrid search with these prompts, None where nothing is known of it; `label` is
    what people call them.
    """

    def __init__(
        self,
        tower: TextTower,
        kind: str = "input",
        prompts: dict[str, nn.Module] | None = None,
        strength: float = 1.0,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise UserError(f"a prompt's kind must be one of {', '.join(KINDS)}, got {kind!r}")
        # In a tuple, so that the tower's weights are no parameters of this module
        self._tower = (tower,)
        self.kind = kind
        self.prompts = nn.ModuleDict(prompts or {})
        self.strength = strength
        self.training_record: dict[str, Any] = {}
        self.bm25_weight: float | None = None
        self.label = Label()
        self.first_pass: FirstPass | None = None
        if self.prompts:
            self._check(kind, self.prompts)

    @property
    def tower(self) -> TextTower:
        return self._tower[0]

    @property
    def strength(self) -> float:
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = checked(value)

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        prompts: str | Path | None = None,
        *,
        device: str | None = None,
        strength: float | None = None,
        trust_remote_code: bool = False,
        query_words: str | None = None,
        document_words: str | None = None,
        similarity: str | None = None,
    ) -> BiEncoder:
        """A frozen model, with the prompts of a prompt folder when one is given.

        Args:
            model: a name, a local folder or a hub id; without it, the base model that the prompts name, or
                all-MiniLM-L6-v2.
            prompts: a folder, or "hf:user/name" on the hub.
            strength: overrides the one saved with the prompts.
            query_words: what the model wants before each query, such as "query: "; "" for nothing.
            document_words: the same before each document.
            similarity: "cosine" or "dot". None, for all three: as the prompts were made, else as the model says.

        Raises:
            UserError: when the model or the folder cannot be read, or do not belong together.
        """
        folder = None
        if str(prompts).startswith("hf:"):
            from retrieval_prompts.interop.sharing.hub import check_trust, located

            check_trust(model, trust_remote_code)
            folder = load_prompts(located(str(prompts)))
        elif prompts is not None:
            folder = load_prompts(prompts)
        if model is None:
            model = folder.base["name"] if folder is not None else DEFAULT_MODEL
        recorded = Conventions() if folder is None else Conventions.recorded(folder.base)
        conventions = Conventions(query_words, document_words, similarity).or_else(recorded)
        tower = load_tower(model, device=device, trust_remote_code=trust_remote_code, conventions=conventions)
        if folder is None:
            return cls(tower)
        return cls.with_prompts(tower, folder, strength=strength, source=str(prompts))

    @classmethod
    def with_prompts(
        cls, tower: TextTower, folder: PromptFolder, *, strength: float | None = None, source: str = "these prompts"
    ) -> BiEncoder:
        """A loaded tower with the prompts of a folder. Raises UserError when they were made for another model."""
        check_made(tower, folder.base, source)
        for side, value in folder.vectors.items():
            expected = injection.prompt_shape(tower, folder.kind, value.shape[1])
            if tuple(value.shape) != expected:
                raise UserError(f"{source}: the {side} prompt has shape {tuple(value.shape)}, expected {expected}")
        modules = modules_of(folder, tower, source)
        biencoder = cls(tower, folder.kind, modules, folder.strength if strength is None else strength)
        biencoder.training_record, biencoder.bm25_weight = folder.training, folder.bm25_weight
        biencoder.label = folder.label
        return biencoder

    def attach(self, side: str | PromptSettings = "query", *, start: Start | None = None, **given: Any) -> BiEncoder:
        """Attach fresh prompt encoders; returns self. See `initialize.initial_vectors` for `init`.

        Args:
            side: "query", "document" or "both"; or whole settings.
            start: of the map of a feedback prompt, which depends on the documents (see `feedback.regress`).
            given: other fields of `PromptSettings`; what is not given is the default of the kind. A common part of
                both sides starts at zero.

        Raises:
            UserError: for what is no setting, and when the model fails the probe (see `towers.probe.verify`).
        """
        wanted = replace(side, **given) if isinstance(side, PromptSettings) else PromptSettings.of(side=side, **given)
        kind, length, init, seed = wanted.kind, wanted.length, wanted.init, wanted.seed
        if "auto" in (wanted.encoder, kind):
            ways = (*ENCODERS, "feedback") if kind != "auto" else tuple(PromptSettings.DEFAULTS)
            raise UserError(f"auto lets dev choose, in tune; attach one of {', '.join(ways)}")
        encoder = maker(wanted, start) if wanted.encoder == "feedback" else ENCODERS[wanted.encoder]
        with CHANGING, torch.random.fork_rng(devices=[]):  # the state of the generator is that of all threads
            torch.manual_seed(seed)
            made: dict[str, nn.Module] = {
                each: encoder(initial_vectors(self.tower, kind, length, init, seed))
                for each in (SIDES if wanted.side == "both" else (wanted.side,))
            }
        if wanted.common:
            first = made["query"]()
            shared = PromptTable(torch.zeros_like(first))
            made = {each: PromptSum(own, shared) for each, own in made.items()}
        prompts = nn.ModuleDict(made).to(self.tower.device)
        self._check(kind, prompts)
        with CHANGING:
            self.kind, self.prompts, self.strength, self.bm25_weight = kind, prompts, 1.0, None
            self.first_pass, self.label = None, Label()
        return self

    def prompt(self, side: str, documents: Tensor | None = None) -> Tensor | None:
        """The vectors (layers, length, width) of a side, with their gradient; None for a frozen side.

        Args:
            documents: for a feedback prompt the vectors (queries, documents, dimension) of what a first search found;
                it then makes a prompt a query (queries, layers, length, width). Without them it raises UserError.
        """
        if side not in self.prompts:
            return None
        return self.prompts[side]() if documents is None else self.prompts[side](documents)

    @property
    def feedback(self) -> FeedbackPrompt | None:
        """The query prompt where it is made from the documents of a first search."""
        return found if isinstance(found := self.made_for_each, FeedbackPrompt) else None

    @property
    def made_for_each(self) -> FeedbackPrompt | MixturePrompt | None:
        """The query prompt where each query gets one of its own."""
        found = dict(self.prompts.items()).get("query")
        return found if isinstance(found, FeedbackPrompt | MixturePrompt) else None

    def take(self, other: BiEncoder) -> None:
        """Have the prompts of another bi-encoder over the same tower, and all that is known of them."""
        with CHANGING:
            self.kind, self.prompts, self.strength = other.kind, other.prompts, other.strength
            self.training_record, self.bm25_weight = other.training_record, other.bm25_weight
            self.first_pass, self.label = other.first_pass, other.label

    def whole(self) -> BiEncoder:
        """The same prompts at strength 1, with the same index to read."""
        made = BiEncoder(self.tower, self.kind, dict(self.prompts.items()))
        made.first_pass = self.first_pass
        return made

    def bind(self, searched: Index | HybridIndex) -> BiEncoder:
        """Give a feedback prompt the index that its first search is in; returns self. Other prompts need none.

        Raises:
            UserError: when the index is not of this frozen model's documents, or does not give its vectors back.
        """
        if (reads := self.feedback) is not None:
            index = searched if isinstance(searched, Index) else searched.index
            index.check_encoder(self.identity())
            self.first_pass = FirstPass(searched, reads.documents, reads.bm25_weight)
        return self

    def still(self, side: str) -> tuple[str, Tensor | None, float]:
        """The kind of the prompts, the vectors of a side and the strength, of one moment: a copy without a gradient,
        which a training in another thread does not change; None where none are used. Not for those `made_for_each`."""
        with CHANGING:
            prompt = self.prompt(side) if self.strength > 0 else None
            return self.kind, None if prompt is None else prompt.detach().clone(), self.strength

    def embed(
        self, ids: Sequence[list[int]], side: str, *, documents: Tensor | None = None, saving: bool = False
    ) -> Tensor:
        """Token ids (see `tokenize`) -> vectors (texts, dimension) ready to be compared, with gradients.

        `documents`: see `prompt`.
        """
        encode = self.tower.shared or embed_texts
        vectors = encode(self.tower, ids, side, self.kind, self.prompt(side, documents), saving=saving)
        return self.tower.comparable(vectors)

    def tokenize(self, texts: list[str], side: str) -> list[list[int]]:
        """Token ids of each text, cut to the room that the prompt leaves."""
        return self.tower.tokenize(texts, side, prompt=self._room(side))

    def encode_query(self, texts: str | Iterable[str]) -> Floats:
        """Queries -> vectors (queries, dimension) in float32; one string -> (dimension,).

        Raises:
            UserError: for what is no text, such as None, with its position; so do the other ways to encode.
        """
        return self._encode(texts, "query")

    def query_vectors(self, texts: Iterable[str]) -> Floats:
        """Queries -> vectors (queries, dimension) in float32, ready to be compared by inner product."""
        return self.tower.comparable(self.encode_query(texts))

    def encode_document(self, texts: str | Iterable[str]) -> Floats:
        """Documents -> vectors (documents, dimension) in float32; one string -> (dimension,)."""
        return self._encode(texts, "document")

    def encode_corpus(
        self, corpus: Corpus | Iterable[str], cache: Path | None = None, *, precision: str = "float32"
    ) -> VectorBlocks:
        """All documents in blocks of vectors, ready to be compared; encoded with a progress bar. `np.asarray` makes
        one array of them. How many are cut at the model's length is warned of, when they are encoded (DataWarning).

        Args:
            corpus: read one block at a time; or texts.
            cache: a folder in which blocks are found and kept (see `blocks.encode_blocks`); None: the user's cache.
            precision: of the matrix products, "float32" or "bfloat16" (see `vectors.encode.encode_texts`).
        """
        tower, (kind, prompt, strength) = self.tower, self.still("document")
        documents = corpus if isinstance(corpus, Contents) else Texts(corpus)

        def encoded(vectors: Tensor | None) -> VectorBlocks:
            identity = f"{tower.fingerprint}|document|{_name(kind, vectors, 1.0) or 'frozen'}"
            encoder = hashlib.sha256(identity.encode()).hexdigest()
            options: dict[str, Any] = {"encoder": encoder, "cache": cache or default_cache(), "precision": precision}
            return encode_blocks(tower, documents, kind, vectors, transform=tower.comparable, **options)

        whole = encoded(prompt)
        if prompt is None or strength == 1:
            return whole
        unit = tower.unit_length
        return combined(encoded(None), whole, lambda a, b: tower.comparable(between(a, b, strength, unit=unit)))

    def identity(self) -> dict[str, Any]:
        """What an index of this encoder's documents depends on: the model, how it is used, and the document prompt."""
        return {
            "model": self.tower.name,
            "fingerprint": self.tower.fingerprint,
            "document_prompt": _name(*self.still("document")),
            **self.tower.kept,
        }

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the prompts, collapsed to plain vectors, as a prompt folder of a few kilobytes.

        Raises:
            UserError: when there is no prompt, or the folder exists and `overwrite` is not given.
        """
        save_prompts(folder, self.collapsed(), overwrite=overwrite)

    def collapsed(self) -> PromptFolder:
        """The prompts as plain vectors with what they belong to."""
        if not self.prompts:
            raise UserError("there is no prompt to save; attach one first")
        made, feedback, mixture = self.made_for_each, None, None
        if isinstance(made, FeedbackPrompt):
            vectors, feedback = {"query": made.vectors.detach()}, Feedback(made.parts(), made.bm25_weight)
        elif made is not None:
            vectors, mixture = {"query": made.flat()}, made.about
        else:
            vectors = {side: module().detach() for side, module in self.prompts.items()}
        known = (self.strength, self.training_record, self.bm25_weight, feedback, mixture, self.label)
        return PromptFolder(self.kind, vectors, self.base(), *known)

    def base(self) -> dict[str, Any]:
        """What a prompt folder says of the frozen model; see `PromptFolder`."""
        return {
            "name": self.tower.name,
            "fingerprint": self.tower.fingerprint,
            "dimension": self.tower.dimension,
            "width": self.tower.width,
            "pools_prompt": self.tower.pools_prompt,
            **asdict(self.tower.conventions),
        }

    def export(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write a stock sentence-transformers checkpoint; see `interop.export.export`."""
        from retrieval_prompts.interop.export import export

        export(self, Path(folder), overwrite=overwrite)

    def push_to_hub(self, repo_id: str, *, exported: bool = False, **options: Any) -> str:
        """Upload the prompts, and with `exported` the stock checkpoint beside them; see `hub.push` for options."""
        from retrieval_prompts.interop.sharing.hub import push

        return push(self.collapsed(), repo_id, export=self.export if exported else None, **options)

    @classmethod
    def from_hub(
        cls, repo_id: str, *, revision: str | None = None, token: str | None = None, **options: Any
    ) -> BiEncoder:
        """The base model with the prompts of "user/name"; see `sharing.hub.fetch`, and `load` for options."""
        from retrieval_prompts.interop.sharing.hub import check_trust, fetch

        check_trust(options.get("model"), options.get("trust_remote_code", False))
        return cls.load(prompts=fetch(repo_id, revision=revision, token=token), **options)

    def as_sentence_transformer(self) -> SentenceTransformer:
        """A live SentenceTransformer whose query and document tasks and prompt names carry these prompts."""
        from retrieval_prompts.interop.live import as_sentence_transformer

        return as_sentence_transformer(self)

    def _encode(self, texts: str | Iterable[str], side: str) -> Floats:
        texts = one_or_many(texts)
        if isinstance(texts, str):
            return self._encode([texts], side)[0]
        if side == "query" and self.strength > 0 and (made := self.made_for_each) is not None:
            with CHANGING:
                found = self.kind, copy.deepcopy(made), self.strength
            return encode_twice(self.tower, as_texts(texts), *found, self.first_pass)
        kind, prompt, strength = self.still(side)
        if prompt is None:
            return encode_texts(self.tower, texts, side)
        prompted = encode_texts(self.tower, texts, side, kind, prompt)
        if strength == 1:
            return prompted
        frozen = encode_texts(self.tower, texts, side)
        return between(frozen, prompted, strength, unit=self.tower.unit_length)

    def _room(self, side: str) -> int:
        """The tokens that a side's prompt takes from the text."""
        return shape_of(self.prompts[side])[1] if self.kind == "input" and side in self.prompts else 0

    def _check(self, kind: str, prompts: nn.ModuleDict) -> None:
        """Say where a prompt takes room from the text, and probe the model. Raises UserError."""
        for side, module in prompts.items():
            check_room(self.tower, side, shape_of(module)[1] if kind == "input" else 0)
        verify(self.tower, kind)


def _name(kind: str, prompt: Tensor | None, strength: float) -> str | None:
    """What distinguishes the vectors of a side from those of other prompts; None: they are the frozen model's."""
    if prompt is None:
        return None
    return fingerprint(kind, prompt) + ("" if strength == 1 else f"@{strength}")
