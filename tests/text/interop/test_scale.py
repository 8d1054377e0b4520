"""Documents in shards, encoded by workers: the same vectors as one process makes, kept by shard, none made twice."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from command_line import Command
from one_worker import in_this_process
from text_commands import refused

from retrieval_prompts import BiEncoder, UserError, load_corpus
from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.interop.scale import pool, vector_files
from retrieval_prompts.interop.scale.parts_run import Encoded
from retrieval_prompts.interop.scale.sharded import encode_shards, portable
from retrieval_prompts.interop.scale.shards import Shard, of_corpus, of_files
from retrieval_prompts.interop.scale.vector_files import Parts

Run = Callable[..., Encoded]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


def write_corpus(folder: Path, count: int = 50, first: int = 0, name: str = "corpus.jsonl") -> Path:
    """Documents of 1 to 30 words, in lines of JSON."""
    chosen = random.Random(first)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"_id": f"d{number}", "title": "", "text": " ".join(chosen.choices(tiny.WORDS, k=chosen.randint(1, 30)))}
        for number in range(first, first + count)
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "data")


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)


@pytest.fixture
def run(one_worker: None, model: Path, data: Path, tmp_path: Path) -> Run:
    biencoder = BiEncoder.load(model, device="cpu")

    def encode(shards: list[Shard] | None = None, **options: Any) -> Encoded:
        found = of_corpus(data / "corpus.jsonl", rows=20) if shards is None else shards
        return encode_shards(biencoder, portable(model), found, tmp_path / "vectors", **options)

    return encode


def single(model: Path, corpus: Corpus, tmp_path: Path) -> np.ndarray:
    return BiEncoder.load(model, device="cpu").encode_corpus(corpus, tmp_path / "cache").array()


def ids(shards: list[Shard]) -> list[str]:
    return [document.id for shard in shards for document in shard.documents()]


# --- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_shards_of_a_corpus_are_its_documents_in_order(tmp_path: Path, name: str) -> None:
    corpus = load_corpus(write_corpus(tmp_path / "data", name=name))
    found = of_corpus(corpus.path, rows=20)
    assert [len(shard.documents()) for shard in found] == [20, 20, 10]
    assert [document for shard in found for document in shard.documents()] == list(corpus)


def test_workers_find_the_corpus_from_wherever_they_are(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    shards = of_corpus(Path("corpus.jsonl"))
    monkeypatch.chdir("/")
    assert len(ids(shards)) == 50


def test_one_shard_is_what_one_process_encodes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(f'{{"_id": "{number}", "text": "a"}}\n' for number in range(2050)))
    assert [len(shard.documents()) for shard in of_corpus(path)] == [2048, 2]


@pytest.mark.parametrize("size", [1, 100, 777, 1 << 20])
def test_each_line_is_in_one_stretch_of_bytes(data: Path, size: int) -> None:
    path = data / "corpus.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\n\n", 3).removesuffix(b"\n"))
    assert ids(of_files(path, size)) == [f"d{number}" for number in range(50)]


def test_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow as pa

    folder = write_corpus(tmp_path / "parts", 5, name="a.jsonl")
    write_corpus(folder, 5, 5, name="b.jsonl.gz")
    table = pa.table({"id": list(range(7)), "text": ["copper"] * 6 + [None]})
    pq.write_table(table, folder / "c.parquet", row_group_size=2)
    (folder / "notes.txt").write_text("not read")
    assert ids(of_files(folder)) == [f"d{number}" for number in range(10)] + [str(number) for number in range(7)]
    assert len(of_files(folder / "c.parquet", 1)) == 4
    assert ids(of_files(folder / "c.parquet", 1)) == [str(number) for number in range(7)]
    assert ids(of_files(folder / "*.jsonl")) == [f"d{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"_id": "a", "text": "b"}\n\n{"_id": "c", "text"\n', "corpus.jsonl:3: expected a JSON object, got malformed"),
        ('{"_id": "a", "text": "b"}\n{"text": "b"}\n', 'corpus.jsonl:2: expected .*"_id"'),
        ('{"_id": "a", "body": "b"}\n', 'corpus.jsonl:1: expected the field "text"'),
    ],
)
def test_what_is_no_document_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(text)
    for found in (of_files(path, 30), of_corpus(path, rows=1)):
        with pytest.raises(UserError, match=message):
            ids(found)


def test_what_cannot_be_read_in_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone does not exist; expected a BEIR folder, or files of JSON lines"):
        of_files(tmp_path / "gone")
    with pytest.raises(UserError, match="holds no documents that can be read in shards"):
        of_files(tmp_path)
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(UserError, match=r"a.parquet cannot be read as Parquet"):
        of_files(tmp_path)


# --- what is written -----------------------------------------------------------------------------------------------


def test_vectors_are_those_of_one_process_and_none_is_made_twice(
    run: Run, model: Path, data: Path, tmp_path: Path
) -> None:
    corpus = load_corpus(data)
    first, second = run(), run()
    assert (first.documents, first.encoded, first.shards, first.made) == (50, 50, 3, 3)
    assert (second.documents, second.encoded, second.shards, second.made) == (50, 0, 3, 0)
    found = Parts(tmp_path / "vectors", corpus.ids)
    expected = single(model, corpus, tmp_path)
    np.testing.assert_allclose(np.concatenate(list(found)), expected, atol=1e-6)  # with other batch mates
    chosen = np.array([49, 0, 21, 20, 21])
    np.testing.assert_array_equal(found.rows(chosen), np.concatenate(list(found))[chosen], strict=True)


def test_a_part_that_is_damaged_gone_or_of_other_texts_is_made_again(run: Run, data: Path, tmp_path: Path) -> None:
    run()
    corpus, folder = load_corpus(data), tmp_path / "vectors"
    content = (folder / "part-000001.parquet").read_bytes()
    before = Parts(folder, corpus.ids)
    at = content.index(np.asarray(before.rows(np.array([25]))[0][:2]).tobytes())
    for broken in (content[:-20], content[:at] + b"\xff" + content[at + 1 :], b""):
        (folder / "part-000001.parquet").write_bytes(broken)
        with pytest.raises(UserError, match=r"part-000001.parquet is .*; encode again: only it will be made"):
            np.concatenate(list(Parts(folder, corpus.ids)))
        assert run().encoded == 20
        assert (folder / "part-000001.parquet").read_bytes() == content
    (folder / "part-000002.parquet").unlink()
    assert run().encoded == 10
    text = (data / "corpus.jsonl").read_text()
    (data / "corpus.jsonl").write_text(text.replace('"d3"', '"d3x"') + '{"_id": "new", "text": "copper"}\n')
    assert run().encoded == 20 + 11
    assert Parts(folder, load_corpus(data).ids).rows(np.array([50])).shape == (1, 32)
    with pytest.raises(UserError, match="has the document 'd3x', which the corpus has not"):
        Parts(folder, corpus.ids)


def test_a_shorter_corpus_leaves_no_part_behind(run: Run, data: Path, tmp_path: Path) -> None:
    run()
    lines = (data / "corpus.jsonl").read_text().splitlines(keepends=True)
    (data / "corpus.jsonl").write_text("".join(lines[:20]))
    assert run().encoded == 0
    assert sorted(path.name for path in (tmp_path / "vectors").iterdir()) == ["_shards.json", "part-000000.parquet"]


def test_a_line_that_is_repeated_has_its_vector_once(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    lines = (data / "corpus.jsonl").read_text().splitlines(keepends=True)
    (data / "corpus.jsonl").write_text("".join([*lines[:30], lines[3], *lines[30:]]))
    with pytest.warns(UserWarning, match="say the same"):
        corpus = load_corpus(data)
    run()
    found = np.concatenate(list(Parts(tmp_path / "vectors", corpus.ids)))
    np.testing.assert_allclose(found, single(model, corpus, tmp_path), atol=1e-6)


def test_half_precision_is_that_of_each_number(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    corpus = load_corpus(data)
    whole = of_corpus(data / "corpus.jsonl")
    run(whole, half=True)
    found = np.concatenate(list(Parts(tmp_path / "vectors", corpus.ids)))
    expected = single(model, corpus, tmp_path).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found, expected, strict=True)
    assert run(whole, half=True).encoded == 0
    with pytest.raises(UserError, match=r"holds vectors of .* in float16 .*; choose another folder, or pass --over"):
        run()
    assert run(overwrite=True).encoded == 50


def test_what_half_precision_does_not_hold_is_refused(tmp_path: Path) -> None:
    part = vector_files.Part({"fingerprint": "f"}, "t", "float16")
    with pytest.raises(UserError, match="half precision does not hold these vectors, of up to 70000"):
        vector_files.write(tmp_path / "part-000000.parquet", part, ["a"], np.array([[1.0, 70000.0]], np.float32))
    assert not list(tmp_path.iterdir())


def test_an_id_that_is_no_text_is_refused(tmp_path: Path) -> None:
    part = vector_files.Part({"fingerprint": "f"}, "t", "float32")
    with pytest.raises(UserError, match=r"the id 'caf\\udce9.png' is not Unicode, .*; rename it"):
        vector_files.write(tmp_path / "part-000000.parquet", part, ["a", "caf\udce9.png"], np.ones((2, 2), np.float32))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_document_prompt_is_in_the_vectors(
    one_worker: None, model: Path, data: Path, tmp_path: Path, strength: float
) -> None:
    made = BiEncoder.load(model, device="cpu").attach("document", kind="input", length=3)
    made.strength = strength
    made.save(tmp_path / "prompts")
    prompted = BiEncoder.load(model, tmp_path / "prompts", device="cpu")
    corpus, shards = load_corpus(data), of_corpus(data / "corpus.jsonl")
    encode_shards(prompted, portable(model, tmp_path / "prompts"), shards, tmp_path / "vectors")
    found = np.concatenate(list(Parts(tmp_path / "vectors", corpus.ids)))
    np.testing.assert_array_equal(found, prompted.encode_corpus(corpus, tmp_path / "cache").array(), strict=True)
    frozen = BiEncoder.load(model, device="cpu")
    with pytest.raises(UserError, match="a worker has another model"):
        encode_shards(frozen, portable(model, tmp_path / "prompts"), shards, tmp_path / "other")


def test_a_folder_of_other_things_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other things \(thesis.txt\); choose another folder"):
        run()


def test_a_folder_that_the_workers_do_not_share_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_files, "write", lambda *_: None)  # as on a disk of their own
    with pytest.raises(UserError, match=r"3 of 3 shards are not in .*; name a folder that all machines share"):
        run()


def test_what_a_worker_cannot_read_is_one_line(run: Run, data: Path) -> None:
    shards = of_corpus(data / "corpus.jsonl", rows=20)
    (data / "corpus.jsonl").unlink()
    with pytest.raises(UserError, match=r"cannot be read on a worker: .*; all machines must see it"):
        run(shards)


# --- the command ---------------------------------------------------------------------------------------------------


def test_index_by_workers_is_the_index_of_one_process(
    one_worker: None, command: Command, model: Path, tmp_path: Path
) -> None:
    data = write_corpus(tmp_path / "data", 2100)
    alone, many = tmp_path / "alone", tmp_path / "many"
    options = ["--model", model, "--device", "cpu"]
    assert command("index", data, "--out", alone, *options).code == 0
    done = command("index", data, "--out", many, "--engine", "ray", *options)
    assert f"2,100 encoded now by 1 workers, 0 of 2 shards were there, in {many}.vectors" in done.out
    for name in ("index.faiss", "ids.json", "documents.jsonl", "manifest.json"):
        assert (many / name).read_bytes() == (alone / name).read_bytes()
    again = command("index", data, "--out", many, "--engine", "ray", "--overwrite", *options)
    assert "0 encoded now by 1 workers, 2 of 2 shards were there" in again.out
    verified = command("verify", f"{many}.vectors")
    assert "vectors in shards, sound" in verified.out


def test_vectors_alone_are_adopted(one_worker: None, command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    options = ["--model", model, "--device", "cpu"]
    done = command("index", data, "--engine", "ray", "--vectors", tmp_path / "v", "--half", *options)
    assert "50 documents in half precision; 50 encoded now by 1 workers" in done.out
    assert f"next: retrieval-prompts adopt {tmp_path / 'v'} --texts {data} --out INDEX" in done.out
    file = command("index", data / "corpus.jsonl", "--engine", "ray", "--vectors", tmp_path / "v", "--half", *options)
    assert (
        f"next: retrieval-prompts corpus {data / 'corpus.jsonl'} --out DATA\nnext: retrieval-prompts adopt" in file.out
    )
    assert "; 0 encoded now" in file.out
    done = command("adopt", tmp_path / "v", "--texts", data, "--out", tmp_path / "index", "--model", model)
    assert "50 documents, Flat" in done.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "spark", "--out", "INDEX"], "--engine must be ray, or left out, got 'spark'"),
        (["--workers", "2", "--out", "INDEX"], "--workers belongs to --engine ray"),
        (["--half", "--out", "INDEX"], "--half belongs to --engine ray"),
        (["--engine", "ray"], "pass --out, the index folder to write, or --vectors"),
        (["--engine", "ray", "--to", "qdrant:db#docs"], "pass --out, the index folder to write, or --vectors"),
        (["--engine", "ray", "--compare", "Flat", "--vectors", "V"], "leave out --compare"),
        (["--engine", "ray", "--vectors", "V", "--out", "V"], "--vectors and --out are both V; give each a folder"),
        (["--engine", "ray", "--vectors", "V", "--factory", "HNSW32"], "vectors alone have no index"),
        (["--engine", "ray", "--vectors", "V", "--chunk", "64"], "pass a folder or file, and no option on reading it"),
    ],
)
def test_options_that_do_not_go_together(
    one_worker: None,
    command: Command,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(command("index", data, *options), message)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r'needs Ray: pip install "retrieval-prompts\[ray\]"'), pool.started(pool.ANY):
        pass


# --- Ray itself ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of Ray, and of what it imports
def test_a_worker_that_is_killed_is_made_up_for(model: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    mark = tmp_path / "killed"

    def load(device: str) -> BiEncoder:
        if not mark.exists():  # the first worker to come here
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return BiEncoder.load(model, device=device)

    own = BiEncoder.load(model, device="cpu")
    wanted = pool.Wanted(workers=1, device="cpu")
    done = encode_shards(own, load, of_corpus(data / "corpus.jsonl", rows=10), tmp_path / "vectors", wanted=wanted)
    assert mark.exists()
    assert (done.documents, done.encoded, done.made, done.workers) == (50, 50, 5, 1)
    corpus = load_corpus(data)
    found = np.concatenate(list(Parts(tmp_path / "vectors", corpus.ids)))
    np.testing.assert_allclose(found, single(model, corpus, tmp_path), atol=1e-6)


def test_a_cluster_that_is_not_there_is_one_line() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    wanted = pool.Wanted(address="127.0.0.1:1")
    with pytest.raises(UserError, match=r"nobody answers at 127.0.0.1:1 \(.*refused\)"), pool.started(wanted):
        pass
