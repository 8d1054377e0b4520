"""retrieval-prompts index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.commands.options import Cache, Device, Model, Overwrite, Trust


def index(
    data: Annotated[Path, typer.Argument(help="BEIR folder; only its corpus is read")],
    out: Annotated[Path, typer.Option(help="the index folder to write")],
    model: Model = None,
    prompts: Annotated[Path | None, typer.Option(help="a prompt folder, when its document side is tuned")] = None,
    factory: Annotated[str, typer.Option(help="FAISS index string: Flat, HNSW32, IVF256,SQ8 ...")] = "Flat",
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Encode a corpus and build a FAISS index. Prompts for the query side alone change nothing here."""
    from retrieval_prompts.files import check_output

    check_output(out, overwrite=overwrite, holds="manifest.json")
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.data import load_corpus
    from retrieval_prompts.index import Index

    corpus = load_corpus(data)
    biencoder = BiEncoder.load(model, prompts, device=device, trust_remote_code=trust_remote_code)
    documents = biencoder.encode_corpus(corpus, cache)
    built = Index.build(documents, corpus, corpus.ids, factory=factory, encoder=biencoder.identity())
    built.save(out, overwrite=overwrite)
    print(f"{out}: {len(built):,} documents, {factory}; {documents.encoded:,} encoded now, the rest found in the cache")
    print(f'next: retrieval-prompts search {out} "a question"{f" --prompts {prompts}" if prompts else ""}')
