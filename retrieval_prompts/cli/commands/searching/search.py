"""retrieval-prompts search."""

from __future__ import annotations

from typing import Annotated, Any

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
    passages: Annotated[
        bool,
        typer.Option("--passages", help="chunks of documents are hits of their own, not the best of each document"),
    ] = False,
    strength: Strength = None,
    bm25_weight: Annotated[
        float | None,
        typer.Option(help="of BM25 in the ranking, 0 (dense alone) to 1  [default: the prompts' own, else 0.75]"),
    ] = None,
    json_file: JsonFile = None,
    nprobe: Annotated[int | None, typer.Option(help="lists that an IVF index visits")] = None,
    ef_search: Annotated[int | None, typer.Option(help="candidates that an HNSW index keeps")] = None,
    k_factor: Annotated[int | None, typer.Option(help="candidates, times k, that a refined index scores again")] = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Search an index with a question: by its vectors and, where the index holds them, by its words (BM25). Of a
    document that is in chunks the best one is shown.

    retrieval-prompts search "a question" --in qdrant:PATH#collection --prompts PROMPTS
    """
    place, query = _asked(index, query, store)
    check_strength(strength, prompts)
    console.check_outputs(json_file, overwrite=overwrite)
    from retrieval_prompts.interop.frameworks.searcher import Searcher

    searcher = Searcher.open(
        place,
        prompts,
        model=model,
        conventions=conventions,
        strength=strength,
        bm25_weight=bm25_weight,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    parameters = {"nprobe": nprobe, "ef_search": ef_search, "k_factor": k_factor}
    (found,) = searcher.search([query], top_k, passages=passages, **parameters)
    hits = [{"id": hit.id, "score": hit.score, "title": hit.title, "text": hit.text, **hit.about()} for hit in found]
    if json_file is not None:
        console.write_result(json_file, hits)
    if str(json_file) != "-":
        _print(hits, searcher.weight, passages)


def _print(hits: list[dict[str, Any]], weight: float, passages: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    people = Console(highlight=False)
    people.print(f"dense + BM25, weight {weight:g}" if weight else "dense", style="dim")
    for rank, hit in enumerate(hits, start=1):
        line = Text(f"{rank:3}. {hit['score']:.4f}  ")
        id = hit["id"] if passages else hit.get("document", hit["id"])
        line.append(shown(hit["title"] or id), style="bold")
        people.print(line, soft_wrap=True)
        if where := ", ".join(hit[name] for name in ("source", "place") if hit.get(name, hit["title"]) != hit["title"]):
            people.print(Text(shown(f"     {where}")), soft_wrap=True)
        people.print(Text(shown(f"     [{id}] {_snippet(hit['text'])}")), style="dim", soft_wrap=True)


def _asked(index: str, query: str | None, store: str | None) -> tuple[str, str]:
    """Where to search, and the question. Raises UserError."""
    if store is not None and query is not None:
        raise UserError(f"--in names what to search, so {index} is one argument too many; leave it out")
    place, query = (index, query) if store is None else (store, index)
    if query is None:
        raise UserError("expected an index folder and a question, or a question and --in STORE; write it in quotes")
    if not query.strip():
        raise UserError("the question is empty; write what you look for in quotes")
    return place, query


def _snippet(text: str, width: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1].rsplit(" ", 1)[0] + " …"
