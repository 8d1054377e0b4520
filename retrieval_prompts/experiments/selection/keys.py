"""What prompts were tuned on, as a mixture of prompts knows it: the mean of their training queries, and a floor."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.prompts.folder import PromptFolder
from retrieval_prompts.prompts.merging import Key
from retrieval_prompts.prompts.mixture import FLOOR
from retrieval_prompts.towers.text import TextTower, unit_length
from retrieval_prompts.training.training_data import TrainingData


def key_of(tower: TextTower, dataset: Dataset, *, floor: float = FLOOR) -> Key:
    """The key of prompts that were tuned on a data set, by its training queries alone.

    Args:
        floor: the part of them that is less like their mean than the key's floor.

    Raises:
        UserError: when there are none.
    """
    training = TrainingData.of(dataset)
    texts = list(dict.fromkeys(training.queries[query] for query in training.train))
    vectors = unit_length(BiEncoder(tower).encode_query(texts))
    direction = unit_length(vectors.mean(axis=0, keepdims=True))[0]
    return Key(torch.from_numpy(direction), float(np.quantile(vectors @ direction, floor)))


def check_tuned_on(prompts: PromptFolder, dataset: Dataset, source: str) -> None:
    """Raises UserError where prompts say that they were tuned on other documents; warns where they say nothing."""
    corpus = prompts.training.get("corpus")
    if corpus is None:
        warnings.warn(
            f"{source} does not say what it was tuned on; it is taken to be {dataset.name}", DataWarning, stacklevel=2
        )
    elif corpus != dataset.corpus.fingerprint:
        raise UserError(
            f"{source} was tuned on {prompts.training.get('dataset')}, not on {dataset.name}; pass the data of each "
            "prompt folder, in their order"
        )
