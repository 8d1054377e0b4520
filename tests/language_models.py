"""Tiny language models, made on the fly: a GPT-2 or a T5 with the words of tiny.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch


def write_language_model(folder: Path, kind: str, seed: int = 0) -> Path:
    """A GPT-2 or a T5 of one layer with the tiny model's words, random."""
    import transformers

    transformers.logging.disable_progress_bar()
    vocabulary = {word: number for number, word in enumerate([*tiny.SPECIAL, "document", "query", ":", *tiny.FRAME])}
    vocabulary |= {word: len(vocabulary) + number for number, word in enumerate(tiny.WORDS)}
    tokenizer = transformers.BertTokenizer(vocab=vocabulary)
    tokenizer.eos_token = "[SEP]"
    shape: dict[str, Any] = {"vocab_size": len(vocabulary), "eos_token_id": 3, "pad_token_id": 0}
    network: transformers.PreTrainedModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "causal":
            shape |= {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "initializer_range": 0.2}
            network = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=2))
        else:
            shape |= {
                "d_model": 32,
                "d_kv": 16,
                "d_ff": 32,
                "num_layers": 1,
                "num_heads": 2,
                "decoder_start_token_id": 0,
            }
            network = transformers.T5ForConditionalGeneration(transformers.T5Config(**shape))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
