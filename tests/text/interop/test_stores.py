"""Vector databases, each the real one: vectors that others put there are checked, searched, read and trained on where
they are; and what is written there by us."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from command_line import Command
from one_worker import in_this_process
from toy_stores import STORES, Shelf, fill, need, server

from retrieval_prompts import BiEncoder, DataWarning, HybridIndex, UserError, adopt, load_corpus
from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.interop.frameworks.searcher import Searcher
from retrieval_prompts.interop.scale import pool, stored
from retrieval_prompts.interop.scale.sharded import encode_shards, portable
from retrieval_prompts.interop.scale.shards import of_corpus
from retrieval_prompts.interop.scale.vector_files import Parts
from retrieval_prompts.interop.stores import opening
from retrieval_prompts.interop.stores.address import Address, Fields, parse
from retrieval_prompts.interop.stores.filling import write
from retrieval_prompts.interop.stores.opening import open_index, open_store, over_all
from retrieval_prompts.interop.stores.trust import check_named
from retrieval_prompts.vectors.index import Index
from retrieval_prompts.vectors.store import Store, StoreIndex

QUESTIONS = ["show about copper and river", "lantern and quartz"]


@dataclass(frozen=True)
class World:
    """A model, its documents and our own index of them."""

    model: Path
    data: Path
    biencoder: BiEncoder
    corpus: Corpus
    vectors: np.ndarray
    own: Index

    def ranking(self, index: Index, k: int = 10) -> list[list[str]]:
        return index.search(self.biencoder.query_vectors(QUESTIONS), k)[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    model = tiny.write_model(tmp_path_factory.mktemp("model"))
    data = tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True)
    biencoder, corpus = BiEncoder.load(model, device="cpu"), load_corpus(data)
    vectors = biencoder.encode_corpus(corpus).array()
    own = Index.build(vectors, corpus, corpus.ids, encoder=biencoder.identity())
    return World(model, data, biencoder, corpus, vectors, own)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server() as uri:
        yield uri


@dataclass(frozen=True)
class Place:
    kind: str
    place: str

    def address(self, name: str = "docs") -> str:
        return f"{self.kind}:{self.place}#{name}"


@pytest.fixture(params=STORES)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place where nothing is yet."""
    need(request.param)
    if request.param == "pgvector":
        return Place("pgvector", request.getfixturevalue("postgres"))
    return Place(request.param, str(tmp_path / ("store.db" if request.param == "milvus" else "store")))


@pytest.fixture
def filled(empty: Place, world: World) -> Place:
    fill(empty.kind, empty.place, world.corpus.ids, world.vectors, [document.content for document in world.corpus])
    return empty


def close(index: Index) -> None:
    """Qdrant and Milvus lock their files."""
    client = getattr(index.vectors, "client", None) or getattr(index.vectors, "connection", None)
    if client is not None:
        client.close()


def test_a_store_ranks_as_our_own_index(filled: Place, world: World, tmp_path: Path) -> None:
    adopted = adopt(world.biencoder, filled.address(), world.corpus)
    index = adopted.index
    assert isinstance(index.vectors, Store)
    assert adopted.check.documents == 40
    assert world.ranking(index) == world.ranking(world.own)
    ours, theirs = (each.search(world.biencoder.query_vectors(QUESTIONS), 10)[0] for each in (world.own, index))
    assert theirs == pytest.approx(ours, abs=1e-5)
    places = np.array([3, 39, 3])
    assert index.vectors_at(places) == pytest.approx(world.vectors[places], abs=1e-6)
    assert index.scores_at(world.vectors[0], places) == pytest.approx(
        world.vectors[places] @ world.vectors[0], abs=1e-5
    )
    HybridIndex.build(index, world.corpus).save(tmp_path / "index")
    close(index)
    assert not (tmp_path / "index" / "index.faiss").exists()
    again = open_index(tmp_path / "index")
    hybrid, expected = HybridIndex.of(again, tmp_path / "index"), HybridIndex.build(world.own, world.corpus)
    assert hybrid is not None
    vectors = world.biencoder.query_vectors(QUESTIONS)
    found, wanted = (each.search(QUESTIONS, vectors, 10, weight=0.5) for each in (hybrid, expected))
    assert found[1] == wanted[1]
    assert again.document("d7").content == world.corpus[7].content
    close(again)


