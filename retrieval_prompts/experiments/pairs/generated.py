"""Queries that a frozen language model writes for documents, kept where they are read back (InPars, Bonifacio et al.
2022; Promptagator, Dai et al. 2022: a few examples in the prompt, and the round trip as a filter).

Each query is written to a JSONL file as soon as it is made, so that a run that is cut short goes on behind it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.data.lines import json_rows, string
from retrieval_prompts.evaluation.hybrid import UNLABELLED
from retrieval_prompts.experiments.pairs.made import LEAST, Made, TooFew, drawn, pairs
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.files import write_bytes
from retrieval_prompts.prompts.writing_folder import WritingPrompt
from retrieval_prompts.towers.fingerprint import digest
from retrieval_prompts.towers.language import LanguageModel
from retrieval_prompts.training.loop import Training
from retrieval_prompts.training.tasks.next_tokens import WritingTask
from retrieval_prompts.training.tasks.settings import WritingSettings

EXAMPLES = 3  # labelled pairs shown to the model, where there are some
DOCUMENT_CHARACTERS = 1200  # of a document that the model reads
NEW_TOKENS = 32
BACK = 3  # a query is kept where its document is among so many of the frozen model beside BM25
SHOWN = [
    (
        "The Danube rises in the Black Forest and flows through ten countries into the Black Sea.",
        "which sea does the Danube flow into",
    ),
    (
        "To remove the first element of a list in place, call pop with the index 0; it returns the element.",
        "how to delete the first item of a list",
    ),
]


class Writer:
    """A language model that writes a query for a document.

    Args:
        shown: documents with the queries that they answer, as examples.
        prompt: a soft prompt that was trained for this very model, or none; see `write_queries_like`.

    Raises:
        UserError: where the prompt is for another model.
    """

    def __init__(
        self, model: LanguageModel, shown: Sequence[tuple[str, str]], prompt: WritingPrompt | None = None
    ) -> None:
        self.model, self.shown, self.vectors = model, list(shown), None
        self.identity = model.fingerprint
        if prompt is not None:
            self.vectors = prompt.check(model, "--generator-prompt").vectors.to(model.device)
            self.identity += digest({"prompt": self.vectors})

    def prompt(self, document: str) -> str:
        """What the model goes on from."""
        shown = "".join(f"Document: {_short(text)}\nQuery: {query}\n\n" for text, query in self.shown)
        return f"{shown}Document: {_short(document)}\nQuery:"

    def write(self, document: str) -> str:
        """The first line that the model writes, by the likeliest token each time; "" where it writes none."""
        lines = self.model.write(self.prompt(document), self.vectors, tokens=NEW_TOKENS).strip().splitlines()
        return lines[0].strip() if lines else ""


def write_queries_like(
    model: LanguageModel, pairs: Sequence[tuple[str, str]], settings: WritingSettings
) -> tuple[WritingTask, Training]:
    """A soft prompt under which the model writes queries like these (SPTAR, Peng et al. 2023): the task that holds it,
    and its training, to be iterated.

    Args:
        pairs: documents with the queries that they answer; a few dozen.
    """
    writer = Writer(model, [])
    task = WritingTask(model, [(writer.prompt(text), f" {query}") for text, query in pairs], settings)
    return task, task.train()


def generated(bench: Workbench, writer: Writer, seed: int, folder: Path) -> Made:
    """Queries of a language model for documents of the corpus; those that do not find their document, and those
    written for several, are left out.

    Args:
        folder: of the files of queries.

    Raises:
        TooFew: where not enough are left.
    """
    dataset, documents = bench.dataset, drawn(bench.dataset.corpus, seed)
    name = hashlib.sha256(f"{writer.identity} {writer.shown} {dataset.corpus.fingerprint} {seed}".encode()).hexdigest()
    path = folder / f"{name[:32]}.jsonl"
    written = dict(_written(path, documents, writer))
    times = Counter(written.values())
    kept = _found_again(bench, {document: text for document, text in written.items() if text and times[text] == 1})
    if len(kept) < LEAST:
        raise TooFew(
            f"of the {len(written):,} queries that were written ({path}) only {len(kept):,} are of one document and "
            f"find it among the first {BACK}; {LEAST} are needed: use another --generator or --generator-prompt"
        )
    found = pairs("generated", dataset, dataset.corpus, {text: [document] for document, text in kept.items()})
    what = f"{len(kept):,} queries, each written for a document that it finds (all {len(written):,} written: {path})"
    return replace(found, what=what)


def examples(dataset: Dataset) -> list[tuple[str, str]]:
    """Pairs to show the model: those of the training split with the shortest documents, or ours where there is none."""
    return sorted(judged_pairs(dataset, 10 * EXAMPLES), key=lambda pair: len(pair[0]))[:EXAMPLES] or SHOWN


def judged_pairs(dataset: Dataset, most: int) -> list[tuple[str, str]]:
    """(document, query) of the first judged training queries, about so many."""
    found: list[tuple[str, str]] = []
    for query, judged in dataset.qrels.get("train", {}).items():
        for document, grade in judged.items():
            if grade > 0 and query in dataset.queries:
                found.append((dataset.corpus[dataset.corpus.position(document)].content, dataset.queries[query]))
        if len(found) >= most:
            break
    return found


def _written(path: Path, documents: Sequence[Document], writer: Writer) -> Iterator[tuple[str, str]]:
    """(id of the document, query): those in the file, then those that are still to be written."""
    known = _read(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for document in tqdm(documents, desc="write queries", unit="document", delay=1):
            if document.id not in known:
                row = {"document": document.id, "query": writer.write(document.content)}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                known[document.id] = row["query"]
            yield document.id, known[document.id]


def _read(path: Path) -> dict[str, str]:
    """What the file holds; a last line that was cut short is taken off it."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        write_bytes(path, whole)
    found = {}
    for number, row in json_rows(path):
        where = f"{path}:{number}"
        found[string(row, "document", where)] = string(row, "query", where)
    return found


def _found_again(bench: Workbench, queries: Mapping[str, str]) -> dict[str, str]:
    """The queries whose document is among the first `BACK`."""
    if not queries:
        return {}
    texts = {f"generated:{document}": text for document, text in queries.items()}
    vectors = bench.query_vectors(bench.frozen, texts.values())
    if (hybrid := bench.hybrid_of(bench.index)) is not None:
        (run,) = hybrid.rank(texts, vectors, BACK, [UNLABELLED])
    else:
        run = bench.index.rank(list(texts), vectors, BACK)
    return {document: text for document, text in queries.items() if document in run[f"generated:{document}"]}


def _short(text: str) -> str:
    return " ".join(text.split())[:DOCUMENT_CHARACTERS]
