"""retrieval-prompts index."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.machines import IN_PROCESS, Encoder, Machines, with_machines
from retrieval_prompts.cli.options import (
    AS_SAID,
    Cache,
    Device,
    JsonFile,
    Model,
    Overwrite,
    Trust,
    repeated,
    with_conventions,
)
from retrieval_prompts.cli.saving import save_index, write_index
from retrieval_prompts.cli.sources import AS_IT_IS, Documents, Reading, data_folder, loader, with_sources
from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.conventions import Conventions

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder


@with_machines
@with_sources
@with_conventions
def index(
    data: Annotated[
        Path | None,
        typer.Argument(help="BEIR folder (without --compare only its corpus is read), folder of files, or table"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the index folder to write")] = None,
    documents: Documents = None,
    reading: Reading = AS_IT_IS,
    machines: Machines = IN_PROCESS,
    to: Annotated[
        str | None, typer.Option(help="write vectors and texts into a store: qdrant:PATH#collection, lancedb: ...")
    ] = None,
    model: Model = None,
    conventions: Conventions = AS_SAID,
    prompts: Annotated[Path | None, typer.Option(help="a prompt folder, when its document side is tuned")] = None,
    factory: Annotated[str, typer.Option(help="FAISS index string: Flat, HNSW32, IVF256,SQ8 ...")] = "Flat",
    train_size: Annotated[
        int | None, typer.Option(min=1, help="vectors to train on  [default: 256 for each centroid]")
    ] = None,
    ef_construction: Annotated[
        int | None, typer.Option(min=1, help="candidates kept while HNSW is built  [default: 40]")
    ] = None,
    bm25: Annotated[bool, typer.Option(help="with the words of the documents beside it, for hybrid search")] = True,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="write no index, compare types: Flat,HNSW32 or 'Flat;IVF256,SQ8' (';' where a type has commas)"
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="--compare: the split whose queries search")] = "test",
    k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="--compare: recall at this many documents")] = 10,
    json_file: JsonFile = None,
    picture: Annotated[
        Path | None, typer.Option(help="--compare: recall against queries a second, .svg, .png or .pdf")
    ] = None,
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Encode a corpus and build a FAISS index and, beside it, one of its words (BM25); or write it into a store (--to),
    where what was cut short goes on; or compare index types (--compare). With prompts for the query side alone the
    index is that of the frozen model; --compare then searches it with frozen and with tuned queries. With --engine ray
    workers encode, write into the store, and make lists (IVF), which are merged on disk; their vectors stay beside the
    index, and --vectors without --out makes vectors alone."""
    many = machines.wanted()
    if many and compare:
        raise UserError("--engine ray makes an index (--out, --to) or vectors (--vectors); leave out --compare")
    if compare:
        _check_compare(out, to, ef_construction, bm25)
        _compare(
            data,
            documents,
            reading,
            compare,
            model,
            conventions,
            prompts,
            train_size,
            split,
            k,
            json_file,
            picture,
            cache,
            device,
            trust_remote_code,
            overwrite,
        )
        return
    if out is None and to is None and not many:
        raise UserError("pass --out, the index folder to write, --to, a store, or --compare, index types to compare")
    if json_file is not None or picture is not None:
        raise UserError("--json and --picture belong to --compare")
    own = "cpu" if many else device  # workers encode
    loaded = loader(model, prompts, device=own, trust_remote_code=trust_remote_code, **asdict(conventions))
    by = f" --prompts {shlex.quote(str(prompts))}" if prompts else ""
    inside = by + repeated(None, AS_SAID, trust_remote_code)  # the folder knows the rest
    beside = by + repeated(None if prompts else model, AS_SAID if prompts else conventions, trust_remote_code)

    def source() -> Path:
        return data_folder(data, documents, reading, loaded, console.say, cache)

    def encoder() -> Encoder:
        options = {"trust_remote_code": trust_remote_code, **asdict(conventions)}
        return Encoder(machines.place(out, device, overwrite), prompts, options)

    if to is not None:
        if (factory, train_size, ef_construction) != ("Flat", None, None):
            raise UserError("a store has an index of its own; leave out --factory and its options")
        asked = beside if out is None else inside
        _to_store(source, loaded, to, out, asked, bm25, cache, overwrite, encoder() if many else None)
    elif out is not None:
        options = {"factory": factory, "train_size": train_size, "ef_construction": ef_construction}
        options |= {"gpu": device != "cpu"}
        _build(source, loaded, out, inside, options, bm25, cache, overwrite, encoder() if many else None)
    else:
        if (factory, train_size, ef_construction, bm25) != ("Flat", None, None, True):
            raise UserError("--factory, its options and --no-bm25 belong to --out; vectors alone have no index")
        if data is None or reading != AS_IT_IS:
            raise UserError(
                "without --out DATA is read where it is: pass a folder or file, and no option on reading it"
            )
        encoder().alone(loaded(), data)


def _check_compare(out: Path | None, to: str | None, ef_construction: int | None, bm25: bool) -> None:
    """Raises UserError for options that --compare does not read."""
    if out is not None or to is not None:
        raise UserError(
            "--compare writes no index: leave out --out and --to, then index again with the --factory you choose"
        )
    if ef_construction is not None:
        raise UserError("--ef-construction belongs to --out; --compare builds HNSW with FAISS's default")
    if not bm25:
        raise UserError("--no-bm25 belongs to --out; --compare is of vectors alone")


