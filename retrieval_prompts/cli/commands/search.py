"""retrieval-prompts search."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import (
    AS_SAID,
    Device,
    JsonFile,
    Overwrite,
    Prompts,
    Strength,
    Trust,
    check_strength,
    with_conventions,
)
from retrieval_prompts.errors import UserError, shown
from retrieval_prompts.towers.conventions import Conventions

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.evaluation.hybrid import HybridIndex
    from retrieval_prompts.vectors.index import Index


@with_conventions
def search(
    index: Annotated[str, typer.Argument(help="an index folder; with --in, the question")],
    query: Annotated[str | None, typer.Argument(help="the question")] = None,
    store: Annotated[
        str | None, typer.Option("--in", help="search a store as it is: qdrant:PATH#collection, lancedb: ...")
    ] = None,
    prompts: Prompts = None,
    model: Annotated[str | None, typer.Option(help="the model, when it has moved  [default: the index's own]")] = None,
    conventions: Conventions = AS_SAID,
    top_k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="how many hits")] = 10,
    strength: Strength = None,
    bm25_weight: Annotated[
        float | None,
        typer.Option(help="of BM25 in the ranking, 0 (dense alone) to 1  [default: the prompts' own, else 0.75]"),
    ] = None,
    json_file: JsonFile = None,
    nprobe: Annotated[int | None, typer.Option(help="lists that an IVF index visits")] = None,
    ef_search: Annotated[int | None, typer.Option(help="candidates that an HNSW index keeps")] = None,
    k_factor: Annotated[int | None, typer.Option(help="candidates, times k, that a refined index scores anew")] = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Search an index with a question: by its vectors and, where the index holds them, by its words (BM25).

    retrieval-prompts search "a question" --in qdrant:PATH#collection --prompts PROMPTS
    """
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.evaluation.hybrid import HybridIndex, check_weight
    from retrieval_prompts.files import unreplaced
    from retrieval_prompts.interop.stores.opening import check_found, over_all
    from retrieval_prompts.vectors.store import StoreIndex

    place, query = _asked(index, query, store)
    check_strength(strength, prompts)
    if bm25_weight is not None:
        check_weight(bm25_weight)
    console.check_outputs(json_file, overwrite=overwrite)
    folder, hybrid = (
        unreplaced(Path(place), lambda: _open(place, words=bm25_weight != 0)) if store is None else (None, None)
    )
    if bm25_weight and hybrid is None:
        raise UserError(f"{place} holds no words for --bm25-weight {bm25_weight:g}; index again without --no-bm25")
    made_by = folder.manifest["encoder"] if folder is not None else {}
    biencoder = BiEncoder.load(
        model or made_by.get("model"),
        prompts,
        device=device,
        strength=strength,
        trust_remote_code=trust_remote_code,
        **asdict(conventions.or_else(Conventions.recorded(made_by))),
    )
    biencoder.tower.made(made_by)  # words that an older version did not find are left out again
    tower = biencoder.tower
    opened = folder if folder is not None else over_all(place, biencoder.identity(), tower.dimension)
    opened.check_encoder(biencoder.identity())
    if biencoder.feedback is not None and biencoder.strength > 0:
        biencoder.bind(hybrid or (HybridIndex.of(folder, place) if folder is not None else None) or opened)
    vectors = biencoder.query_vectors([query])
    parameters = {"nprobe": nprobe, "ef_search": ef_search, "k_factor": k_factor}
    weight = 0.0 if hybrid is None else _weight(bm25_weight, biencoder)
    if hybrid is None or weight == 0:
        found, ids = opened.search(vectors, top_k, **parameters)
        scores = found.tolist()
    else:
        scores, ids = hybrid.search([query], vectors, top_k, weight=weight, **parameters)
    if hybrid is None and bm25_weight is None and biencoder.bm25_weight:
        warnings.warn(
            f"{prompts} asks for BM25 of weight {biencoder.bm25_weight:g}, and {place} holds no words: the ranking is "
            "dense; index again without --no-bm25",
            stacklevel=2,
        )
    if isinstance(opened, StoreIndex) and opened is not folder:
        check_found(tower, opened, ids[0], place)
    hits = []
    for score, id in zip(scores[0], ids[0], strict=False):
        document = opened.document(id)
        hits.append({"id": id, "score": score, "title": document.title, "text": document.text})
    if json_file is not None:
        console.write_result(json_file, hits)
    if str(json_file) != "-":
        _print(hits, weight)


def _print(hits: list[dict[str, Any]], weight: float) -> None:
    from rich.console import Console
    from rich.text import Text

    people = Console(highlight=False)
    people.print(f"dense + BM25, weight {weight:g}" if weight else "dense", style="dim")
    for rank, hit in enumerate(hits, start=1):
        line = Text(f"{rank:3}. {hit['score']:.4f}  ")
        line.append(shown(hit["title"] or hit["id"]), style="bold")
        people.print(line, soft_wrap=True)
        people.print(Text(shown(f"     [{hit['id']}] {_snippet(hit['text'])}")), style="dim", soft_wrap=True)


def _asked(index: str, query: str | None, store: str | None) -> tuple[str, str]:
    """Where to search, and the question. Raises UserError."""
    if store is not None and query is not None:
        raise UserError(f"--in names what to search, so {index} is too much; leave it out")
    place, query = (index, query) if store is None else (store, index)
    if query is None:
        raise UserError("expected an index folder and a question, or a question and --in STORE; write it in quotes")
    if not query.strip():
        raise UserError("the question is empty; write what you look for in quotes")
    return place, query


def _open(folder: str, *, words: bool) -> tuple[Index, HybridIndex | None]:
    """An index, and the same with the words that it holds, if they are wanted."""
    from retrieval_prompts.evaluation.hybrid import HybridIndex
    from retrieval_prompts.interop.stores.opening import open_index

    opened = open_index(folder)
    return opened, HybridIndex.of(opened, folder) if words else None


def _weight(given: float | None, biencoder: BiEncoder) -> float:
    """Of BM25: what was given, else the prompts' own, else that of an index whose queries nobody judged."""
    from retrieval_prompts.evaluation.hybrid import UNLABELLED

    return next(weight for weight in (given, biencoder.bm25_weight, UNLABELLED) if weight is not None)


def _snippet(text: str, width: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1].rsplit(" ", 1)[0] + " …"
