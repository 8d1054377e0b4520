"""A bi-encoder behind the interface of SentenceTransformer: any prompt kind, in the process that made it.

The side comes from the task of `encode_query` / `encode_document`, or from the prompt names "query" and "document"
for callers that pass only those. Plain `encode` is the frozen model. Its parameters are the prompts, so that
sentence-transformers' own trainer trains them (see `interop.trainer`), and it is saved as a prompt folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerModelCardData
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn

from retrieval_prompts.data.plain_texts import as_texts, one_or_many
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import inside, write_bytes
from retrieval_prompts.prompts.encoders import SIDES, PromptTable
from retrieval_prompts.prompts.feedback import check_constant, fingerprint_of
from retrieval_prompts.prompts.folder import DESCRIPTION, VECTORS, load_prompts, save_prompts
from retrieval_prompts.prompts.strength import between
from retrieval_prompts.towers.fingerprint import digest
from retrieval_prompts.towers.text import padded
from retrieval_prompts.vectors.encode import embed_batch, pool_batch

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder

SENTINELS = {"query": "<soft query prompt>", "document": "<soft document prompt>"}
ENCODER = "prompt_encoder.safetensors"  # beside a prompt folder's own files
ROUTER_MAPPING = {"anchor": "query", "positive": "document", "negative": "document"}
CARD = """# Soft prompts for {name}

{kind} prompts ({sides}) for a frozen retriever, {numbers:,} numbers; the retriever itself is not in this folder.

```python
from retrieval_prompts import BiEncoder

biencoder = BiEncoder.load("{name}", prompts="this folder")
queries, documents = biencoder.encode_query(["..."]), biencoder.encode_document(["..."])
```
"""


def as_sentence_transformer(biencoder: BiEncoder) -> SentenceTransformer:
    """A SentenceTransformer of one module; its vectors are those of `biencoder`, whose prompts it shares.

    Prompt names of the model's own that mean neither queries nor documents keep their words, without a soft prompt.
    """
    feedback, mixture = biencoder.feedback is not None, biencoder.made_for_each is not biencoder.feedback
    check_constant("a SentenceTransformer", feedback=feedback, mixture=mixture)
    tower = biencoder.tower
    model = LiveModel(
        modules=[PromptedTower(biencoder)],
        prompts={
            **tower.sentence_transformer.prompts,
            **{name: SENTINELS[side] for side, name in tower.prompt_names.items()},
            **SENTINELS,
        },
        default_prompt_name=tower.sentence_transformer.default_prompt_name,
        similarity_fn_name=tower.similarity,  # type: ignore[arg-type]
        device=str(tower.device),
    )
    return model.eval()


def name_and_revision(biencoder: BiEncoder) -> tuple[str, str]:
    """A name in a hub's form, and 40 hexadecimal digits over what the vectors depend on."""
    tower = biencoder.tower
    parts = [tower.fingerprint, str(biencoder.strength)]
    prompts = sorted(biencoder.prompts.items())
    parts += [f"{side} {fingerprint_of(biencoder.kind, encoder)}" for side, encoder in prompts]
    name = re.sub(r"[^\w.-]+", "-", Path(tower.name).name) or "model"
    return f"retrieval-prompts/{name}", hashlib.sha256("|".join(parts).encode()).hexdigest()[:40]


