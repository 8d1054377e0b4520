"""Vectors made elsewhere become an index where they are what the model makes, and are refused with the reason where
they are not."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import tiny
from command_line import Command
from sentence_transformers import SentenceTransformer

import retrieval_prompts
from retrieval_prompts import BiEncoder, DataWarning, UserError, adopt, load_corpus
from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.vectors.foreign_files import read_ids, read_vectors
from retrieval_prompts.vectors.index import Index
from retrieval_prompts.vectors.likeness import Way, encoded

QUESTION = "show about copper and river"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True)


@pytest.fixture(scope="module")
def corpus(data: Path) -> Corpus:
    return load_corpus(data)


@pytest.fixture(scope="module")
def biencoder(model: Path) -> BiEncoder:
    return BiEncoder.load(model, device="cpu")


@pytest.fixture(scope="module")
def vectors(model: Path, corpus: Corpus) -> np.ndarray:
    """By plain sentence-transformers."""
    return SentenceTransformer(str(model), device="cpu").encode([document.content for document in corpus])


@pytest.fixture(scope="module")
def own(biencoder: BiEncoder, corpus: Corpus) -> Index:
    return Index.build(biencoder.encode_corpus(corpus), corpus, corpus.ids, encoder=biencoder.identity())


def ranking(index: Index, biencoder: BiEncoder) -> list[list[str]]:
    return index.search(biencoder.query_vectors([QUESTION, "lantern and quartz"]), 10)[1]


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), path)
    return path


# --- what fits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_an_npy_with_ids_in_another_order(
    biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray, own: Index, tmp_path: Path, half: bool
) -> None:
    np.save(tmp_path / "v.npy", vectors[::-1].astype(np.float16 if half else np.float32))
    (tmp_path / "ids.json").write_text(json.dumps(corpus.ids[::-1]))
    found = adopt(biencoder, tmp_path / "v.npy", corpus, ids=tmp_path / "ids.json")
    assert found.index.ids == corpus.ids
    assert ranking(found.index, biencoder) == ranking(own, biencoder)
    assert found.check.documents == 40
    assert found.check.cosine > 0.99999
    assert found.index.manifest["build"]["check"] == found.check.to_json()
    found.index.check_encoder(biencoder.identity())


def test_parquet_by_the_names_of_its_columns(
    biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray, own: Index, tmp_path: Path
) -> None:
    columns = {"text": ["x"] * 40, "key": corpus.ids, "doc_id": corpus.ids, "embedding": list(vectors)}
    path = write_parquet(tmp_path / "v.parquet", columns)
    assert ranking(adopt(biencoder, path, corpus).index, biencoder) == ranking(own, biencoder)
    assert adopt(biencoder, path, corpus, id_field="key", sample=3).check.documents == 3
    with pytest.raises(UserError, match=r"has no column nokey; it has text, key, doc_id, embedding$"):
        adopt(biencoder, path, corpus, id_field="nokey")


def test_parquet_whose_vectors_or_ids_are_not_whole(corpus: Corpus, vectors: np.ndarray, tmp_path: Path) -> None:
    path, rows = tmp_path / "v.parquet", list(vectors)
    for changed in ([rows[0][:16], rows[1][:16], *rows[1:-1]], [*rows[:-1], rows[0][:16]]):  # 40 x 32 numbers, or less
        write_parquet(path, {"id": corpus.ids, "vector": changed})
        with pytest.raises(
            UserError, match=r"v\.parquet: expected vectors of one length, got lists of (16, 32|32, 16)$"
        ):
            read_vectors(path)
    for ids in ([*corpus.ids[:-2], None, None], [1.0] * 38 + [float("nan"), None]):
        write_parquet(path, {"id": ids, "vector": rows})
        with pytest.raises(
            UserError, match=r"v\.parquet, column id: expected an id for each, got none at 2 of 40 places"
        ):
            read_vectors(path)
    write_parquet(path, {"id": [id.encode() for id in corpus.ids], "vector": rows})
    assert read_vectors(path).ids == corpus.ids


def factories() -> list[tuple[str, str]]:
    return [
        ("Flat", "Flat"),
        ("HNSW8", "HNSWFlat"),
        ("SQ8", "ScalarQuantizer"),
        ("IVF2,Flat", "IVFFlat"),
        ("PQ4x4", "PQ"),
    ]


@pytest.mark.parametrize(("factory", "kept"), factories())
def test_a_faiss_index_stays_as_it_is(
    biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray, tmp_path: Path, factory: str, kept: str
) -> None:
    index = faiss.index_factory(32, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors[::-1].copy())
    faiss.write_index(index, str(tmp_path / "docs.faiss"))
    found = adopt(biencoder, tmp_path / "docs.faiss", corpus, ids=corpus.ids[::-1])
    assert found.index.ids == corpus.ids[::-1]
    assert found.index.manifest["factory"] == kept
    _, expected = index.search(biencoder.query_vectors([QUESTION]), 1)
    assert ranking(found.index, biencoder)[0][0] == corpus.ids[::-1][expected[0, 0]]
    found.index.save(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    assert opened.document("d7").content == corpus[7].content
    assert ranking(opened, biencoder) == ranking(found.index, biencoder)


def numbered(vectors: np.ndarray, ids: list[int], inside: bool) -> Any:
    """FAISS's own ids: in a map around the index, or in its lists."""
    if not inside:
        index: Any = faiss.IndexIDMap(faiss.IndexFlatIP(32))
    else:
        index = faiss.index_factory(32, "IVF2,Flat", faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
    index.add_with_ids(vectors, np.array(ids))
    return index


@pytest.mark.parametrize("inside", [False, True])
def test_ids_of_faiss_are_rows_or_ids(
    biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray, own: Index, tmp_path: Path, inside: bool
) -> None:
    faiss.write_index(numbered(vectors[::-1].copy(), list(range(40))[::-1], inside), str(tmp_path / "rows.faiss"))
    found = adopt(biencoder, tmp_path / "rows.faiss", corpus)
    assert ranking(found.index, biencoder) == ranking(own, biencoder)
    if inside:  # ids from 0 without a gap are positions
        assert "has no ids" in found.remarks[0]
    else:
        assert "taken for rows" in found.remarks[0]
    lines = tmp_path / "named"
    lines.mkdir()
    rows = [json.dumps({"_id": str(5 * n), "title": d.title, "text": d.text}) for n, d in enumerate(corpus)]
    tiny.write_lines(lines / "corpus.jsonl", rows)
    faiss.write_index(numbered(vectors, [5 * n for n in range(40)], inside), str(tmp_path / "ids.faiss"))
    by_id = adopt(biencoder, tmp_path / "ids.faiss", load_corpus(lines))
    expected = [[str(5 * int(id[1:])) for id in row] for row in ranking(own, biencoder)]
    assert ranking(by_id.index, biencoder) == expected


def test_an_index_of_distances_is_indexed_anew(
    biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray, own: Index, tmp_path: Path
) -> None:
    index = faiss.IndexFlatL2(32)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "docs.faiss"))
    found = adopt(biencoder, tmp_path / "docs.faiss", corpus)
    assert any("indexed again, as Flat" in remark for remark in found.remarks)
    assert ranking(found.index, biencoder) == ranking(own, biencoder)


