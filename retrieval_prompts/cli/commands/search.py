"""retrieval-prompts search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Device, JsonFile, Overwrite, Prompts, Strength, Trust, check_strength
from retrieval_prompts.errors import UserError


def search(
    index: Annotated[Path, typer.Argument(help="an index folder")],
    query: Annotated[str, typer.Argument(help="the question")],
    prompts: Prompts = None,
    model: Annotated[str | None, typer.Option(help="the model, when it has moved  [default: the index's own]")] = None,
    top_k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="how many hits")] = 10,
    strength: Strength = None,
    json_file: JsonFile = None,
    nprobe: Annotated[int | None, typer.Option(help="lists that an IVF index visits")] = None,
    ef_search: Annotated[int | None, typer.Option(help="candidates that an HNSW index keeps")] = None,
    k_factor: Annotated[int | None, typer.Option(help="candidates, times k, that a refined index scores anew")] = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Search an index with a question."""
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.vectors.index import Index

    if not query.strip():
        raise UserError("the question is empty; write what you look for in quotes")
    check_strength(strength, prompts)
    console.check_outputs(json_file, overwrite=overwrite)
    opened = Index.open(index)
    biencoder = BiEncoder.load(
        model or opened.manifest["encoder"]["model"],
        prompts,
        device=device,
        strength=strength,
        trust_remote_code=trust_remote_code,
    )
    opened.check_encoder(biencoder.identity())
    vector = biencoder.query_vectors([query])
    scores, ids = opened.search(vector, top_k, nprobe=nprobe, ef_search=ef_search, k_factor=k_factor)
    hits = []
    for score, id in zip(scores[0].tolist(), ids[0], strict=False):
        document = opened.document(id)
        hits.append({"id": id, "score": score, "title": document.title, "text": document.text})
    if json_file is not None:
        console.write_result(json_file, hits)
    if str(json_file) == "-":
        return
    from rich.console import Console
    from rich.text import Text

    people = Console(highlight=False)
    for rank, hit in enumerate(hits, start=1):
        line = Text(f"{rank:3}. {hit['score']:.4f}  ")
        line.append(hit["title"] or hit["id"], style="bold")
        people.print(line, soft_wrap=True)
        people.print(Text(f"     [{hit['id']}] {_snippet(hit['text'])}"), style="dim", soft_wrap=True)


def _snippet(text: str, width: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1].rsplit(" ", 1)[0] + " …"
