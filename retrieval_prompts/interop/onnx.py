"""An exported checkpoint as one ONNX file: token ids and mask in, vectors out.

The prompt needs no place in the graph: its vectors are rows of the vocabulary, and the text begins with their tokens
(`prompts` in config_sentence_transformers.json). Needs the packages onnx, onnxscript and onnxruntime.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import check_all_listed, check_output, write_bytes
from retrieval_prompts.interop.export import SAMPLES
from retrieval_prompts.towers.text import Floats, load_tower

TOLERANCE = 1e-4
LARGEST = 2**31  # bytes: what a single ONNX file can hold
INPUTS = ("input_ids", "attention_mask")


class _Embedder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]


def export_onnx(folder: Path | str, file: Path | str, *, overwrite: bool = False) -> None:
    """Write the checkpoint that `BiEncoder.export` wrote, or any other of sentence-transformers, as an ONNX file.

    Its inputs are `input_ids` and `attention_mask` (batch, tokens) in int64, its output is `sentence_embedding`
    (batch, dimension) in float32. Before it is written, onnxruntime runs it on sample texts.

    Raises:
        UserError: when a package is missing, for a checkpoint that was changed since, for a file that exists, for a
            model of more than 2 GB, and when the vectors are not those of the checkpoint to 1e-4.
    """
    file = Path(file)
    check_output(file, overwrite=overwrite)
    check_all_listed(Path(folder))
    try:
        onnxruntime, _ = import_module("onnxruntime"), import_module("onnxscript")
    except ImportError as error:
        raise UserError(f"ONNX needs a package: pip install onnx onnxscript onnxruntime ({error})") from None
    model = load_tower(folder, device="cpu").sentence_transformer.float()
    if sum(value.numel() * value.element_size() for value in model.state_dict().values()) > LARGEST:
        raise UserError(f"{folder} holds more than 2 GB of weights, too many for one ONNX file")
    program = _program(model)
    session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
    for encode, side in ((model.encode_query, "query"), (model.encode_document, "document")):
        theirs = encode(SAMPLES, batch_size=1)
        difference = float(np.abs(_run(session, model, side) - theirs).max() / max(1.0, float(np.abs(theirs).max())))
        if not difference <= TOLERANCE:
            raise UserError(
                f"model {folder}: its {side} vectors in onnxruntime differ by {difference:.1e} (at most {TOLERANCE:g} "
                "is accepted), so no file is written"
            )
    write_bytes(file, program)


def _program(model: Any) -> bytes:
    features = model.preprocess(SAMPLES[:3])
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and onnxscript about each other
        program = torch.onnx.export(
            _Embedder(model).eval(),
            tuple(features[name] for name in INPUTS),
            input_names=list(INPUTS),
            output_names=["sentence_embedding"],
            dynamic_shapes={name: {0: batch, 1: tokens} for name in INPUTS},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()


def _run(session: Any, model: Any, side: str) -> Floats:
    """The vectors of the sample texts, each one alone, with the prompt of a side."""
    names = ("query",) if side == "query" else ("document", "passage", "corpus")
    words = next((model.prompts[name] for name in names if model.prompts.get(name)), None)
    rows = []
    for text in SAMPLES:
        features = model.preprocess([text], prompt=words, task=side)
        rows.append(session.run(None, {name: features[name].numpy() for name in INPUTS})[0][0])
    return np.stack(rows)
