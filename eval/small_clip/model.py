"""The small CLIP: its open_clip configuration, text encoding without padding, and the folder that open_clip loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

MEAN, STD = [0.75, 0.73, 0.70], [0.33, 0.33, 0.35]


def configuration(vocabulary: int) -> dict[str, Any]:
    """`model_cfg` of open_clip_config.json."""
    return {
        "embed_dim": 256,
        "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 192, "layers": 6, "head_width": 64},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": "small_clip",
            "width": 192,
            "heads": 3,
            "layers": 4,
        },
    }


def create(vocabulary: int, token_vectors: Tensor) -> Any:
    """A new model whose token embedding is `token_vectors` [V, 192]."""
    model: Any = open_clip.CLIP(**configuration(vocabulary), output_dict=False)
    with torch.no_grad():
        model.token_embedding.weight.copy_(token_vectors)
    return model


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """`model.encode_text` for tokens [B, L] with L up to the context length: causal, so padding can be cut off."""
    B, L = tokens.shape
    x = model.token_embedding(tokens) + model.positional_embedding[:L]  # [B, L, D]
    x = model.transformer(x, attn_mask=model.attn_mask[:L, :L])
    x = model.ln_final(x)[torch.arange(B), tokens.argmax(dim=1)]  # [B, D], at the end token
    return x @ model.text_projection  # [B, E]


def save(model: nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write what `open_clip.create_model_and_transforms("local-dir:FOLDER")` reads, matrices as float16."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().half().contiguous() if value.ndim > 1 else value.detach().float().contiguous()
        for name, value in model.state_dict().items()
    }
    path = folder / "open_clip_model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors lets only the owner read it
    written = {
        "model_cfg": configuration(len(tokenizer)),
        "preprocess_cfg": {
            "mean": MEAN,
            "std": STD,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(written, indent=2) + "\n")
    tokenizer.save_pretrained(str(folder))
    path = folder / "tokenizer_config.json"
    kept = {name: value for name, value in json.loads(path.read_text()).items() if name != "backend"}
    path.write_text(json.dumps({**kept, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
