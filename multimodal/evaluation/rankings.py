"""Rankings of an image evaluation, and their TREC run files and judgements. Knows no model and no metric but the rank.

Retrieval of captions and classification are both a ranking: a caption asks for pictures, a picture asks for captions,
a picture asks for classes. So what compares text runs compares these, too: `precision@1` of a classification run is
its accuracy, `hit@k` of a retrieval run the R@k of image-text retrieval. But such a test takes queries for independent,
which captions of one picture are not: its p-values of "t2i" tend to be too small.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval_prompts.data.judgements import Qrels, Run, read_qrels, write_qrels
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.trec_runs import read_run, write_run
from retrieval_prompts.files import check_listed, check_output

if TYPE_CHECKING:
    from multimodal.data.pictures import Picture

TOP = 100  # documents of a query that a run keeps


@dataclass(frozen=True)
class Entry:
    """A query or a document.

    Args:
        id: without white space; see `retrieval_prompts.data.ids.portable`.
        text: a caption, or the name of a picture or a class.
        picture: what is shown of it, where it is one.
    """

    id: str
    text: str
    picture: Picture | None = None


@dataclass(frozen=True)
class Best:
    """The best documents of each query, best first.

    Args:
        positions: (Q, k) in the list of documents.
        scores: (Q, k) float32, each below the one before it; -inf where a query has fewer documents.
    """

    positions: NDArray[np.int32]
    scores: NDArray[np.float32]

    @classmethod
    def of(cls, scores: np.ndarray, k: int = TOP) -> Best:
        """From scores (Q, N), higher is better. Of equals the one listed first comes first.

        That order is kept in the scores: equal ones are lowered to the next smaller float32, so that no reader of a
        run file has to break a tie.
        """
        values, chosen = torch.from_numpy(scores).topk(min(k, scores.shape[1]), dim=1)
        order = np.lexsort((chosen.numpy(), -values.numpy()))
        positions = np.take_along_axis(chosen.numpy(), order, axis=1).astype(np.int32)
        kept = np.take_along_axis(values.numpy(), order, axis=1).astype(np.float32)
        for row in np.flatnonzero((kept[:, 1:] >= kept[:, :-1]).any(axis=1)):
            for at in range(1, kept.shape[1]):
                kept[row, at] = min(kept[row, at], np.nextafter(kept[row, at - 1], np.float32(-np.inf)))
        return cls(positions, kept)

    @classmethod
    def joined(cls, parts: Sequence[Best]) -> Best:
        """Of consecutive queries."""
        return cls(np.concatenate([part.positions for part in parts]), np.concatenate([part.scores for part in parts]))


@dataclass
class Rankings:
    """What several systems ranked for the same queries.

    Args:
        name: which part or direction of an evaluation it is: "base", "new", "t2i", "i2t"; empty for the only one.
        right: for each query the positions in `documents` that are right.
        systems: name -> its best documents of each query.
    """

    name: str
    queries: Sequence[Entry]
    documents: Sequence[Entry]
    right: Sequence[Sequence[int]]
    systems: dict[str, Best] = field(default_factory=dict)

    def qrels(self) -> Qrels:
        return {
            query.id: {self.documents[at].id: 1 for at in own}
            for query, own in zip(self.queries, self.right, strict=True)
        }

    def run(self, system: str) -> Run:
        """The system's ranking, with ids."""
        best = self.systems[system]
        return {
            query.id: {
                self.documents[at].id: score
                for at, score in zip(positions.tolist(), scores.tolist(), strict=True)
                if score > -np.inf
            }
            for query, positions, scores in zip(self.queries, best.positions, best.scores, strict=True)
        }

    def ranks(self, system: str) -> NDArray[np.int64]:
        """(Q,) the rank, from 1, of the first right document that the system kept; 0 where it kept none."""
        best, count = self.systems[system], len(self.documents)
        asked = np.repeat(np.arange(len(self.right)), [len(own) for own in self.right])
        judged = asked * count + np.fromiter((at for own in self.right for at in own), np.int64, len(asked))
        found = np.arange(len(self.queries))[:, None] * count + best.positions
        right = np.isin(found, judged) & np.isfinite(best.scores)  # (Q, k)
        return np.where(right.any(axis=1), right.argmax(axis=1) + 1, 0)


def file_stem(dataset: str, name: str = "") -> str:
    """How the files of a data set's part or direction begin."""
    return re.sub(r"[^\w.-]+", "_", f"{dataset}.{name}" if name else dataset)


def write(folder: Path, dataset: str, rankings: Iterable[Rankings]) -> None:
    """Write <dataset>[.<part>].<system>.trec, a TREC run, for each system, and [...].qrels.tsv, as BEIR has it."""
    for each in rankings:
        stem = file_stem(dataset, each.name)
        write_qrels(folder / f"{stem}.qrels.tsv", each.qrels())
        for system in each.systems:
            write_run(folder / f"{stem}.{file_stem(system)}.trec", each.run(system), system)


def read(folder: Path, dataset: str, asked: Rankings, systems: Iterable[str]) -> Rankings:
    """What `write` wrote of these systems, as far as it is there, for those queries of `asked` that were judged.

    Raises:
        UserError: for a run of other queries or documents.
    """
    stem = file_stem(dataset, asked.name)
    qrels = folder / f"{stem}.qrels.tsv"
    check_listed(qrels)
    judged = read_qrels(qrels) if qrels.exists() else {}
    kept = [at for at, query in enumerate(asked.queries) if query.id in judged]
    found = Rankings(asked.name, [asked.queries[at] for at in kept], asked.documents, [asked.right[at] for at in kept])
    for system in systems:
        path = folder / f"{stem}.{file_stem(system)}.trec"
        if path.exists():
            found.systems[system] = _best(path, found)
    return found


def _best(path: Path, asked: Rankings) -> Best:
    run = read_run(path)
    numbers = {document.id: at for at, document in enumerate(asked.documents)}
    k = max(map(len, run.values()), default=0)
    positions = np.zeros((len(asked.queries), k), dtype=np.int32)
    scores = np.full((len(asked.queries), k), -np.inf, dtype=np.float32)
    for row, query in enumerate(asked.queries):
        hits = run.pop(query.id, {})
        if odd := hits.keys() - numbers.keys():
            raise UserError(f"{path} is a run of other data: it has the document {min(odd)}; write it again")
        positions[row, : len(hits)] = [numbers[id] for id in hits]
        scores[row, : len(hits)] = list(hits.values())
    if run:
        raise UserError(f"{path} is a run of other data: it has the query {min(run)}; write it again")
    return Best(positions, scores)


def check_beside(out: Path, runs: Path | None, report: Path | None, *, overwrite: bool) -> None:
    """Check what a script writes beside a result file that it may go on from: files of another result are not replaced.

    Raises:
        UserError: where there is no result yet, but its runs or its report are, and for a report without runs.
    """
    if report is not None and runs is None:
        raise UserError("--report is made of the run files; pass --runs as well")
    going_on = out.exists() or overwrite
    if report is not None:
        check_output(report, overwrite=going_on)
    if runs is not None and runs.exists() and not runs.is_dir():
        raise UserError(f"{runs} is a file; --runs expects a folder")
    if runs is not None and not going_on and any(runs.glob("*.trec")):
        raise UserError(f"{runs} holds the runs of another result; choose another --runs or pass --overwrite")