def test_what_has_no_counterpart_is_left_out(biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray) -> None:
    ids = [*corpus.ids[:38], "x1", "x2"]
    with pytest.warns(DataWarning) as said:
        found = adopt(biencoder, vectors, corpus, ids=ids)
    assert [str(each.message) for each in said] == [
        "the array: 2 of 40 vectors have no text and are left out (x1, x2)",
        "the array: 2 of 40 texts have no vector, and will never be found (d38, d39)",
    ]
    assert found.index.ids == corpus.ids[:38]
    assert found.index.document("d3").content == corpus[3].content


def test_a_model_that_does_not_normalise(toy: Callable[..., Path], corpus: Corpus) -> None:
    folder = toy("bert", normalize=False)
    raw = SentenceTransformer(str(folder), device="cpu").encode([document.content for document in corpus])
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1
    found = adopt(BiEncoder.load(folder, device="cpu"), raw, corpus)
    assert np.linalg.norm(found.index.vectors_at(np.arange(3)), axis=1) == pytest.approx(1)


# --- what does not --------------------------------------------------------------------------------------------------


def refusal(biencoder: BiEncoder, vectors: np.ndarray | Path, corpus: Corpus, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        adopt(biencoder, vectors, corpus, **options)
    return str(error.value)


def test_random_vectors(biencoder: BiEncoder, corpus: Corpus) -> None:
    random = np.random.default_rng(0).normal(size=(40, 32)).astype(np.float32)
    said = refusal(biencoder, random, corpus)
    assert said.startswith(
        f"the vectors of the array are not what {biencoder.tower.name} makes of these texts: 40 of 40 sampled"
    )
    assert said.endswith("so another model made them, or they are of other texts")


def test_another_order(biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray) -> None:
    assert "in another order than the ids or texts: reversed; " in refusal(biencoder, vectors[::-1], corpus)
    spread = refusal(biencoder, vectors[1:30], corpus.only(corpus.ids[:29]))
    assert "another order than the ids or texts: shifted by -1; " in spread
    shuffled = np.random.default_rng(0).permutation(40)
    said = refusal(biencoder, vectors[shuffled], corpus, sample=5)
    found = re.search(r"the vector of document (\d+) stands at (\d+), counted from 0", said)
    assert found is not None
    assert shuffled[int(found[2])] == int(found[1])


def test_scaled(biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray) -> None:
    said = refusal(biencoder, 9 * vectors, corpus)
    assert "and are 9 times as long: they were not normalised, or scaled" in said


def test_another_dimension(biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray) -> None:
    assert "they have 48 dimensions, and the model 32" in refusal(biencoder, np.tile(vectors, 2)[:, :48], corpus)
    assert "they were cut to their first 16" in refusal(biencoder, vectors[:, :16], corpus)


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (Way(pooling="cls"), "they were made with other pooling: the first token"),
        (Way(pooling="max"), "they were made with other pooling: the maximum"),
        (Way(joined=""), "they were made without their titles"),
    ],
)
def test_made_otherwise(biencoder: BiEncoder, corpus: Corpus, way: Way, reason: str) -> None:
    made = biencoder.tower.comparable(encoded(biencoder.tower, list(corpus), way))
    assert reason in refusal(biencoder, made, corpus)