def test_vectors_in_a_store_are_checked(filled: Place, world: World, tmp_path: Path) -> None:
    texts = ["x"] * 40
    other = Place(filled.kind, filled.place if filled.kind == "pgvector" else str(tmp_path / "other.db"))
    fill(other.kind, other.place, world.corpus.ids, world.vectors[::-1], texts)
    with pytest.raises(UserError, match="they stand in another order than the ids or texts: reversed"):
        adopt(world.biencoder, other.address(), world.corpus)


def test_writing_goes_on_where_it_stopped(empty: Place, world: World, tmp_path: Path) -> None:
    address = empty.address("written")
    half = write(world.biencoder, world.corpus.only(world.corpus.ids[:25]), address, cache=tmp_path / "cache")
    assert (half.added, half.there) == (25, 0)
    close(half.index)
    whole = write(world.biencoder, world.corpus, address, cache=tmp_path / "cache")
    assert (whole.added, whole.there) == (15, 25)
    assert len(whole.index.vectors) == 40
    assert world.ranking(whole.index) == world.ranking(world.own)
    store: Any = whole.index.vectors
    assert store.documents(["d3", "d38"]) == [world.corpus[3], world.corpus[38]]
    with pytest.raises(KeyError, match="nobody"):
        store.vectors(["d1", "nobody"])
    assert store.known(["d1", "nobody", "o'brien"]) == {"d1"}
    store.add(np.roll(world.vectors[:1], 1, axis=1), [world.corpus[0]])
    with pytest.raises(UserError, match=r"has other vectors under 1 of the ids from d0 to d39 \(d0\); "):
        write(world.biencoder, world.corpus, store, cache=tmp_path / "cache")
    again = write(world.biencoder, world.corpus, store, cache=tmp_path / "cache", overwrite=True)
    assert (again.added, again.there) == (1, 39)
    assert len(store) == 40
    assert world.ranking(again.index) == world.ranking(world.own)
    close(again.index)


