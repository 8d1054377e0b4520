"""Prompt folders and PEFT adapters (prompt tuning, p-tuning, prefix tuning), one into the other. Needs no peft.

The numbers are the same on both sides, in another layout:

    input    ours (1, length, width), PEFT (length, width)
    prefix   ours (layers, length, 2 * kv), PEFT (length, layers * 2 * kv); kv is the width of a layer's keys

Where they enter the model is not the same, so a model gives other embeddings with them here than in PEFT:

    input    PEFT puts them before the leading special tokens ([CLS]), we put them after these. Without such tokens
             (Qwen3) there is no difference.
    prefix   PEFT counts the positions of the text from `length`, we from 0 as in the frozen model.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from retrieval_prompts.errors import UserError, few
from retrieval_prompts.files import ADAPTER, check_all_listed, list_all, new_folder, read_json, write_bytes, write_json
from retrieval_prompts.interop.sharing.hub import hub_name
from retrieval_prompts.prompts.encoders import SIDES, PromptTable
from retrieval_prompts.prompts.feedback import check_constant
from retrieval_prompts.prompts.folder import PromptFolder
from retrieval_prompts.towers.injection import prompt_shape
from retrieval_prompts.towers.text import TextTower

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
VECTORS = "prompt_embeddings"
# PEFT collapses the encoder of p-tuning and the projection of prefix tuning to plain vectors when it saves them
TYPES = {"PROMPT_TUNING": "input", "P_TUNING": "input", "PREFIX_TUNING": "prefix"}


def read_config(folder: Path | str, *, language: bool = False) -> dict[str, Any]:
    """The contents of `adapter_config.json`.

    Args:
        language: of a language model, which may have an encoder and a decoder.

    Raises:
        UserError: when the adapter is of a kind that is no soft prompt.
    """
    path = Path(folder)
    if not (path / CONFIG).is_file():
        raise UserError(f"{path} is not a PEFT adapter: expected {CONFIG} and {WEIGHTS} in it")
    config = read_json(path / CONFIG)
    came = config.get("peft_type") if isinstance(config, dict) else None
    if not isinstance(came, str) or came not in TYPES:
        raise UserError(f"{path / CONFIG}: expected a peft_type of {', '.join(TYPES)}, got {came!r}")
    if config.get("num_transformer_submodules") not in (None, 1) and not language:
        raise UserError(f"{path / CONFIG}: these prompts are for an encoder and a decoder; expected a single encoder")
    if not (path / WEIGHTS).is_file():
        hint = f"; {PICKLE} may run code when it is read: save it again as safetensors" * (path / PICKLE).is_file()
        raise UserError(f"{path} has no {WEIGHTS}{hint}")
    return config


def read_adapter(folder: Path | str, tower: TextTower, side: str = "query") -> PromptFolder:
    """A PEFT adapter as prompts of one side, for the model that it was trained on.

    An adapter only names its model, so of the model no more than its shape can be checked. Warns where the model
    gives other embeddings with these vectors than in PEFT (see the module's docstring), and where the adapter holds
    other weights too, such as a classifier's head: they are left out.

    Raises:
        UserError: for other adapters, weights that are no safetensors, and shapes that do not fit the model.
    """
    from retrieval_prompts.biencoder import BiEncoder

    if side not in SIDES:
        raise UserError(f"--side must be {' or '.join(SIDES)}, got {side!r}")
    path = Path(folder)
    config = read_config(path)
    flat, kind = read_vectors(path), TYPES[config["peft_type"]]
    shape = prompt_shape(tower, kind, len(flat))
    layers, length, width = shape
    if flat.numel() != layers * length * width:
        raise UserError(
            f"{path / WEIGHTS}: its vectors have {flat.shape[1]} numbers, and model {tower.name} takes "
            f"{layers * width}; give the model that it was trained on ({config.get('base_model_name_or_path')})"
        )
    vectors = flat.view(length, layers, width).transpose(0, 1).contiguous()
    if kind == "input":
        vectors = vectors / _scale(tower)
    _warn(tower, kind, length)
    made = BiEncoder(tower, kind, {side: PromptTable(vectors.to(tower.device))})
    made.training_record = {"imported": f"PEFT {config.get('peft_version') or ''} {config['peft_type']}"}
    return made.collapsed()


def read_vectors(path: Path) -> Tensor:
    """(rows, numbers) the prompt of an adapter as PEFT keeps it, in float32. Warns of what is left out.

    Raises:
        UserError: for weights that are no safetensors, or hold no prompt, or were changed since they were written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_all_listed(path)
    try:
        tensors = load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path / WEIGHTS} cannot be read as safetensors ({error})") from error
    if VECTORS not in tensors or tensors[VECTORS].ndim != 2:
        raise UserError(f"{path / WEIGHTS}: expected one matrix {VECTORS!r}, got {few(sorted(tensors)) or 'nothing'}")
    if others := sorted(set(tensors) - {VECTORS}):
        warnings.warn(
            f"{path / WEIGHTS}: the prompt is taken, and what was trained beside it is left out, such as the head of a "
            f"classifier: {few(others)}",
            UserWarning,
            stacklevel=3,
        )
    return tensors[VECTORS].float()