@pytest.fixture(scope="module")
def worded(toy: Callable[..., Path]) -> BiEncoder:
    words = {"query": "query: ", "document": "the passage: "}
    return BiEncoder.load(toy("bert", prompts=words, maximum=48), device="cpu")


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (Way(words=""), "they were made without the words 'the passage: ', which this model puts before documents "),
        (Way(words="query: "), "they were made with the words 'query: ' before them, not 'the passage: ' "),
        (Way(cut=32), "they were made cut at 32 tokens, where this model cuts at 48"),
        (Way(cut=64), "they were made cut at 64 tokens, where this model cuts at 48"),
        (Way(words="", pooling="cls"), "they were made with other pooling: the first token, and without the words"),
    ],
)
def test_made_otherwise_by_a_model_with_words(worded: BiEncoder, tmp_path: Path, way: Way, reason: str) -> None:
    texts = ["search the corpus for evidence that supports or refutes this claim, " * 12, "fox", "quick brown fox"]
    rows = [json.dumps({"_id": str(number), "title": "", "text": text}) for number, text in enumerate(texts)]
    tiny.write_lines(tmp_path / "corpus.jsonl", rows)
    corpus = load_corpus(tmp_path)
    made = encoded(worded.tower, list(corpus), way)
    assert reason in refusal(worded, made, corpus)


def test_other_words_fit_when_they_are_given(toy: Callable[..., Path], worded: BiEncoder, corpus: Corpus) -> None:
    made = encoded(worded.tower, list(corpus), Way(words=""))
    given = BiEncoder.load(
        toy("bert", prompts={"query": "query: ", "document": "the passage: "}, maximum=48),
        device="cpu",
        document_words="",
    )
    assert adopt(given, made, corpus).check.cosine > 0.9999


def test_texts_that_changed(biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray) -> None:
    changed = vectors.copy()
    changed[5] = np.random.default_rng(0).normal(size=32)
    said = refusal(biencoder, changed, corpus)
    assert "1 of 40 sampled documents have a cosine below 0.999" in said
    assert said.endswith("the others fit, so these texts may have been changed since: d5")
    changed[5] = 0
    assert refusal(biencoder, changed, corpus).endswith("1 of them are zero or not finite")


def test_a_document_prompt(model: Path, corpus: Corpus, vectors: np.ndarray) -> None:
    both = BiEncoder.load(model, device="cpu").attach("both", length=2)
    assert "this one has a prompt" in refusal(both, vectors, corpus)


# --- files and ids --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ids.txt", "ids.json", "ids.npy", "ids.jsonl"])
def test_ids_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "ids.npy":
        np.save(path, np.array([7, 8]))
    else:
        path.write_text({"ids.txt": "7\n8\n", "ids.json": "[7, 8]", "ids.jsonl": '{"_id": 7}\n{"_id": "8"}\n'}[name])
    assert read_ids(path) == ["7", "8"]


def test_ids_as_bytes_with_a_byte_order_mark_and_none(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array([b"d1", b"d2"]))
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbfd1\r\nd2\r\n")
    assert read_ids(tmp_path / "ids.npy") == read_ids(tmp_path / "ids.txt") == ["d1", "d2"]
    (tmp_path / "ids.jsonl").write_text('{"id": 1}\n{"id": null}\n')
    with pytest.raises(UserError, match=r"ids\.jsonl:2: expected an id under id, got None"):
        read_ids(tmp_path / "ids.jsonl")
    np.save(tmp_path / "ids.npy", np.array([1, np.nan]))
    with pytest.raises(
        UserError, match=r"ids\.npy: expected an id for each, got none at 1 of 2 places, the first at 1"
    ):
        read_ids(tmp_path / "ids.npy")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_folder_with_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"id": ["a"], "vector": [np.ones(2, dtype=np.float32)]})
    assert read_vectors(tmp_path).ids == ["a"]
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(
            UserError, match=r"pipe is not a regular file but a pipe, a socket or a device; it is not read"
        ):
            read_vectors(path)


