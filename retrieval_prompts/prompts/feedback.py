"""Feedback prompts: made for each query from the documents that a first search with the frozen model returns.

    prompt = [static vectors, gate_1 * f(d_1), ..., gate_k * f(d_k)],   f(d) = d @ map + bias

with d_r the frozen vector of the document at rank r. The map starts by ridge regression from document vectors to the
mean of what the frozen model's own words are at the place where prompts enter, so that it needs no label to start
from. Relatives that read texts instead of vectors: ANCE-PRF (Yu et al. 2021, arXiv 2108.13454); that move the query's
vector instead of the model's input: vector PRF (Li et al. 2021, arXiv 2108.11044).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.encoders import PromptTable, fingerprint
from retrieval_prompts.prompts.folder import PARTS, PromptFolder
from retrieval_prompts.prompts.mixture import MixturePrompt
from retrieval_prompts.prompts.settings import PromptSettings
from retrieval_prompts.towers.fingerprint import digest
from retrieval_prompts.towers.injection import record_prefix
from retrieval_prompts.towers.text import TextTower

MAP_RATE = 0.05  # of the learning rate: the map starts from a good place, and has many more numbers than the vectors
RIDGE = 0.1  # the penalty of the regression, in variances of a document vector's components
SAMPLE = 2000  # documents that the regression reads
RECORDED = 500  # the same where each document runs through the model
TOKENS = 64  # of such a document
NEEDS_INDEX = (
    "feedback prompts are made for each query from what an index returns, and {} has none: use BiEncoder with bind, or "
    "retrieval-prompts search; prompts of --encoder table need no index"
)
NEEDS_VECTOR = (
    "a mixture is weighed anew for each query by its frozen vector, and {} holds one prompt for all: use BiEncoder, or "
    "retrieval-prompts search; or merge with --method average"
)
UNBOUND = (
    "these prompts are made from the documents that a first search finds, and there is no index to search; give one "
    "with BiEncoder.bind"
)


@dataclass(frozen=True)
class Start:
    """Where a map starts: `map` (dimension, layers * width) and `bias` (layers * width)."""

    map: Tensor
    bias: Tensor


class FeedbackPrompt(nn.Module):
    """Static vectors, and one for each document of a first search.

    Args:
        initial: the static vectors (layers, length, width).
        start: of the map.
        gate: (documents,) what the vector of each rank is multiplied with; its length says how many documents are read.
        bm25_weight: of BM25 in the first search.
    """

    start_map: Tensor
    start_bias: Tensor

    def __init__(self, initial: Tensor, start: Start, gate: Tensor, bm25_weight: float) -> None:
        super().__init__()
        self.vectors = nn.Parameter(initial.clone())
        self.gate = nn.Parameter(gate.clone())
        self.map_change = nn.Parameter(torch.zeros_like(start.map))
        self.bias_change = nn.Parameter(torch.zeros_like(start.bias))
        self.register_buffer("start_map", start.map.clone())
        self.register_buffer("start_bias", start.bias.clone())
        self.bm25_weight = bm25_weight

    @property
    def documents(self) -> int:
        """How many documents a query's prompt is made from."""
        return len(self.gate)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(layers, length, width) of a query's prompt."""
        layers, length, width = self.vectors.shape
        return layers, length + self.documents, width

    def forward(self, documents: Tensor | None = None) -> Tensor:
        """Frozen vectors of each query's documents (queries, documents, dimension), best first -> prompts (queries,
        layers, length, width).

        Raises:
            UserError: without documents.
        """
        if documents is None:
            raise UserError(UNBOUND)
        layers, _, width = self.vectors.shape
        made = documents @ self._map + self._bias  # (queries, documents, layers * width)
        made = (made * self.gate[:, None]).unflatten(2, (layers, width)).transpose(1, 2)
        return torch.cat([self.vectors.expand(len(documents), -1, -1, -1), made], dim=2)

    def parts(self) -> dict[str, Tensor]:
        """What is kept of the map: "map" (dimension, layers * width), "bias" and "gate"."""
        return {"map": self._map.detach(), "bias": self._bias.detach(), "gate": self.gate.detach()}

    @classmethod
    def of(cls, vectors: Tensor, parts: Mapping[str, Tensor], bm25_weight: float) -> FeedbackPrompt:
        """What was kept.

        Raises:
            UserError: for shapes that do not belong together.
        """
        layers, _, width = vectors.shape
        shapes = {name: tuple(parts[name].shape) for name in PARTS}
        dimension = parts["map"].shape[0]
        if (
            shapes["map"] != (dimension, layers * width)
            or shapes["bias"] != (layers * width,)
            or parts["gate"].dim() != 1
        ):
            raise UserError(f"expected a map to {layers * width} numbers, its bias and a gate a document, got {shapes}")
        return cls(vectors, Start(parts["map"], parts["bias"]), parts["gate"], bm25_weight)

    @property
    def _map(self) -> Tensor:
        return self.start_map + MAP_RATE * self.map_change

    @property
    def _bias(self) -> Tensor:
        return self.start_bias + MAP_RATE * self.bias_change


