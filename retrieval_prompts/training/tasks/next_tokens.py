"""Train a soft prompt of a frozen language model on texts and what is to be written for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.encoders import PromptTable
from retrieval_prompts.prompts.initialize import initial_vectors
from retrieval_prompts.prompts.writing_folder import WritingPrompt
from retrieval_prompts.towers.language import LanguageModel
from retrieval_prompts.training.loop import LoopSettings, Training, fit
from retrieval_prompts.training.losses import next_token
from retrieval_prompts.training.task import Positions, Task, parts
from retrieval_prompts.training.tasks.settings import WritingSettings

Pairs = Sequence[tuple[str, str]]
DEV = 5  # every so manyth pair is set aside to choose by
FEWEST = 10  # pairs
ROUNDS = 10  # dev losses of a training


class WritingTask(Task):
    """Pairs of (text, what is to be written) to train on.

    Raises:
        UserError: for fewer than FEWEST.
    """

    def __init__(self, model: LanguageModel, pairs: Pairs, settings: WritingSettings) -> None:
        super().__init__(model.device, settings.precision, settings.seed)
        if len(pairs) < FEWEST:
            raise UserError(f"expected at least {FEWEST} pairs of a text and what is to be written, got {len(pairs)}")
        self.model, self.settings = model, settings
        self.table = PromptTable(initial_vectors(model, "input", settings.length, settings.init, settings.seed))
        ids = [model.pair(*pair, settings.length) for pair in pairs]
        order = np.random.default_rng(settings.seed).permutation(len(ids))
        self.dev = [ids[at] for at in order[: len(ids) // DEV]]
        self.train_pairs = [ids[at] for at in order[len(ids) // DEV :]]
        self.round = max(1, math.ceil(settings.max_steps / ROUNDS))

    def loss(self, batch: Positions) -> Tensor:
        """Of the pairs of a batch, a mean over tokens."""
        with self.autocast():
            logits, labels = self.model.logits([self.train_pairs[at] for at in batch], self.table()[0])
        return next_token(logits.float(), labels)

    @torch.no_grad()
    def dev_loss(self, prompt: Tensor | None) -> float:
        """The mean over all tokens of the pairs that were set aside; with no prompt, that of the frozen model."""
        total, count = 0.0, 0
        for start in range(0, len(self.dev), self.settings.batch_size):
            logits, labels = self.model.logits(self.dev[start : start + self.settings.batch_size], prompt)
            tokens = int((labels >= 0).sum())
            total, count = total + float(next_token(logits.float(), labels)) * tokens, count + tokens
        return total / count

    def train(self) -> Training:
        """Trains the prompt as it is iterated; afterwards it has the vectors with the smallest dev loss."""

        @lru_cache(maxsize=1)
        def order(epoch: int) -> list[Positions]:
            return parts(self.generator(epoch).permutation(len(self.train_pairs)), self.settings.batch_size)

        per_epoch = len(order(0))

        def batches(number: int) -> list[Positions]:
            places = (divmod(step, per_epoch) for step in range(number * self.round, (number + 1) * self.round))
            return [order(epoch)[place] for epoch, place in places]

        rounds = max(1, self.settings.max_steps // self.round)
        loop = LoopSettings(rounds, self.settings.learning_rate, advice="try a smaller --lr")
        return fit(self.table, batches, self.loss, lambda: -self.dev_loss(self.table()[0]), loop)

    def found(self) -> WritingPrompt:
        """The prompt, with the dev losses with and without it."""
        vectors = self.table()[0].detach()
        losses = {"frozen": self.dev_loss(None), "prompt": self.dev_loss(vectors)}
        record = {"settings": asdict(self.settings), "train_pairs": len(self.train_pairs), "dev_pairs": len(self.dev)}
        return WritingPrompt.of(self.model, vectors, {**record, "dev_loss": losses})
