"""LoRA (Hu et al. 2022) on a copy of the frozen model, by peft: low-rank updates of its attention, for queries alone.

The copy shares nothing with the frozen model, which stays as it is and goes on encoding documents.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import UserError
from retrieval_prompts.experiments.baselines.task import QueryTraining, Retriever, Task, train
from retrieval_prompts.towers.injection import SHORT
from retrieval_prompts.towers.kernels import attention_kernel
from retrieval_prompts.towers.text import Floats, TextTower
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.vectors.encode import embed_texts

LEARNING_RATE = 1e-3
RANK, ALPHA = 8, 16  # the values of most published uses; peft's default alpha is 8
# What the families of encoders call their query and value projections
PROJECTIONS = (
    ("query", "value"),  # BERT, RoBERTa, XLM-R, ELECTRA
    ("q_proj", "v_proj"),  # Qwen, Llama, Mistral, Gemma
    ("q_lin", "v_lin"),  # DistilBERT
    ("query_proj", "value_proj"),  # DeBERTa
    ("q", "v"),  # MPNet, T5
)


def fit(
    task: Task,
    *,
    rank: int = RANK,
    alpha: int = ALPHA,
    learning_rate: float = LEARNING_RATE,
    settings: TuneSettings | None = None,
) -> Retriever:
    """Train LoRA of the query side; documents stay frozen, as they do with a query prompt.

    The record says "used": False where no dev score beats the frozen model's: then that model answers.

    Args:
        rank, alpha: of the updates, which are scaled by alpha / rank.
        settings: loss, loop and precision, as `tune` has them; its learning rate and seed give way.

    Raises:
        UserError: when peft is missing, there is no query to train on, training diverges, or rank or alpha is no
            positive number.
    """
    if rank < 1 or alpha <= 0:
        raise UserError(f"LoRA needs a rank of 1 or more and an alpha above 0, got {rank} and {alpha}")
    settings = dataclasses.replace(settings or TuneSettings(), learning_rate=learning_rate, seed=task.seed)
    bfloat16 = QueryTraining(task, settings).bfloat16
    tower = inject(task.biencoder.tower, rank, alpha, task.seed)
    learned = nn.ParameterList(parameter for parameter in tower.model.parameters() if parameter.requires_grad)

    def embed(texts: list[str]) -> Tensor:
        rows = tower.tokenize(texts, "query")
        training = torch.is_grad_enabled()
        plain = training and max(map(len, rows)) <= SHORT
        with attention_kernel(plain), torch.autocast(tower.device.type, torch.bfloat16, bfloat16 and training):
            return tower.comparable(embed_texts(tower, rows, "query", "input", None)).float()

    record = train(task, learned, embed, settings, name="LoRA")
    record["settings"] |= {"rank": rank, "alpha": alpha, "targets": targets(task.biencoder.tower.model)}
    if not record["used"]:
        return Retriever(task.index, task.frozen, record)

    def encode(texts: Sequence[str]) -> Floats:
        return BiEncoder(tower).query_vectors(list(texts))

    return Retriever(task.index, encode, record)


def inject(tower: TextTower, rank: int, alpha: int, seed: int) -> TextTower:
    """A copy of the tower with LoRA in it, its only parameters that ask for gradients; at first it changes nothing.

    Raises:
        UserError: when peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("LoRA needs peft: pip install peft") from None

    made = TextTower(copy.deepcopy(tower.sentence_transformer), tower.name)  # no tensor in common
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets(tower.model))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, made.model)
    for parameter in made.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # of a model in bfloat16 too: small steps would be lost
    return made


def targets(model: nn.Module) -> list[str] | str:
    """The names of a model's query and value projections; "all-linear" where they are not known by name."""
    linear = {name.split(".")[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return next((list(pair) for pair in PROJECTIONS if linear.issuperset(pair)), "all-linear")
