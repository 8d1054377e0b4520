"""retrieval-prompts adopt."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import AS_SAID, Device, Model, Overwrite, Trust, repeated, with_conventions
from retrieval_prompts.cli.saving import save_index
from retrieval_prompts.towers.conventions import Conventions


@with_conventions
def adopt(
    vectors: Annotated[str, typer.Argument(help="FAISS file, .npy, .npz, Parquet, or a store: qdrant:PATH#collection")],
    texts: Annotated[Path, typer.Option(help="BEIR folder of the same documents; only its corpus is read")],
    out: Annotated[Path, typer.Option(help="the index folder to write")],
    ids: Annotated[
        Path | None,
        typer.Option(help="ids in the order of the vectors: .txt, .json, .npy, .jsonl  [default: as in the texts]"),
    ] = None,
    id_field: Annotated[str | None, typer.Option(help="the column of ids  [default: by its usual names]")] = None,
    vector_field: Annotated[
        str | None, typer.Option(help="the column of vectors  [default: by its usual names]")
    ] = None,
    model: Model = None,
    conventions: Conventions = AS_SAID,
    sample: Annotated[int, typer.Option(min=1, help="documents that are encoded and compared first")] = 200,
    factory: Annotated[
        str | None, typer.Option(help="FAISS index string  [default: a FAISS index as it is, else Flat]")
    ] = None,
    bm25: Annotated[bool, typer.Option(help="with the words of the documents beside it, for hybrid search")] = True,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Make an index folder of document vectors that you have, after a check on a sample that this model made them.

    Nothing is encoded but the sample, and nothing is written where a vector is not what the model makes of its text:
    then the likely reason is named (other pooling or words, cut elsewhere, another order, another model). Vectors in a
    store stay there: qdrant:PATH#collection, lancedb:PATH#table, milvus:FILE#collection,
    pgvector:postgresql://host/database#table; the folder names it, and holds the texts and words.

    retrieval-prompts adopt docs.faiss --ids ids.txt --texts DATA --out INDEX
    """
    from retrieval_prompts.files import INDEX, STORED
    from retrieval_prompts.interop.stores.address import is_address

    console.claim(out, overwrite=overwrite, holds=STORED if is_address(vectors) else INDEX)
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.data.beir_folder import load_corpus
    from retrieval_prompts.interop import adopt as adoption

    corpus = load_corpus(texts)
    biencoder = BiEncoder.load(model, device=device, trust_remote_code=trust_remote_code, **asdict(conventions))
    options = {"id_field": id_field, "vector_field": vector_field}
    adopted = adoption.adopt(biencoder, vectors, corpus, ids=ids, factory=factory, sample=sample, **options)
    for remark in adopted.remarks:
        console.say(f"{vectors}: {remark}")
    check, index = adopted.check, adopted.index
    console.say(
        f"{check.documents:,} documents encoded and compared: lowest cosine {check.cosine:.5f}; these are vectors of "
        f"{biencoder.tower.name}"
    )
    assert index.documents is not None
    held = save_index(index, index.documents, out, bm25, overwrite)
    console.say(f"{out}: {len(index):,} documents, {index.manifest['factory']}, {held}")
    asked = repeated(None, AS_SAID, trust_remote_code)  # the folder knows the rest
    console.say(f'next: retrieval-prompts search {shlex.quote(str(out))} "a question"{asked}')