def maker(settings: PromptSettings, start: Start | None) -> Callable[[Tensor], nn.Module]:
    """What makes a feedback prompt of its static vectors. Raises UserError."""
    if start is None:
        raise UserError("a feedback prompt starts from the documents that it will read: train it with tune")
    gate = torch.ones(settings.feedback)
    return lambda initial: FeedbackPrompt(initial, start, gate.to(initial.device), settings.feedback_bm25)


def modules_of(folder: PromptFolder, tower: TextTower, source: str) -> dict[str, nn.Module]:
    """The prompts of a folder, side by side.

    Raises:
        UserError: where a map is not of this tower's document vectors.
    """
    made: dict[str, nn.Module] = {side: PromptTable(value) for side, value in folder.vectors.items()}
    if (reads := folder.feedback) is not None:
        if (came := reads.parts["map"].shape[0]) != tower.dimension:
            raise UserError(
                f"{source} read document vectors of dimension {came}, expected {tower.dimension}; restore or train "
                "them again"
            )
        made["query"] = FeedbackPrompt.of(folder.vectors["query"], reads.parts, reads.bm25_weight)
    if folder.mixture is not None:
        if (came := folder.mixture.keys.shape[1]) != tower.dimension:
            raise UserError(
                f"{source} has keys of dimension {came}, expected {tower.dimension}; restore or merge again"
            )
        made["query"] = MixturePrompt.of(folder.vectors["query"], folder.mixture)
    return {side: module.to(tower.device) for side, module in made.items()}


def check_constant(holder: str, *, feedback: bool, mixture: bool) -> None:
    """Raises UserError where a query's prompt is made for it alone, and something, such as "a PEFT adapter", holds one
    prompt for all."""
    if feedback or mixture:
        raise UserError((NEEDS_INDEX if feedback else NEEDS_VECTOR).format(holder))


def shape_of(encoder: nn.Module) -> tuple[int, int, int]:
    """(layers, length, width) of what a prompt encoder makes."""
    if isinstance(encoder, FeedbackPrompt | MixturePrompt):
        return encoder.shape
    layers, length, width = encoder().shape
    return layers, length, width


def fingerprint_of(kind: str, encoder: nn.Module) -> str:
    """SHA-256 of all that a prompt encoder's vectors depend on."""
    if isinstance(encoder, FeedbackPrompt):
        tensors = {"vectors": encoder.vectors.detach(), **encoder.parts()}
        return digest(tensors, before=f"{kind} {encoder.bm25_weight}")
    if isinstance(encoder, MixturePrompt):
        about = {name: value for name, value in vars(encoder.about).items() if name != "keys"}
        return digest({"vectors": encoder.vectors, "keys": encoder.keys}, before=f"{kind} {about}")
    return fingerprint(kind, encoder().detach())


@torch.no_grad()
def regress(tower: TextTower, kind: str, vectors: Tensor, texts: Sequence[str]) -> Start:
    """A map from document vectors to the mean of their words, by ridge regression.

    Words are rows of the embedding table, or for a prefix the keys and values that the frozen model makes of them,
    layer by layer. Vectors of an input prompt are then brought to the mean length of a word's.

    Args:
        vectors: (documents, dimension), frozen; `texts`: those of the same documents.
    """
    tokens = tower.tokenize(list(texts), "document")
    there = [number for number, row in enumerate(tokens) if row]  # a tokenizer may make nothing of an empty text
    vectors, tokens = vectors[there], [tokens[number] for number in there]
    if kind == "input":
        rows = [tower.embeddings.weight[torch.tensor(row, device=tower.device)].float() for row in tokens]
        words = torch.stack([row.mean(dim=0) for row in rows])
        length = torch.cat(rows[:200]).norm(dim=1).mean()
    else:
        bar = tqdm(tokens, desc="feedback map", unit="text", delay=1, leave=False)
        words = torch.stack([record_prefix(tower, row[:TOKENS]).mean(dim=1).flatten() for row in bar])
    x, y = vectors.double(), words.double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    penalty = RIDGE * len(x) * x.var(dim=0, correction=0).mean() + 1e-9
    map = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device), x.T @ y)
    bias = y_mean - x_mean @ map
    if kind == "input":
        scale = length / ((vectors.double() @ map + bias).norm(dim=1).mean() + 1e-9)
        map, bias = map * scale, bias * scale
    return Start(map.float(), bias.float())
