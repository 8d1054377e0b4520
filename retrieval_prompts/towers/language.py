"""A frozen language model of Hugging Face, causal or sequence-to-sequence, and where a soft prompt enters it.

It stands before all tokens of the input (Lester et al. 2021), as in PEFT. Knows nothing about what is written with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from retrieval_prompts.errors import UserError, few, first_line
from retrieval_prompts.towers.fingerprint import digest

IGNORED = -100  # the label of a token that is not predicted
ROOM = 1024  # tokens, where a model names no limit


class LanguageModel:
    """A language model whose weights never change.

    Args:
        name: a folder, or a model of the hub. A GGUF file of it is named behind a colon: "FOLDER:model.gguf".
        device: None: the best there is.
        option: what the name was given by, for messages.

    Raises:
        UserError: where it cannot be loaded, or is another kind of model, such as an encoder.
    """

    def __init__(self, name: str, device: torch.device | str | None = None, option: str = "--generator") -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        place, colon, file = name.rpartition(":")
        place, gguf = (place, {"gguf_file": file}) if colon and file.endswith(".gguf") else (name, {})
        try:
            config = AutoConfig.from_pretrained(place, **gguf)
            kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            self.tokenizer = AutoTokenizer.from_pretrained(place, **gguf)
            self.model: Any
            self.model, found = kind.from_pretrained(place, **gguf, output_loading_info=True)
            best = torch.accelerator.current_accelerator(check_available=True) or "cpu"
            self.model.eval().requires_grad_(False).to(device or best)
        except Exception as error:  # a broken folder, or an odd device, makes the libraries raise whatever they like
            raise UserError(f"{option} {name}: {first_line(error)}") from None
        if lacking := sorted(found["missing_keys"]):  # these would be random
            needs = type(self.model).__name__
            raise UserError(f"{option} {name} is not a language model: it has no {few(lacking)}, which {needs} needs")
        self.name, self.causal = name, not config.is_encoder_decoder
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @property
    def embeddings(self) -> nn.Embedding:
        found: nn.Embedding = self.model.get_input_embeddings()
        return found

    @property
    def device(self) -> torch.device:
        return self.embeddings.weight.device

    @property
    def width(self) -> int:
        return int(self.embeddings.weight.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return digest(self.model.state_dict())

    @property
    def positions(self) -> int:
        """The tokens that the model has room for; of a sequence-to-sequence model those of its input."""
        config = self.model.config
        most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or ROOM
        return int(most)

    def pair(self, source: str, target: str, room: int) -> tuple[list[int], list[int]]:
        """Token ids of a text and of what is to be written for it, an end token behind it; `room` positions are taken.

        The text loses its beginning, what is to be written its end, where the model is too short for both.

        Raises:
            UserError: where it is too short for a single token of the text.
        """
        plain = self.tokenizer(target, add_special_tokens=not self.causal)["input_ids"]
        end = self.tokenizer.eos_token_id
        written = plain + ([end] if end is not None and plain[-1:] != [end] else [])
        written = written[: self.positions // 2]
        return self.tokenizer(source)["input_ids"][-self._left(room, len(written)) :], written

    def logits(
        self, pairs: Sequence[tuple[list[int], list[int]]], prompt: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pairs of `pair` -> logits (batch, tokens, vocabulary) and the token that each position is to predict
        (batch, tokens), IGNORED where there is none; with gradients to the prompt alone.

        Args:
            prompt: (length, width), before all tokens.
        """
        targets = [written if not self.causal else [*source, *written] for source, written in pairs]
        seen = [([*source, *written] if self.causal else source) for source, written in pairs]
        tokens, mask = self._padded(seen, self.tokenizer.pad_token_id or 0)
        labels, _ = self._padded(targets, IGNORED)
        inputs = self._inputs(tokens, mask, prompt)
        if not self.causal:
            return self.model(**inputs, labels=labels).logits, labels
        for row, (source, _) in zip(labels, pairs, strict=True):
            row[: len(source)] = IGNORED
        P = 0 if prompt is None else len(prompt)
        logits = self.model(**inputs).logits[:, max(P - 1, 0) :]  # the last vector of a prompt predicts the first token
        return logits[:, :-1], labels if P else labels[:, 1:]

    @torch.no_grad()
    def write(self, text: str, prompt: Tensor | None = None, *, tokens: int = 32) -> str:
        """What the model goes on with, by the likeliest token each time.

        Raises:
            UserError: where it is too short for a prompt of that length.
        """
        most = self._left(0 if prompt is None else len(prompt), tokens)
        ids = self.tokenizer(text, return_tensors="pt").input_ids[:, -most:].to(self.device)
        out = self.model.generate(
            **self._inputs(ids, torch.ones_like(ids), prompt),
            max_new_tokens=tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        # Of vectors a causal model gives back what it has written alone
        new = out[0, ids.shape[1] :] if self.causal and prompt is None else out[0]
        return str(self.tokenizer.decode(new, skip_special_tokens=True))

    def _left(self, room: int, written: int) -> int:
        """The tokens that a text may have beside a prompt and what is written."""
        most = self.positions - room - (written if self.causal else 0)
        if most < 1:
            raise UserError(
                f"{self.name} has room for {self.positions} tokens, and none for a text beside a prompt of {room} "
                f"vectors; train a shorter one (--length)"
            )
        return most

    def _inputs(self, tokens: Tensor, mask: Tensor, prompt: Tensor | None) -> dict[str, Tensor]:
        if prompt is None:
            return {"input_ids": tokens, "attention_mask": mask}
        embedded = self.embeddings(tokens)  # (B, T, H)
        vectors = prompt.to(self.device, embedded.dtype).expand(len(tokens), -1, -1)
        return {
            "inputs_embeds": torch.cat([vectors, embedded], dim=1),
            "attention_mask": nn.functional.pad(mask, (len(prompt), 0), value=1),
        }

    def _padded(self, rows: Sequence[list[int]], filler: int) -> tuple[Tensor, Tensor]:
        T = max(map(len, rows))
        tokens = torch.tensor([[*row, *[filler] * (T - len(row))] for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (T - len(row)) for row in rows], device=self.device)
        return tokens, mask