class LiveModel(SentenceTransformer):
    """A SentenceTransformer that is saved as a prompt folder; the frozen model is not written again."""

    _card: SentenceTransformerModelCardData
    _recorded: dict[str, Any] | None = None
    _silent = True  # nothing was said yet of plain encode

    @property
    def device(self) -> torch.device:
        return self._tower.biencoder.tower.device

    @property
    def _tower(self) -> PromptedTower:
        return cast(PromptedTower, self[0])

    @property  # type: ignore[override]
    def model_card_data(self) -> SentenceTransformerModelCardData:
        """With the name of the prompts at hand, by which mteb keeps results and `mine_hard_negatives` vectors."""
        card = self._card
        if card.model is not None:  # the model is complete
            card.model_name, card.base_model_revision = name_and_revision(self._tower.biencoder)
            card.base_model = f"{card.model_name}@{card.base_model_revision}"
        return card

    @model_card_data.setter
    def model_card_data(self, value: SentenceTransformerModelCardData) -> None:
        self._card = value

    def encode(self, *given: Any, **options: Any) -> Any:
        """As in any SentenceTransformer. Without a side, which the first such call warns of, this is the frozen model.

        Raises:
            UserError: for what is no text, with its position.
        """
        named = [options.get(name) for name in ("task", "prompt_name", "prompt")] + list(given[1:3])
        prompted = bool(self._tower.biencoder.prompts) and self._tower.biencoder.strength > 0
        if self._silent and prompted and not any(named) and not self.default_prompt_name:
            self._silent = False
            warnings.warn(
                "plain encode() is the frozen model, without prompts: use encode_query() and encode_document(), or "
                'prompt_name="query" or "document"',
                UserWarning,
                stacklevel=2,
            )
        if given:
            given = (one_or_many(given[0]), *given[1:])
        options |= {name: one_or_many(options[name]) for name in ("inputs", "sentences") if name in options}
        return super().encode(*given, **options)

    def forward(self, input: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Raises UserError in training mode where no prompt can be trained: see `_check_training`."""
        if self.training:
            self._check_training(input["prompt_side"])
            self._record_training()
        return super().forward(input, **kwargs)

    def save(
        self,
        path: str,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write the prompts into the folder `path`, beside what else is there (a trainer's state, for instance).

        `BiEncoder.load(model, path)` reads it. Prompts that were there are replaced, as with any SentenceTransformer.
        Of the arguments only `create_model_card` (a README.md) counts.

        Raises:
            UserError: when there is no prompt.
        """
        self._tower.save(path)
        if create_model_card:
            self._create_model_card(path)

    def _create_model_card(self, path: str, *_: Any, **__: Any) -> None:
        prompts = self._tower.biencoder.collapsed()
        sides, numbers = " and ".join(prompts.vectors), sum(each.numel() for each in prompts.vectors.values())
        card = CARD.format(name=prompts.base["name"], kind=prompts.kind.capitalize(), sides=sides, numbers=numbers)
        write_bytes(Path(path) / "README.md", card.encode())

    @classmethod
    def _load_with_module_classes(
        cls, model_name_or_path: str, module_classes: Mapping[str, type[nn.Module]], **kwargs: Any
    ) -> Any:
        """What a trainer calls to resume, or to take its best checkpoint; it wants no more than the state."""
        return SavedPrompts(Path(model_name_or_path))

    def _check_training(self, side: str | None) -> None:
        """Raise UserError in the situations in which some losses would train nothing and not say so."""
        biencoder = self._tower.biencoder
        given = self._card.all_hyperparameters  # a trainer leaves its arguments there
        routes, words = (set(_leaves(given.get(name))) for name in ("router_mapping", "prompts"))
        sides = routes & set(SIDES) | {each for each in SIDES if SENTINELS[each] in words}
        if not biencoder.prompts:
            raise UserError("there is no prompt to train; attach one first (BiEncoder.attach)")
        if biencoder.strength == 0:
            raise UserError("prompts of strength 0 are not used, so they cannot be trained; set biencoder.strength = 1")
        if side is None:
            reason = "a column of the training data has no side, query or document"
        elif sides and not sides & set(biencoder.prompts):
            reason = f"every column is on the {side} side, which has no prompt"
        else:
            return
        raise UserError(
            f"{reason}: that does not train the {' and '.join(biencoder.prompts)} prompt; pass "
            f"router_mapping={json.dumps(ROUTER_MAPPING)}, with the names of your columns, to "
            "SentenceTransformerTrainingArguments"
        )

    def _record_training(self) -> None:
        """Keep a trainer's arguments as the training record of the prompts; it makes a new dictionary a run."""
        given = self._card.non_default_hyperparameters
        if given and given is not self._recorded:
            settings = json.loads(json.dumps(given, default=str))
            self._tower.biencoder.training_record = {"trainer": "sentence-transformers", "settings": settings}
            self._recorded = given


class PromptedTower(InputModule):
    """Texts -> sentence embeddings, with the prompt of the text's side."""

    def __init__(self, biencoder: BiEncoder) -> None:
        super().__init__()
        self.biencoder = biencoder

    @property
    def tokenizer(self) -> Any:
        return self.biencoder.tower.tokenizer

    @tokenizer.setter
    def tokenizer(self, value: Any) -> None:
        raise AttributeError("the tokenizer belongs to the frozen model")

    @property
    def max_seq_length(self) -> int:
        return self.biencoder.tower.text_length("document")

    def get_embedding_dimension(self) -> int:
        return self.biencoder.tower.dimension

    def preprocess(self, inputs: Any, prompt: str | None = None, **arguments: Any) -> dict[str, Any]:
        """Features of a batch; `prompt_side` is "query", "document", or None for the frozen model.

        A name for all rows, not a number for each: losses that join columns into one forward pass keep sides apart.
        """
        side = next((side for side, sentinel in SENTINELS.items() if prompt == sentinel), None)
        if side is None and not prompt and arguments.get("task") in SENTINELS:
            side = arguments["task"]
        texts = as_texts(inputs)
        if side is None:
            # Words of the caller's own take the place of a prompt, as in any other model
            tower = self.biencoder.tower
            features = tower.filled(dict(tower.transformer.preprocess(texts, prompt=prompt, **arguments)))
            return {**features, "prompt_side": None}
        padding = self.tokenizer.pad_token_id or 0
        # At strength 0 there is no prompt to leave room for
        read = self.biencoder.tokenize if self.biencoder.strength > 0 else self.biencoder.tower.tokenize
        ids, mask = padded(read(texts, side), padding)  # forward takes the padding off again
        features = {"input_ids": ids, "attention_mask": mask, "prompt_side": side}
        if self._needs_frozen(side):
            # No name that ends in input_ids: trainers take that for one more column
            frozen = self.biencoder.tower.tokenize(texts, side)
            features["frozen_ids"], features["frozen_mask"] = padded(frozen, padding)
        return features

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        tower, side = self.biencoder.tower, features["prompt_side"]
        if side is None:
            plain = {name: value for name, value in features.items() if name != "prompt_side"}
            features["sentence_embedding"] = pool_batch(tower, plain)
            return features
        rows = _rows(features["input_ids"], features["attention_mask"])
        kind, prompt, strength = self.biencoder.still(side)
        if torch.is_grad_enabled():
            prompt = self.biencoder.prompt(side)
        vectors = embed_batch(tower, rows, side, kind, prompt if strength > 0 else None)
        if self._needs_frozen(side):
            rows = _rows(features["frozen_ids"], features["frozen_mask"])
            frozen = embed_batch(tower, rows, side, kind, None)
            vectors = between(frozen, vectors, strength, unit=tower.unit_length)
        if self.training and torch.distributed.is_available() and torch.distributed.is_initialized():
            # Processes average gradients only if each forward pass makes use of each parameter
            vectors = vectors + 0 * sum(parameter.sum() for parameter in self.biencoder.parameters())
        features["sentence_embedding"] = vectors
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the prompt folder's files into a folder, and the prompt encoders where they are more than tables."""
        from safetensors.torch import save

        prompts = self.biencoder.prompts
        collapsed = self.biencoder.collapsed()
        folder = Path(output_path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be made a folder ({error.strerror}); choose another name") from None
        (folder / ENCODER).unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
            save_prompts(Path(temporary) / "new", collapsed)
            for name in (VECTORS, DESCRIPTION):
                os.replace(Path(temporary) / "new" / name, folder / name)
        if not all(isinstance(module, PromptTable) for module in prompts.values()):
            # Cloned, for a part common to both sides is in the state twice
            state = {name: tensor.detach().cpu().clone() for name, tensor in prompts.state_dict().items()}
            write_bytes(folder / ENCODER, save(state, {"sha256": digest(state)}))

    def _needs_frozen(self, side: str) -> bool:
        return side in self.biencoder.prompts and 0 < self.biencoder.strength < 1

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *arguments: Any
    ) -> None:
        tower = self.biencoder.tower
        base = local_metadata.get("base")
        if base is not None and base["fingerprint"] != tower.fingerprint:
            raise UserError(f"the checkpoint belongs to {base['name']}, not to {tower.name}; train in another folder")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *arguments)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.biencoder.tower.sentence_transformer._apply(fn)
        return super()._apply(fn, recurse)