def write_adapter(
    biencoder: BiEncoder, folder: Path | str, side: str | None = None, *, overwrite: bool = False
) -> None:
    """Write the prompt of one side as a folder that `peft.PeftModel.from_pretrained` loads onto the base model.

    Args:
        side: "query" or "document"; None: the only one there is.

    Warns where PEFT gives other embeddings with these vectors (see the module's docstring).

    Raises:
        UserError: without such a prompt, for a partial strength, which PEFT knows nothing of, and for a folder that
            exists.
    """
    from safetensors.torch import save

    prompts = biencoder.collapsed()
    check_constant("a PEFT adapter", feedback=prompts.feedback is not None, mixture=prompts.mixture is not None)
    if side is None and len(prompts.vectors) == 1:
        (side,) = prompts.vectors
    if side not in prompts.vectors:
        raise UserError(f"a PEFT adapter holds the prompt of one side: pass --side, {' or '.join(prompts.vectors)}")
    if prompts.strength != 1:
        raise UserError(f"these prompts have strength {prompts.strength:g}, and PEFT knows whole prompts only")
    tower, vectors = biencoder.tower, prompts.vectors[side].cpu()
    layers, length, width = vectors.shape
    settings = tower.model.config
    config = {
        "peft_type": "PROMPT_TUNING" if prompts.kind == "input" else "PREFIX_TUNING",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": hub_name(tower.name) or tower.name,
        "inference_mode": True,
        "num_virtual_tokens": length,
        "num_transformer_submodules": 1,
        "num_layers": settings.num_hidden_layers,
        "num_attention_heads": settings.num_attention_heads,
        "token_dim": width,
    }
    if prompts.kind == "prefix":
        heads = getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads
        config |= {"num_layers": layers, "num_attention_heads": heads, "token_dim": width // 2}
    else:
        vectors = vectors * _scale(tower)
    flat = vectors.transpose(0, 1).reshape(length, layers * width).contiguous()
    _warn(tower, prompts.kind, length)
    with new_folder(Path(folder), holds=ADAPTER, overwrite=overwrite) as temporary:
        write_bytes(temporary / WEIGHTS, save({VECTORS: flat}))
        write_json(temporary / CONFIG, config)
        list_all(temporary)


def _scale(tower: TextTower) -> Tensor | float:
    """What the model multiplies its embeddings with (Gemma): in PEFT's vectors, not in ours."""
    scale = getattr(tower.embeddings, "embed_scale", 1.0)
    return scale.detach().cpu().float() if isinstance(scale, torch.Tensor) else float(scale)


def _warn(tower: TextTower, kind: str, length: int) -> None:
    if kind == "input" and tower.lead:
        differs = "PEFT puts input prompts before the leading special tokens, retrieval-prompts after them"
    elif kind == "prefix":
        differs = f"after a prefix PEFT counts positions from {length}, retrieval-prompts from 0"
    else:
        return
    warnings.warn(
        f"{differs}: the vectors are the same, the embeddings that {tower.name} makes with them are not; "
        "evaluate again",
        UserWarning,
        stacklevel=3,
    )
