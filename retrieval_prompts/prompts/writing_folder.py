"""The folder of a prompt for a language model; the format is that of all prompts, see `prompts.folder`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.folder import DESCRIPTION, MOST, describe, read, strictly, write
from retrieval_prompts.towers.language import LanguageModel

PROMPT = "prompt"


@dataclass(frozen=True)
class WritingPrompt:
    """A soft prompt that steers a frozen language model.

    Args:
        vectors: (length, width).
        base: the frozen model: "name", "fingerprint" and "width".
        training: settings, data and losses; free-form JSON.
    """

    vectors: Tensor
    base: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: LanguageModel, vectors: Tensor, training: dict[str, Any]) -> WritingPrompt:
        """Vectors (length, width) for this model."""
        base = {"name": model.name, "fingerprint": model.fingerprint, "width": model.width}
        return cls(vectors.detach().float().cpu(), base, training)

    def check(self, model: LanguageModel, source: str = "this prompt") -> WritingPrompt:
        """Returns itself.

        Raises:
            UserError: for another model than the one that it was trained on.
        """
        if self.base["fingerprint"] != model.fingerprint or self.vectors.shape[1] != model.width:
            raise UserError(
                f"{source} was made for {self.base['name']} (fingerprint {self.base['fingerprint'][:8]}), got "
                f"{model.name} ({model.fingerprint[:8]}); use that model, or train again"
            )
        return self

    def save(self, folder: Path | str, *, overwrite: bool = False) -> None:
        """Write the folder atomically.

        Raises:
            UserError: when it exists, unless `overwrite`.
        """
        about = {"kind": "input", "base": self.base, "strength": 1.0, "training": self.training}
        write(folder, "writing", {PROMPT: self.vectors}, about, overwrite=overwrite)


def load_writing(folder: Path | str) -> WritingPrompt:
    """Read the folder strictly.

    Raises:
        UserError: when a part is missing, malformed or does not fit the rest.
    """
    about, file = describe(folder, "writing"), Path(folder) / DESCRIPTION
    with strictly(file):
        about["base"]["width"] = int(about["base"]["width"])
    tensors = read(folder, about)
    if tensors.keys() != {PROMPT} or tensors[PROMPT].ndim != 2 or len(tensors[PROMPT]) > MOST:
        raise UserError(f"{folder}: expected one prompt of shape (length, width); restore or train it again")
    return WritingPrompt(tensors[PROMPT], about["base"], about["training"])