class SavedPrompts:
    """The state of a live model in the folder that it was saved in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def state_dict(self) -> dict[str, Tensor]:
        """For `LiveModel.load_state_dict`.

        Raises:
            UserError: when the folder holds no prompts.
        """
        from safetensors import SafetensorError, safe_open

        saved = load_prompts(self.folder)
        path = inside(self.folder, ENCODER)
        if path.is_file():
            try:
                with safe_open(path, "pt") as file:
                    expected = (file.metadata() or {}).get("sha256")  # None: of an older version
                    state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            except SafetensorError as error:
                raise UserError(f"{path} cannot be read as safetensors ({error}); take another checkpoint") from None
            if expected not in (None, digest(state)):
                raise UserError(f"{path} was changed after it was written; take another checkpoint")
        else:
            state = {f"{side}.vectors": value for side, value in saved.vectors.items()}
        named = OrderedDict((f"0.biencoder.prompts.{name}", value) for name, value in state.items())
        named._metadata = {"0": {"base": saved.base}}  # type: ignore[attr-defined]
        return named


def _rows(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[keep].tolist() for row, keep in zip(ids, mask.bool(), strict=True)]


def _leaves(value: Any) -> list[Any]:
    """The values of a mapping, of the mappings inside it, or the value itself."""
    if isinstance(value, Mapping):
        return [leaf for each in value.values() for leaf in _leaves(each)]
    return [] if value is None else [value]