def test_an_array_of_npz_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.ones((3, 2), dtype=np.float32)
    np.savez(tmp_path / "v.npz", other=np.zeros(4), mine=vectors, ids=np.array([[1], [2], [3]]))
    unpacked, access = [], np.lib.npyio.NpzFile.__getitem__

    def counted(self: Any, name: str) -> Any:
        unpacked.append(name)
        return access(self, name)

    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", counted)
    source = read_vectors(tmp_path / "v.npz")
    assert source.ids == ["1", "2", "3"] and (source.vectors.rows(np.arange(3)) == vectors).all()
    assert sorted(unpacked) == ["ids", "mine", "other"]


def test_numbers_that_are_no_rows_of_the_ids(
    tmp_path: Path, biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray
) -> None:
    index = faiss.IndexIDMap(faiss.IndexFlatIP(32))
    index.add_with_ids(vectors, np.arange(40) - 1)  # -1 is not the last of the ids
    faiss.write_index(index, str(tmp_path / "numbered.faiss"))
    shifted = [*corpus.ids[1:], corpus.ids[0]]
    assert adopt(biencoder, tmp_path / "numbered.faiss", corpus, ids=corpus.ids).index.ids == corpus.ids
    assert "another order" in refusal(biencoder, tmp_path / "numbered.faiss", corpus, ids=shifted)


def test_files_that_are_none(tmp_path: Path, biencoder: BiEncoder, corpus: Corpus, vectors: np.ndarray) -> None:
    (tmp_path / "a.faiss").write_bytes(b"nothing")
    np.save(tmp_path / "flat.npy", np.zeros(4))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "both.npz", vectors=vectors, ids=np.array(corpus.ids))
    source = read_vectors(tmp_path / "both.npz")
    assert source.ids == corpus.ids
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': ((((, }"
    (tmp_path / "open.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(UserError, match="holds no ids that can be read"):
        read_ids(tmp_path / "open.npy")
    for name, message in {
        "open.npy": "cannot be read as vectors",
        "none.npy": "does not exist; expected a FAISS file, .npy, .npz or Parquet",
        "a.faiss": r"is not a file of vectors that can be read \(FAISS, .npy, .npz, Parquet\): ",
        "flat.npy": r"expected vectors as numbers of shape \(documents, dimension\), got float64 of shape \(4,\)",
        "objects.npy": "cannot be read as vectors",
    }.items():
        with pytest.raises(UserError, match=message):
            read_vectors(tmp_path / name)
    with pytest.raises(UserError, match=r"both\.npz has no array nope; it has vectors, ids"):
        read_vectors(tmp_path / "both.npz", id_field="nope")
    np.save(tmp_path / "vectors.npy", vectors)
    with pytest.raises(UserError, match="has no fields; leave out --id-field and --vector-field"):
        read_vectors(tmp_path / "vectors.npy", id_field="nope")
    assert "the array: expected vectors as numbers" in refusal(biencoder, np.array(["a"] * 40), corpus)
    assert "expected one for each, in order" in refusal(biencoder, vectors, corpus, ids=["a"])
    assert "and no ids, and there are 40 texts; pass --ids" in refusal(biencoder, vectors[:30], corpus)
    assert "have no id in common" in refusal(biencoder, vectors, corpus, ids=[f"x{n}" for n in range(40)])
    assert "got 1 repeated ones (d0)" in refusal(biencoder, vectors, corpus, ids=["d0", *corpus.ids[:39]])


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command(
    command: Command, model: Path, data: Path, corpus: Corpus, vectors: np.ndarray, tmp_path: Path
) -> None:
    index = faiss.IndexFlatIP(32)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "docs.faiss"))
    (tmp_path / "ids.txt").write_text("\n".join(corpus.ids))
    base = ("--texts", data, "--model", model, "--device", "cpu")
    done = command("adopt", tmp_path / "docs.faiss", "--ids", tmp_path / "ids.txt", "--out", tmp_path / "index", *base)
    assert done.code == 0, done.err
    assert "40 documents encoded and compared: lowest cosine 1.00000" in done.out
    assert f"{tmp_path / 'index'}: 40 documents, Flat, BM25 (" in done.out
    found = command("search", tmp_path / "index", QUESTION, "--json", "-", "--device", "cpu")
    assert found.code == 0, found.err
    assert len(found.json) == 10
    assert command("verify", tmp_path / "index").code == 0
    np.save(tmp_path / "reversed.npy", vectors[::-1])
    refused = command("adopt", tmp_path / "reversed.npy", "--out", tmp_path / "no", *base)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "another order" in refused.err
    assert not (tmp_path / "no").exists()


def test_it_is_offered_at_the_top() -> None:
    assert retrieval_prompts.adopt is adopt
