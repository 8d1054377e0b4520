"""Train a query prompt on labelled texts: a text is a query, and what its label is called is the document that it asks
for. The documents are few and frozen, so that a step compares its texts with all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.training.loop import LoopSettings, Training, fit
from retrieval_prompts.training.losses import info_nce
from retrieval_prompts.training.task import Positions, Task, parts
from retrieval_prompts.training.tasks.settings import LabelSettings


def plain_temperature(tower: TextTower) -> float:
    """What similarities are divided by where nothing is there to fit it on."""
    return 0.05 if tower.similarity == "cosine" else 1.0


class LabelTask(Task):
    """Labelled texts to train on.

    Args:
        biencoder: with a query prompt attached.
        labels: (n,) the number of each text's label.
        documents: (C, dimension) the frozen vectors of what the labels are called, ready to be compared.
    """

    def __init__(
        self, biencoder: BiEncoder, texts: Sequence[str], labels: Positions, documents: Tensor, settings: LabelSettings
    ) -> None:
        super().__init__(biencoder.tower.device, settings.precision, settings.seed)
        self.biencoder, self.settings = biencoder, settings
        self.ids = biencoder.tokenize(list(texts), "query")
        self.positive = torch.zeros(len(labels), len(documents), dtype=torch.bool)
        self.positive[torch.arange(len(labels)), torch.from_numpy(labels)] = True
        self.documents = documents.to(self.device)
        self.temperature = plain_temperature(biencoder.tower)

    def batches(self, epoch: int) -> list[Positions]:
        """All texts in an order that the seed and the epoch alone decide."""
        return parts(self.generator(epoch).permutation(len(self.ids)), self.settings.batch_size)

    def loss(self, batch: Positions) -> Tensor:
        """Cross-entropy of the texts' labels: InfoNCE with one positive a text."""
        with self.autocast():
            queries = self.biencoder.embed([self.ids[position] for position in batch], "query").float()
        positive = self.positive[torch.from_numpy(batch)].to(self.device)
        return info_nce(queries @ self.documents.T, positive, self.temperature)

    def train(self) -> Training:
        """Trains the prompt as it is iterated; there are no texts to spare to choose by, so the last one is kept."""

        order, per_epoch = lru_cache(maxsize=1)(self.batches), len(self.batches(0))

        def step(number: int) -> list[Positions]:
            """What the loop calls an epoch is one step, so that their number is as asked."""
            epoch, place = divmod(number, per_epoch)
            return [order(epoch)[place]]

        loop = LoopSettings(self.settings.max_steps, self.settings.learning_rate, advice="try a smaller --lr")
        return fit(self.biencoder, step, self.loss, None, loop)
