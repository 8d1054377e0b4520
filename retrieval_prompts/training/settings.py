"""How prompts are attached and trained: plain values, and their defaults."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.settings import PromptSettings, check_read, setting

DOCUMENTS = {"side": ("document", "both")}  # only a document prompt makes steps that encode documents
# With a common part there is one stage, whose every step encodes documents
QUERIES = {"side": ("query", "both"), "common": (False,)}


@dataclass(frozen=True)
class TuneSettings(PromptSettings):
    """How prompts are attached and trained. The defaults are one set for all data; see eval/README.md.

    Dev is scored ten times in a training, half as often where steps encode documents. "corpus" compares with all
    documents, "mined" with the batch's own and the model's best wrong answers, "in-batch" with the former alone;
    where documents are encoded anew, "corpus" means "mined". Prompts, losses and every vector that is compared or
    kept are float32, whatever the precision; "auto" is bfloat16 on CUDA, and on CPUs with AMX that are
    faster with it.
    """

    epochs: int = setting(10, help="passes over the training queries, at most", low=1)
    max_steps: int = setting(300, help="end training after so many steps at the latest", low=1, read_by=QUERIES)
    document_steps: int = setting(40, help="the same for steps that encode documents", low=1, read_by=DOCUMENTS)
    learning_rate: float = setting(None, help="peak learning rate", above=0, high=1e30, option="--lr", read_by=QUERIES)
    document_learning_rate: float = setting(
        3e-3,
        help="the same for steps that encode documents",
        above=0,
        high=1e30,
        option="--document-lr",
        read_by=DOCUMENTS,
    )
    warmup: float = setting(0.1, help="share of the steps in which the learning rate rises", low=0, high=1)
    weight_decay: float = setting(0.0, help="of AdamW", low=0, high=1)
    clip: float = setting(1.0, help="largest norm of a step's gradient", above=0)
    patience: int | None = setting(None, help="stop after so many dev scores (of 10) without a better one", low=1)
    batch_size: int = setting(32, help="queries a step", low=1)
    temperature: float | None = setting(None, help="of the softmax", above=0, shown="0.05 cosine, 1 dot")
    negatives: str | None = setting(
        None, help="what a query is compared with", choices=("corpus", "in-batch", "mined"), shown="corpus"
    )
    hard_negatives: int = setting(
        1,
        help="mined documents a query and step that encodes documents",
        low=0,
        high=1000,
        read_by={**DOCUMENTS, "negatives": ("corpus", "mined", None)},
    )
    symmetric: bool = setting(
        False,
        help="also compare documents with queries",
        read_by={"pairs": ("auto", "labelled", "titles", "crops", "generated")},  # a log has a ranking to follow
    )
    memory: float = setting(
        2.0, help="gigabytes of document vectors, beyond which a step compares with a part of them", above=0
    )
    folds: int = setting(
        5,
        help="parts of cross-validation where fewer than 50 queries are there to choose by; 1: none",
        low=1,
        high=100,
        read_by={"side": ("query",), "pairs": ("auto", "labelled")},
    )
    precision: str = setting("auto", help="of training", choices=("auto", "float32", "bfloat16"))
    pairs: str = setting(
        "auto",
        help="what to learn from: judged queries; a log of queries without judgements; titles or sentences as queries; "
        "queries that --generator writes; auto: judged queries where there are some",
        choices=("auto", "labelled", "queries", "titles", "crops", "generated"),
    )
    teacher: str | None = setting(
        None,
        help="a cross-encoder or bi-encoder whose ranking the log is trained to follow",
        shown="the frozen model with BM25",
        read_by={"pairs": ("queries",)},
    )
    generator: str | None = setting(
        None, help="a causal or sequence-to-sequence language model", read_by={"pairs": ("generated",)}
    )
    generator_prompt: str | None = setting(
        None,
        help="a folder of `generator`, a soft prompt for --generator, in place of examples",
        read_by={"pairs": ("generated",)},
    )
    keep: float = setting(
        0.0,
        help="how much to hold general texts at their frozen vectors; 1 forgets next to nothing elsewhere",
        low=0,
        read_by={"encoder": ("table", "mlp", "lstm")},
    )

    def __post_init__(self) -> None:
        if vars(self)["encoder"] is None and self.pairs == "queries" and self.side == "query":
            object.__setattr__(self, "encoder", "feedback")  # a constant prompt learns next to nothing from a log
        super().__post_init__()

    def labelled(self, splits: Container[str]) -> bool:
        """Whether people's judgements are trained on, by the splits that have some."""
        return self.pairs == "labelled" or (self.pairs == "auto" and "train" in splits)


def check_given(settings: TuneSettings, given: Iterable[str]) -> None:
    """Refuse what was given by name and is not read, or not as it says. Raises UserError."""
    given = list(given)
    check_read(settings, given)
    if "negatives" in given and settings.negatives == "corpus" and settings.side != "query":
        raise UserError(
            "--negatives corpus compares with all documents, which a document prompt changes at each step; with "
            f"--side {settings.side} it is mined or in-batch"
        )