def test_workers_write_what_one_process_writes(
    empty: Place, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    with monkeypatch.context() as patch:
        answers = pool.answers
        # As where workers die when they have written half a shard and nobody knows: others do it all again
        patch.setattr(pool, "answers", lambda items, make, of: answers([*items, *items], make, of))
        shards = of_corpus(world.data / "corpus.jsonl", rows=15)
        encode_shards(world.biencoder, portable(world.model), shards, tmp_path / "vectors")
        parts = Parts(tmp_path / "vectors", world.corpus.ids)
        first = stored.write(parts, shards, world.corpus, empty.address("sharded"))
    assert first.added == (0 if stored.by_many(parse(empty.address())) else 40)  # where all was done already
    assert world.ranking(first.index) == world.ranking(world.own)
    assert len(first.index.vectors) == 40
    store: Any = first.index.vectors
    assert store.documents(["d3", "d38"]) == [world.corpus[3], world.corpus[38]]
    close(first.index)
    again = stored.write(parts, shards, world.corpus, empty.address("sharded"))
    assert (again.added, again.there) == (0, 40)
    close(again.index)


def test_who_may_write_a_store() -> None:
    many = ["qdrant:http://host:6333#a", "milvus:https://host#a", "lancedb:PATH#a", "pgvector:host=h#a"]
    assert [stored.by_many(parse(each)) for each in many] == [True] * 4
    assert [stored.by_many(parse(each)) for each in ("qdrant:PATH#a", "milvus:FILE.db#a")] == [False] * 2


def test_a_corpus_that_changed_meanwhile(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("lancedb")
    in_this_process(monkeypatch)
    shards = of_corpus(world.data / "corpus.jsonl")
    encode_shards(world.biencoder, portable(world.model), shards, tmp_path / "vectors")
    (tmp_path / "changed.jsonl").write_text('{"_id": "new", "text": "copper"}\n')
    parts, changed = Parts(tmp_path / "vectors", world.corpus.ids), of_corpus(tmp_path / "changed.jsonl")
    with pytest.raises(UserError, match=r"changed.jsonl has changed since it was encoded; run the same command again"):
        stored.write(parts, changed, world.corpus, f"lancedb:{tmp_path / 'db'}#docs")


def test_the_command_by_workers(
    command: Command, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("qdrant")
    in_this_process(monkeypatch)
    written, base = f"qdrant:{tmp_path / 'own'}#docs", ("--model", world.model, "--device", "cpu")
    for encoded in (40, 0):
        options = ("--engine", "ray", "--vectors", tmp_path / "vectors", *base)
        done = command("index", world.data, "--to", written, *options)
        assert done.code == 0, done.err
        assert (
            f"40 documents, {encoded} written now, {40 - encoded} there already; {encoded} encoded now by" in done.out
        )
    found = command("search", QUESTIONS[0], "--in", written, "--json", "-", *base).json
    assert [hit["id"] for hit in found] == world.ranking(world.own)[0]


def test_a_store_of_another_model(empty: Place, world: World) -> None:
    fill(empty.kind, empty.place, world.corpus.ids, np.tile(world.vectors, 2), ["x"] * 40)
    with pytest.raises(UserError, match="the store cannot be searched with vectors of 32 dimensions: "):
        adopt(world.biencoder, empty.address(), world.corpus)


def test_writing_to_a_store_of_another_model(world: World, tmp_path: Path) -> None:
    need("qdrant")
    fill("qdrant", str(tmp_path / "db"), ["x0"], np.ones((1, 64)), ["x"])
    with pytest.raises(UserError, match="the store does not take these vectors of 32 dimensions: "):
        write(world.biencoder, world.corpus, f"qdrant:{tmp_path / 'db'}#docs")


@pytest.mark.parametrize("kind", ["qdrant", "lancedb"])
def test_a_store_whose_ids_are_numbers(world: World, tmp_path: Path, kind: str) -> None:
    need(kind)
    fill(kind, str(tmp_path / "db"), list(range(40)), world.vectors, ["x"] * 40)  # type: ignore[arg-type]
    address = f"{kind}:{tmp_path / 'db'}#docs"
    with pytest.raises(UserError, match="have no id in common: expected ids such as d0"):
        adopt(world.biencoder, address, world.corpus)
    store: Any = open_store(address)
    assert store.known(["3", "d0", "²", "9" * 30]) == {"3"}
    assert store.vectors(["3"]) == pytest.approx(world.vectors[3:4], abs=1e-6)
    with pytest.raises(KeyError, match="d0"):
        store.vectors(["3", "d0"])


def test_what_is_not_there(filled: Place, world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no (table )?nothing"):
        open_store(filled.address("nothing"))
    with pytest.raises(UserError, match=r"has no field of vectors other|has no field other"):
        open_store(filled.address(), Fields(vector="other", id="other"))
    if filled.kind != "pgvector":
        with pytest.raises(UserError, match="does not exist"):
            open_store(Address(filled.kind, str(tmp_path / "gone"), "docs"))


# --- a store of one's own -------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(world: World) -> Shelf:
    return Shelf(dict(zip(world.corpus.ids, world.vectors, strict=True)))


def test_a_store_of_ones_own(world: World, shelf: Shelf, tmp_path: Path) -> None:
    adopted = adopt(world.biencoder, shelf, world.corpus)
    assert world.ranking(adopted.index) == world.ranking(world.own)
    adopted.index.save(tmp_path / "index")
    with pytest.raises(UserError, match="is of a store of your own"):
        open_index(tmp_path / "index")
    with pytest.raises(UserError, match=r"open it with retrieval_prompts\.interop\.stores"):
        Index.open(tmp_path / "index")
    again = StoreIndex.open_over(tmp_path / "index", shelf)
    assert world.ranking(again) == world.ranking(world.own)
    assert again.search(world.vectors[3], 1)[1] == [["d3"]]
    with pytest.raises(UserError, match="expected query vectors of dimension 32"):
        again.search(np.ones((1, 64), np.float32), 1)


def test_entries_without_an_id_are_left_out(world: World, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    search = shelf.search

    def nameless(vectors: np.ndarray, k: int, *, kept: bool) -> Any:
        scores, ids = search(vectors, k)
        return scores, [[id if kept and id != "d7" else None for id in row] for row in ids]

    monkeypatch.setattr(shelf, "search", partial(nameless, kept=True))
    with pytest.warns(DataWarning, match=r"the store has entries without an id \(1 among the first"):
        index = StoreIndex.over(shelf, None, encoder=world.biencoder.identity(), dimension=32)
    found = index.search(world.vectors[7:8], 5)[1]
    assert len(found[0]) == 4 and "None" not in index.ids
    monkeypatch.setattr(shelf, "search", partial(nameless, kept=False))
    with pytest.warns(DataWarning), pytest.raises(UserError, match=r"the store's entries have no ids; say which field"):
        StoreIndex.over(shelf, None, encoder=world.biencoder.identity(), dimension=32)


def test_a_point_without_the_field_of_ids_has_none(world: World, tmp_path: Path) -> None:
    need("qdrant")
    from qdrant_client import QdrantClient, models

    fill("qdrant", str(tmp_path / "q"), world.corpus.ids, world.vectors, ["x"] * 40)
    client = QdrantClient(path=str(tmp_path / "q"))
    client.delete_payload("docs", keys=["doc_id"], points=[0])
    client.upsert("docs", [models.PointStruct(id=99, vector=world.vectors[1].tolist(), payload={"doc_id": None})])
    client.close()
    with pytest.warns(DataWarning) as said:
        index = adopt(world.biencoder, f"qdrant:{tmp_path / 'q'}#docs", world.corpus).index
    for part in ("entries without an id (2 among", "2 of 41 vectors have no text", "1 of 40 texts have no vector"):
        assert sum(part in str(each.message) for each in said) == 1
    assert sorted(index.ids) == sorted(world.corpus.ids[1:])
    assert index.search(world.vectors[1:2], 2)[1][0][0] == "d1"
    close(index)


def test_feedback_prompts_read_a_store(world: World, shelf: Shelf) -> None:
    import torch

    from retrieval_prompts.prompts.feedback import Start

    reading = BiEncoder.load(world.model, device="cpu")
    start = Start(torch.eye(32) * 0.1, torch.zeros(32))
    reading.attach("query", length=2, encoder="feedback", feedback=3, feedback_bm25=0.0, start=start)
    expected = reading.bind(world.own).query_vectors(QUESTIONS)
    found = reading.bind(adopt(world.biencoder, shelf, world.corpus).index).query_vectors(QUESTIONS)
    assert found == pytest.approx(expected, abs=1e-6)
    open_ended = StoreIndex.over(shelf, None, encoder=reading.identity(), dimension=32)
    assert reading.bind(open_ended).query_vectors(QUESTIONS) == pytest.approx(expected, abs=1e-6)


def test_a_store_without_texts_for_all(world: World, shelf: Shelf) -> None:
    some = world.corpus.only(world.corpus.ids[:30])
    with pytest.warns(DataWarning, match="the store: 10 of 40 vectors have no text, and are not shown"):
        index = adopt(world.biencoder, shelf, some).index
    wanted = [[id for id in row if id in set(some.ids)][:5] for row in world.ranking(world.own, 40)]
    assert world.ranking(index, 5) == wanted


def test_a_store_that_ranks_otherwise(world: World) -> None:
    class Distances(Shelf):
        def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, list[list[str]]]:
            scores, ids = super().search(vectors, k)
            return 1 - scores, ids

    with pytest.raises(
        UserError, match=r"the store's scores are not inner products: -0\.0000 for 'd0', where it is 1\.0"
    ):
        adopt(world.biencoder, Distances(dict(zip(world.corpus.ids, world.vectors, strict=True))), world.corpus)


def test_a_store_of_another_dimension(world: World, shelf: Shelf) -> None:
    class Wide(Shelf):
        def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, list[list[str]]]:
            return np.ones((1, 1)), [["d0"]]

    wide = Wide({id: np.tile(row, 2) for id, row in shelf.rows.items()})
    with pytest.raises(UserError, match="the store's vectors have 64 dimensions, and the model's 32"):
        adopt(world.biencoder, wide, world.corpus)


# --- addresses and the command --------------------------------------------------------------------------------------


def test_addresses() -> None:
    assert parse("qdrant:a/b#c") == Address("qdrant", "a/b", "c")
    assert parse("pgvector:postgresql://me:secret@host/db#t").shown == "pgvector:postgresql://me@host/db#t"
    for text in ("qdrant:a", "qdrant:#c", "other:a#b"):
        with pytest.raises(UserError, match="expected the address of a store as KIND:PLACE#NAME"):
            parse(text)

    for place, expected in {
        "postgresql://me:p@ss@host/db": "postgresql://me@host/db",
        "me:secret@host/db": "me@host/db",
        "postgresql://me@one:5432,two:5433/db?options=a@b": "postgresql://me@one:5432,two:5433/db?options=a@b",
    }.items():
        assert parse(f"pgvector:{place}#t").shown == f"pgvector:{expected}#t"
    assert parse("qdrant:http://host:6333/a@b#c").shown == "qdrant:http://host:6333/a@b#c"
    spaced = parse("pgvector:host=h password = 'two words' dbname=d#t").shown
    assert "words" not in spaced, spaced
    assert "host=h" in spaced


@pytest.mark.parametrize(
    ("place", "key", "server"),
    [
        ("qdrant:https://other.example:6333", "QDRANT_API_KEY", "other.example"),
        ("qdrant:http://localhost:1@other.example/", "QDRANT_API_KEY", "other.example"),
        ("qdrant:http://other.example\\@localhost/", "QDRANT_API_KEY", None),
        ("milvus:http://[2001:db8::1]:19530", "MILVUS_TOKEN", "[2001:db8::1]"),
        ("pgvector:postgresql://me@localhost,other.example/db", "PGPASSWORD", "other.example"),
        ("pgvector:host=localhost hostaddr=192.0.2.1", None, "192.0.2.1"),
    ],
)
def test_a_server_that_a_folder_names_gets_no_key(
    world: World, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, key: str, server: str
) -> None:
    if place.startswith("pgvector"):
        pytest.importorskip("psycopg")
    index = adopt(world.biencoder, shelf, world.corpus).index
    index.manifest["store"] = {"address": f"{place}#docs"}
    index.save(tmp_path / "index")
    if key is not None:
        monkeypatch.setenv(key, "secret")
    with pytest.raises(UserError, match=r"names the server .* RETRIEVAL_PROMPTS_SERVERS=") as refused:
        open_index(tmp_path / "index")
    assert server is None or f"names the server {server}, which" in str(refused.value)
    if server is not None:
        monkeypatch.setenv("RETRIEVAL_PROMPTS_SERVERS", f"mine.example, {server.upper()}")
        check_named(parse(f"{place}#docs"), tmp_path)


def test_a_local_store_that_a_folder_names_is_opened_once_its_user_has_typed_it(world: World, tmp_path: Path) -> None:
    need("qdrant")
    fill("qdrant", str(tmp_path / "db"), world.corpus.ids, world.vectors, [each.content for each in world.corpus])
    address = f"qdrant:{tmp_path / 'db'}#docs"
    with pytest.raises(UserError, match=r"INDEX names qdrant:\S+#docs, whose client would unpickle .* --in qdrant:"):
        check_named(parse(address), "INDEX")
    open_store(address)
    check_named(parse(address), "INDEX")


def test_milvus_logs_no_traceback_of_its_own(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    need("milvus")
    fill("milvus", str(tmp_path / "s.db"), world.corpus.ids, world.vectors, ["x"] * 40)
    levels = [logging.getLogger(name).level for name in ("pymilvus", "milvus_lite")]
    store = open_store(f"milvus:{tmp_path / 's.db'}#docs")
    with pytest.raises(UserError, match="the store cannot be searched with vectors of 16 dimensions"):
        StoreIndex.over(store, None, encoder={}, dimension=16)
    assert not [each for each in caplog.records if each.name.startswith(("pymilvus", "milvus_lite"))]
    assert levels == [logging.getLogger(name).level for name in ("pymilvus", "milvus_lite")]


SECRETS = (
    "pgvector:postgresql://me:secret@localhost:1/db#t",
    "pgvector:postgresql://me:secret@localhost:1/db",
    "pgvector:postgresql://me:se@secret@localhost:1/db#t",
    "pgvector:postgresql://me:se/secret@localhost:1/db#t",
    "pgvector:postgresql://me:se:secret@localhost:1/db#t",
    "pgvector:me:secret@localhost:1/db#t",
    "pgvector:host=localhost port=1 password=secret#t",
    "pgvector:host=localhost port=1 password='a secret'",
    "postgresql://me:secret@localhost:1/db#t",
    "qdrant:http://me:secret@localhost:1#t",
    "milvus:http://me:secret@localhost:1",
)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # Qdrant's warns in a thread
@pytest.mark.parametrize("typed", SECRETS)
def test_a_password_in_an_address_is_never_shown(
    command: Command, world: World, tmp_path: Path, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("qdrant")
    pytest.importorskip("psycopg", reason="the extra pgvector is not installed")
    base = ("--model", world.model, "--device", "cpu")
    for arguments in (
        ("search", "a question", "--in", typed, *base),
        ("search", typed, "a question"),
        ("adopt", typed, "--texts", world.data, "--out", tmp_path / "index", *base),
        ("index", world.data, "--to", typed, *base),
    )[: 4 if typed in SECRETS[3:6] else 1]:
        done = command(*arguments)
        assert done.code != 0 and "secret" not in done.out + done.err, arguments
        assert done.err.splitlines()[-1].startswith("error: "), arguments


def test_what_a_store_is_called_has_no_password(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(dict(zip(world.corpus.ids, world.vectors, strict=True)))
    monkeypatch.setattr(opening, "_opener", lambda kind: lambda where, fields: shelf)
    typed = "pgvector:postgresql://me:secret@host/db#t"
    searcher = Searcher.open(typed, model=str(world.model), device="cpu")
    assert searcher.place == "pgvector:postgresql://me@host/db#t"
    with pytest.warns(DataWarning, match=r"^pgvector:postgresql://me@host/db#t holds no texts"):
        assert len(searcher.search(QUESTIONS, 3)) == 2
    with pytest.raises(UserError, match=r"whether pgvector:postgresql://me@host/db#t has it too"):
        over_all(typed, {"document_prompt": "x"}, 32)
    found = adopt(world.biencoder, typed, world.corpus).index
    assert found.manifest["store"]["address"] == "pgvector:postgresql://me@host/db#t"


def test_where_nothing_is_found_nothing_is_said_of_texts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(dict(zip(world.corpus.ids, world.vectors, strict=True)))
    index = StoreIndex.over(shelf, None, encoder=world.biencoder.identity(), dimension=32)
    searcher = Searcher(world.biencoder, index, unchecked=True)
    search = shelf.search
    monkeypatch.setattr(shelf, "search", lambda vectors, k: (np.zeros((len(vectors), 0)), [[] for _ in vectors]))
    assert searcher.search(QUESTIONS, 3) == [[], []]
    monkeypatch.setattr(shelf, "search", search)
    with pytest.warns(DataWarning, match="the index holds no texts"):
        searcher.search(QUESTIONS, 3)


def test_servers_that_may_have_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("QDRANT_API_KEY", "PGPASSWORD"):
        monkeypatch.setenv(key, "secret")
    here = ("qdrant:http://localhost:6333", "qdrant:http://[::1]:6333", "lancedb:a/b", "milvus:https://other.example")
    for place in (
        *here,
        "pgvector:postgresql:///db?host=/tmp",
        "pgvector:dbname=d",
        "pgvector:postgresql://127.0.0.1/d",
    ):
        check_named(parse(f"{place}#docs"), "INDEX")


def test_a_client_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    monkeypatch.delitem(sys.modules, "retrieval_prompts.interop.stores.qdrant", raising=False)
    with pytest.raises(UserError, match=r'^qdrant needs its client: pip install "retrieval-prompts\[qdrant\]"'):
        open_store("qdrant:somewhere#docs")


def test_the_commands(command: Command, world: World, tmp_path: Path) -> None:
    need("qdrant")
    fill("qdrant", str(tmp_path / "db"), world.corpus.ids, world.vectors, [each.content for each in world.corpus])
    address, base = f"qdrant:{tmp_path / 'db'}#docs", ("--model", world.model, "--device", "cpu")
    done = command("adopt", address, "--texts", world.data, "--out", tmp_path / "index", *base)
    assert done.code == 0, done.err
    assert "40 documents, Qdrant, BM25 (" in done.out
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [
        "bm25",
        "documents.jsonl",
        "ids.json",
        "ids.npy",
        "lines.npy",
        "manifest.json",
        "offsets.npy",
    ]
    assert command("verify", tmp_path / "index").out.endswith(": index, sound\n")
    expected = world.ranking(world.own)[0]
    by_folder = command("search", tmp_path / "index", QUESTIONS[0], "--bm25-weight", 0, "--json", "-", *base)
    assert [hit["id"] for hit in by_folder.json] == expected, by_folder.err
    assert by_folder.json[0]["title"] == world.own.document(expected[0]).title
    direct = command("search", QUESTIONS[0], "--in", address, "--json", "-", *base)
    assert [hit["id"] for hit in direct.json] == expected, direct.err
    assert direct.json[0]["text"] == world.own.document(expected[0]).content
    again = command("adopt", address, "--texts", world.data, "--out", tmp_path / "index", "--overwrite", *base)
    assert again.code == 0, again.err
    written = f"qdrant:{tmp_path / 'own'}#docs"
    for added in (40, 0):
        done = command("index", world.data, "--to", written, *base)
        assert done.code == 0, done.err
        assert f"40 documents, {added} written now, {40 - added} there already" in done.out
    assert [
        hit["id"] for hit in command("search", QUESTIONS[0], "--in", written, "--json", "-", *base).json
    ] == expected


def test_a_direct_search_is_checked_too(command: Command, world: World, tmp_path: Path) -> None:
    need("lancedb")
    base = ("--model", world.model, "--device", "cpu")
    texts = [each.content for each in world.corpus]
    fill("lancedb", str(tmp_path / "wrong"), world.corpus.ids, world.vectors[::-1], texts)
    fill("lancedb", str(tmp_path / "bare"), world.corpus.ids, world.vectors, [""] * 40)
    wrong = command("search", QUESTIONS[0], "--in", f"lancedb:{tmp_path / 'wrong'}#docs", *base)
    assert wrong.code == 2
    assert "are not what" in wrong.err
    bare = command("search", QUESTIONS[0], "--in", f"lancedb:{tmp_path / 'bare'}#docs", *base)
    assert bare.code == 0, bare.err
    assert "holds no texts, so there is no way to tell here whether" in bare.err
    both = command("search", tmp_path, QUESTIONS[0], "--in", f"lancedb:{tmp_path / 'bare'}#docs", *base)
    assert "is one argument too many; leave it out" in both.err
    assert "expected an index folder and a question" in command("search", tmp_path).err
