"""Input prompts -> a stock sentence-transformers checkpoint: added vocabulary rows, and prompts that name them.

`SentenceTransformer(FOLDER).encode_query` and `.encode_document` then give the same vectors in any process, with no
code of this package and no `trust_remote_code`. The checkpoint is written, loaded again and compared before it
appears under its name.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import CHECKPOINT, check_output, list_all, new_folder
from retrieval_prompts.prompts.encoders import SIDES
from retrieval_prompts.prompts.feedback import check_constant

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder

# No text contains such names; a text with "[Q0]" in it is nothing unusual
TOKEN_NAME = "<|soft-{side}-{index}|>"
SAMPLES = [
    "heat",
    " Leading and trailing spaces, CAPITALS and a comma. ",
    "0-dimensional biomaterials show inductive properties.",
    "for i in range(10): print(x[i] ** 2, end='\\n')",
    "Überprüfung naïver Fälle – 日本語のテキスト, русский текст, and an emoji 🙂",
    "A long text that fills the room of any model to its last token. " * 700,
]
TOLERANCE = 1e-6


def export(biencoder: BiEncoder, folder: Path, *, overwrite: bool = False) -> None:
    """Write the checkpoint atomically.

    Raises:
        UserError: for prefixes and partial strengths (no stock checkpoint can hold them), for a folder that exists, and
            when the loaded checkpoint does not reproduce the vectors to 1e-6.
    """
    if not biencoder.prompts:
        raise UserError("there is no prompt to export; load or train one first")
    feedback, mixture = biencoder.feedback is not None, biencoder.made_for_each is not biencoder.feedback
    check_exportable(biencoder.kind, biencoder.strength, feedback=feedback, mixture=mixture)
    check_output(folder, overwrite=overwrite, holds=CHECKPOINT)
    from sentence_transformers import SentenceTransformer

    tower = biencoder.tower
    model = copy.deepcopy(tower.sentence_transformer)
    tokens = _add_rows(biencoder, model)
    for side in SIDES:
        room = len(tokens.get(side, []))
        setattr(model[0], f"{side}_length", tower.total_length(side, room))
    # These take the place of a length among its saved options
    model[0].processing_kwargs.get("text", {}).pop("max_length", None)
    # For callers that name a prompt but no task: documents stay exact, and queries too while they fit
    model[0].tokenizer.model_max_length = model[0].document_length
    plain = dict(tower.sentence_transformer.prompts)
    with new_folder(folder, holds=CHECKPOINT, overwrite=overwrite) as temporary:
        for gap in ("", " "):
            named = {side: "".join(tokens[side]) + gap + tower.text_prompt(side) for side in tokens}
            others = {name: named[side] for side, name in tower.prompt_names.items() if side in named}
            model.prompts = {**plain, **others, **named}
            if all(_same_tokens(biencoder, model, side) for side in SIDES):
                break
        else:
            raise UserError(
                f"model {tower.name}: its tokenizer splits words after an added token differently, so a stock "
                "checkpoint would not give the same vectors; use BiEncoder.as_sentence_transformer()"
            )
        model.save_pretrained(str(temporary))
        loaded = SentenceTransformer(str(temporary), device=str(tower.device))
        for side, encode, check in (
            ("query", biencoder.encode_query, loaded.encode_query),
            ("document", biencoder.encode_document, loaded.encode_document),
        ):
            # One text at a time: what differs is then the checkpoint, not the rounding of padded batches
            ours, theirs = np.stack([encode(text) for text in SAMPLES]), check(SAMPLES, batch_size=1)
            difference = float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(ours).max())))
            if not difference <= TOLERANCE:
                raise UserError(
                    f"model {tower.name}: the exported checkpoint's {side} vectors differ by {difference:.1e} (at most "
                    f"{TOLERANCE:g} is accepted); use BiEncoder.as_sentence_transformer()"
                )
        list_all(temporary)


def check_exportable(kind: str, strength: float, *, feedback: bool = False, mixture: bool = False) -> None:
    """Raises UserError that says why where no stock checkpoint can hold such prompts."""
    check_constant("a stock checkpoint", feedback=feedback, mixture=mixture)
    if kind == "prefix":
        raise UserError(
            "a prefix is keys and values inside every layer, and no stock checkpoint has a place for them: export "
            "needs --kind input; for a live model use BiEncoder.as_sentence_transformer()"
        )
    if strength == 0:
        raise UserError(
            "no prompt helped where these were tuned, so they have strength 0, which is the frozen model: use that, or "
            "pass --strength 1 to export the prompt all the same"
        )
    if strength != 1:
        raise UserError(
            f"these prompts have strength {strength:g}, and a stock checkpoint holds whole prompts only; "
            "pass --strength 1 to export them whole"
        )


def _add_rows(biencoder: BiEncoder, model: Any) -> dict[str, list[str]]:
    """Add one vocabulary row a prompt vector; returns side -> the added tokens in order."""
    from tokenizers import AddedToken

    tokenizer = model[0].tokenizer
    vocabulary = tokenizer.get_vocab()
    tokens: dict[str, list[str]] = {}
    rows: dict[int, torch.Tensor] = {}
    for side in biencoder.prompts:
        vectors = biencoder.prompt(side)
        assert vectors is not None
        names = [TOKEN_NAME.format(side=side, index=index) for index in range(vectors.shape[1])]
        while set(names) & set(vocabulary):  # the model is itself an export
            names = [f"<{name}>" for name in names]
        tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)
        tokens[side] = names
        rows |= dict(zip(tokenizer.convert_tokens_to_ids(names), vectors[0].detach(), strict=True))
    network = model[0].model
    size = max(max(rows) + 1, network.get_input_embeddings().weight.shape[0])
    network.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        weight = network.get_input_embeddings().weight
        for token, vector in rows.items():
            weight[token] = vector.to(weight)
    return tokens


def _same_tokens(biencoder: BiEncoder, model: Any, side: str) -> bool:
    """Whether the checkpoint's tokenizer sees leading tokens, the prompt's rows, and then the text as we do."""
    tower = biencoder.tower
    prompt = biencoder.prompt(side)
    room = 0 if prompt is None else prompt.shape[1]
    name = next((name for name in (side, "passage", "corpus") if name in model.prompts), None)
    words = model.prompts[name] if name is not None else tower.text_prompt(side)
    for text, ours in zip(SAMPLES, biencoder.tokenize(SAMPLES, side), strict=True):
        features = model[0].preprocess([text], prompt=words or None, task=side)
        theirs = features["input_ids"][0].tolist()
        if theirs[: tower.lead] + theirs[tower.lead + room :] != ours:
            return False
    return True
