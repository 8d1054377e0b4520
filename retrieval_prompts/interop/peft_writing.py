"""Prompts for language models and PEFT's adapters of prompt tuning, one into the other. Needs no peft.

Both put the same vectors before all tokens of the input, so that a model writes the same with them here and there.
"""

from __future__ import annotations

from pathlib import Path

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import ADAPTER, list_all, new_folder, write_bytes, write_json
from retrieval_prompts.interop.peft import CONFIG, TYPES, VECTORS, WEIGHTS, read_config, read_vectors
from retrieval_prompts.interop.sharing.hub import hub_name
from retrieval_prompts.prompts.writing_folder import WritingPrompt
from retrieval_prompts.towers.language import LanguageModel

CAUSAL, TO_SEQUENCE = "CAUSAL_LM", "SEQ_2_SEQ_LM"


def read_writing_adapter(folder: Path | str, model: LanguageModel) -> WritingPrompt:
    """An adapter of prompt tuning or p-tuning as a prompt for the model that it was trained on.

    Raises:
        UserError: for a prefix, weights that are no safetensors, and shapes that do not fit the model.
    """
    path = Path(folder)
    config = read_config(path, language=True)
    if TYPES[config["peft_type"]] != "input":
        raise UserError(f"{path / CONFIG}: a prefix for a language model is not read; expected prompt tuning")
    # Of a sequence-to-sequence model PEFT keeps vectors for the decoder too, and uses those of the encoder
    vectors = read_vectors(path)
    length = config.get("num_virtual_tokens")
    if not isinstance(length, int) or not 1 <= length <= len(vectors):
        raise UserError(f"{path / CONFIG}: expected a num_virtual_tokens from 1 to {len(vectors)}, got {length!r}")
    vectors = vectors[:length]
    if vectors.shape[1] != model.width:
        raise UserError(
            f"{path / WEIGHTS}: its vectors have {vectors.shape[1]} numbers, and model {model.name} takes "
            f"{model.width}; give the model that it was trained on ({config.get('base_model_name_or_path')})"
        )
    said = f"PEFT {config.get('peft_version') or ''} {config['peft_type']}"
    return WritingPrompt.of(model, vectors, {"imported": said})


def write_writing_adapter(
    prompt: WritingPrompt, model: LanguageModel, folder: Path | str, *, overwrite: bool = False
) -> None:
    """Write a prompt as a folder that `peft.PeftModel.from_pretrained` loads onto the base model.

    Raises:
        UserError: for another model than that of the prompt, and for a folder that exists.
    """
    from safetensors.torch import save

    prompt.check(model)
    length, width = prompt.vectors.shape
    settings = model.model.config
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": CAUSAL if model.causal else TO_SEQUENCE,
        "base_model_name_or_path": hub_name(model.name) or model.name,
        "inference_mode": True,
        "num_virtual_tokens": length,
        "num_transformer_submodules": 1,
        "num_layers": settings.num_hidden_layers,
        "num_attention_heads": settings.num_attention_heads,
        "token_dim": width,
    }
    with new_folder(Path(folder), holds=ADAPTER, overwrite=overwrite) as temporary:
        write_bytes(temporary / WEIGHTS, save({VECTORS: prompt.vectors.contiguous()}))
        write_json(temporary / CONFIG, config)
        list_all(temporary)
