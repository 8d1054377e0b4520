"""What serves a classifier without this package: class matrix, head, names, and a FAISS index of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from retrieval_prompts.data.corpus import Document
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import CLASSES, list_all, new_folder, write_bytes, write_json
from retrieval_prompts.vectors.index import Index

if TYPE_CHECKING:
    from multimodal.classifier import PromptClassifier
    from multimodal.heads.answer import Answer


def export(
    classifier: PromptClassifier, folder: Path | str, classes: Sequence[str] | None = None, *, overwrite: bool = False
) -> None:
    """See `PromptClassifier.export`.

    `classes.safetensors` holds "weight" (C, D), unit-length rows; "logit_scale" (with the temperature in it): the
    prompt's logits of unit-length image features X are logit_scale * X @ weight.T. Where a head answers for all of
    the classes, "head_weight", "head_bias" and perhaps "head_keys", "head_values" are there too: its logits are X @
    head_weight.T + head_bias + exp(-beta * (1 - X @ head_keys.T)) @ head_values, `beta` in `classes.json`.
    """
    clip, strength = classifier.clip, classifier.strength
    if classifier.prompts_images and strength > 0:
        raise UserError(
            f"{classifier.settings.method} prompts the image tower too: a class matrix alone is not the model; give the"
            " prompt folder itself to classify or PromptClassifier.load, or export prompts of the text side (coop, tcp)"
        )
    names = classifier.known_classes(classes).names
    vectors = classifier.class_vectors(classes).cpu().contiguous()
    scale = torch.tensor(clip.scale / classifier.temperature)
    tensors = {"weight": vectors, "logit_scale": scale}
    about: dict[str, Any] = {
        "names": list(names),
        "model": clip.name,
        "pretrained": clip.pretrained,
        "fingerprint": clip.fingerprint,
        "logit_scale": float(scale),
    }
    if (answer := held(classifier, classes)) is not None:
        columns = answer.positions(names)
        head = answer.head.of_classes(columns)
        tensors |= {f"head_{name}": value.float().contiguous() for name, value in head.tensors.items()}
        about["head"] = {"name": answer.name, "beta": head.beta}
    with new_folder(Path(folder), holds=CLASSES, overwrite=overwrite) as new:
        write_bytes(new / "classes.safetensors", save(tensors))
        write_json(new / "classes.json", about)
        documents = [Document(name, name, "") for name in names]
        index = Index.build(vectors.numpy(), documents, names, encoder={"fingerprint": clip.fingerprint})
        index.save(new / "index")
        list_all(new)


def held(classifier: PromptClassifier, classes: Sequence[str] | None = None) -> Answer | None:
    """The head that an export for these classes holds; None where there is none, or it does not answer for all."""
    answer = classifier.answer
    names = classifier.known_classes(classes).names
    whole = answer is not None and classifier.strength == 1 and answer.knows_all(names)
    return answer if whole else None