def _build(
    source: Callable[[], Path],
    loaded: Callable[[], BiEncoder],
    out: Path,
    asked: str,
    options: dict[str, Any],
    bm25: bool,
    cache: Path | None,
    overwrite: bool,
    workers: Encoder | None = None,
) -> None:
    from retrieval_prompts.files import INDEX

    console.claim(out, overwrite=overwrite, holds=INDEX)
    from retrieval_prompts.data.beir_folder import load_corpus
    from retrieval_prompts.data.groups import counted
    from retrieval_prompts.vectors import faiss_index

    corpus = load_corpus(source())
    biencoder = loaded()
    faiss_index.check(options["factory"], biencoder.tower.dimension)
    if workers is not None:
        with workers.place.started():
            rows, said = workers.of_corpus(biencoder, corpus)
            with workers.place.building(rows) as write:
                given = options | {"write": write}
                built, held = write_index(rows, corpus, out, bm25, overwrite, biencoder.identity(), given)
        said += workers.place.merged(built)
    else:
        vectors = biencoder.encode_corpus(corpus, cache)
        built, held = write_index(vectors, corpus, out, bm25, overwrite, biencoder.identity(), options)
        said = f"{vectors.encoded:,} encoded now, the rest found in the cache"
    made = f"{out}: {counted(len(built), corpus.groups)}, {options['factory']}, {held}"
    console.say(f"{made}; {said}")
    console.say(_next(out, asked))


def _next(out: Path, asked: str) -> str:
    """The command that searches an index; `asked`: its further options."""
    return f'next: retrieval-prompts search {shlex.quote(str(out))} "a question"{asked}'


def _to_store(
    source: Callable[[], Path],
    loaded: Callable[[], BiEncoder],
    to: str,
    out: Path | None,
    asked: str,
    bm25: bool,
    cache: Path | None,
    overwrite: bool,
    workers: Encoder | None = None,
) -> None:
    from retrieval_prompts.files import STORED
    from retrieval_prompts.interop.stores.address import parse

    shown = parse(to).shown
    if out is not None:
        console.claim(out, overwrite=overwrite, holds=STORED)
    from retrieval_prompts.data.beir_folder import load_corpus
    from retrieval_prompts.data.groups import counted
    from retrieval_prompts.interop.stores.filling import write

    corpus = load_corpus(source())
    if workers is None:
        written = write(loaded(), corpus, to, cache=cache, overwrite=overwrite)
        said = f"{written.encoded:,} encoded now"
    else:
        with workers.place.started():
            written, said = workers.to_store(loaded(), corpus, to)
    console.say(
        f"{shown}: {counted(len(corpus), corpus.groups)}, {written.added:,} written now, "
        f"{written.there:,} there already; {said}"
    )
    if out is None:
        console.say(f'next: retrieval-prompts search "a question" --in {shlex.quote(shown)}{asked}')
        return
    held = save_index(written.index, corpus, out, bm25, overwrite)
    console.say(f"{out}: their texts, {held}; the vectors are in the store")
    console.say(_next(out, asked))


def _compare(
    data: Path | None,
    documents: list[str] | None,
    reading: Reading,
    texts: list[str],
    model: str | None,
    conventions: Conventions,
    prompts: Path | None,
    train_size: int | None,
    split: str,
    k: int,
    json_file: Path | None,
    picture: Path | None,
    cache: Path | None,
    device: str | None,
    trust_remote_code: bool,
    overwrite: bool,
) -> None:
    from retrieval_prompts.experiments.indexes import index_tradeoffs as tradeoffs

    console.check_outputs(json_file, overwrite=overwrite)
    if picture is not None:
        tradeoffs.check_picture(picture, overwrite=overwrite)
    from retrieval_prompts.data.beir_folder import load
    from retrieval_prompts.data.groups import counted
    from retrieval_prompts.experiments.indexes.index_types import Measured, compare_factories, parse_factories
    from retrieval_prompts.experiments.workbench import Workbench

    loaded = loader(model, prompts, device=device, trust_remote_code=trust_remote_code, **asdict(conventions))
    say = console.printer(json_file)
    dataset = load(data_folder(data, documents, reading, loaded, say, cache))
    queries, qrels = dataset.split(split)
    biencoder = loaded()
    bench = Workbench(biencoder.tower, dataset, cache)
    frozen = bench.frozen
    bench.bind(biencoder)
    if biencoder.identity() != frozen.identity():
        raise UserError(f"{prompts} has a document prompt; --compare searches an index of frozen documents")
    factories = parse_factories(texts, biencoder.tower.dimension)
    groups = dataset.corpus.groups
    made = counted(len(dataset.corpus), groups)
    say(f"{dataset.name}: {made}, {len(queries):,} {split} queries")
    encoders = {"frozen": frozen, "tuned": biencoder} if biencoder.prompts else {"frozen": frozen}
    vectors = {name: encoder.query_vectors(list(queries.values())) for name, encoder in encoders.items()}
    rows = compare_factories(
        bench.documents,
        dataset.corpus.ids,
        vectors,
        factories,
        query_ids=list(queries),
        qrels=qrels,
        measured=Measured(k=k, train_size=train_size, gpu=device != "cpu", firsts=groups.firsts if groups else None),
    )
    if json_file is not None:
        result = {
            "dataset": dataset.name,
            "split": split,
            "model": biencoder.tower.name,
            "documents": len(set(groups.firsts.tolist())) if groups else len(dataset.corpus),
            "vectors": len(dataset.corpus),
        }
        result |= {"query_count": len(queries), "prompts": str(prompts) if prompts else None}
        result["rows"] = [row.to_json() for row in rows]
        console.write_result(json_file, result)
    say(tradeoffs.table(rows))
    say("* best trade-offs: no other is as good in recall, speed and size, and better in one")
    if picture is not None:
        tradeoffs.picture(rows, picture, title=f"{dataset.name}, {made}", overwrite=overwrite)
        say(f"picture: {picture}")
