"""An index whose lists were merged on disk: it finds what the plain one finds, is made once, and is checked."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from command_line import Command
from one_worker import in_this_process
from text_commands import refused

from retrieval_prompts import UserError
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.interop.scale import merged, vector_files
from retrieval_prompts.interop.scale.vector_files import Parts
from retrieval_prompts.vectors import index_files
from retrieval_prompts.vectors.index import Index
from retrieval_prompts.vectors.index_parts import on_disk

pytestmark = pytest.mark.skipif(not hasattr(on_disk._faiss(), "OnDiskInvertedLists"), reason="FAISS has none here")
COUNT, STEP, DIMENSION = 400, 50, 16
MAKER = {"fingerprint": "f", "model": "m"}
IDS = [f"d{number}" for number in range(COUNT)]
FEW = "ignore:.*should be trained on:UserWarning"


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)
    monkeypatch.setattr(merged, "VECTORS", 120)  # two parts


@pytest.fixture
def vectors() -> np.ndarray:
    found = np.random.default_rng(0).normal(size=(COUNT, DIMENSION)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def parts(vectors: np.ndarray, tmp_path: Path) -> Parts:
    """Eight parts; the third begins with a document that came before."""
    folder, counts = tmp_path / "vectors", {}
    vector_files.begin(folder, MAKER, "float32", 8, overwrite=False)
    for number, start in enumerate(range(0, COUNT, STEP)):
        rows = [*([3] if number == 2 else []), *range(start, start + STEP)]
        part = vector_files.Part(MAKER, f"t{number}", "float32")
        vector_files.write(folder / vector_files.name_of(number), part, [IDS[row] for row in rows], vectors[rows])
        counts[vector_files.name_of(number)] = len(rows)
    vector_files.finish(folder, counts)
    return Parts(folder, IDS)


def write(parts: Parts, out: Path, factory: str = "IVF8,SQ8", overwrite: bool = False, **options: Any) -> Index:
    with merged.building(parts) as writing:
        given = {"encoder": MAKER, "write": writing, "factory": factory, "overwrite": overwrite, **options}
        return Index.write(out, parts, [Document(id, "", id) for id in IDS], **given)


def made(index: Index) -> tuple[int, int]:
    return index.manifest["build"]["shards"], index.manifest["build"]["made"]


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "PCA8,IVF8,SQfp16", "IVF8,PQ4x4"])
def test_it_finds_what_the_plain_index_finds(
    parts: Parts, vectors: np.ndarray, tmp_path: Path, factory: str, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = Index.build(parts, None, IDS, encoder=MAKER, factory=factory)
    assert made(write(parts, tmp_path / "index", factory)) == (4, 4)
    assert not (parts.folder / "lists").exists()
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "index", tmp_path / "elsewhere" / "moved")
    opened = Index.open(tmp_path / "elsewhere" / "moved")
    for nprobe in (1, 3, 8):
        wanted, found = (each.search(vectors[:60] + 0.1, 10, nprobe=nprobe) for each in (plain, opened))
        np.testing.assert_array_equal(found[0], wanted[0], strict=True)
        assert found[1] == wanted[1]
    np.testing.assert_array_equal(opened.vectors_at(np.array([7, 399])), plain.vectors_at(np.array([7, 399])))
    assert index_files.verify(tmp_path / "elsewhere" / "moved")
    assert capfd.readouterr().out == ""


@pytest.mark.filterwarnings(FEW)
def test_it_is_saved_whole_where_it_goes_next(parts: Parts, vectors: np.ndarray, tmp_path: Path) -> None:
    write(parts, tmp_path / "index").save(tmp_path / "copy")
    expected = Index.open(tmp_path / "index").search(vectors[:5], 3)
    shutil.rmtree(tmp_path / "index")
    found = Index.open(tmp_path / "copy").search(vectors[:5], 3)
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]
    assert str(tmp_path).encode() not in (tmp_path / "copy" / "index.faiss").read_bytes()


@pytest.mark.filterwarnings(FEW)
def test_what_was_cut_short_goes_on(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, added = [0], on_disk.added

    def third_fails(*given: Any) -> bytes:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return added(*given)

    monkeypatch.setattr(on_disk, "added", third_fails)
    with pytest.raises(KeyboardInterrupt):
        write(parts, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    monkeypatch.setattr(on_disk, "merge", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(parts, tmp_path / "index")
    assert calls[0] == 3 + 2
    shard = parts.folder / "lists" / "lists-000001.faiss"
    shard.write_bytes(shard.read_bytes()[:-1])
    monkeypatch.undo()
    in_this_process(monkeypatch)
    monkeypatch.setattr(merged, "VECTORS", 120)
    assert made(write(parts, tmp_path / "index")) == (4, 1)
    assert made(write(parts, tmp_path / "index", overwrite=True)) == (4, 4)


@pytest.mark.filterwarnings(FEW)
def test_other_vectors_are_learned_from_anew(
    parts: Parts, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(on_disk, "merge", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(parts, tmp_path / "index")
    other = np.roll(vectors, 1, axis=1)
    part = vector_files.Part(MAKER, "t7", "float32")
    vector_files.write(parts.folder / vector_files.name_of(7), part, IDS[-STEP:], other[-STEP:])
    again = Parts(parts.folder, IDS)
    index = write(again, tmp_path / "index")
    assert made(index) == (4, 4)
    assert index.search(other[-1:], 1)[1] == [[IDS[-1]]]


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF8,PQ4x4fs"])
def test_other_types_are_made_as_before(parts: Parts, tmp_path: Path, factory: str) -> None:
    index = write(parts, tmp_path / "index", factory)
    assert "shards" not in index.manifest["build"]
    assert not (tmp_path / "index" / on_disk.LISTS).exists()
    assert len(Index.open(tmp_path / "index")) == COUNT


@pytest.mark.filterwarnings(FEW)
def test_damage_is_noticed(parts: Parts, tmp_path: Path) -> None:
    write(parts, tmp_path / "index")
    lists = tmp_path / "index" / on_disk.LISTS
    content = lists.read_bytes()
    for broken in (content[:-8], content[:99] + b"\x99" + content[100:], None):
        if broken is None:
            lists.unlink()
        else:
            lists.write_bytes(broken)
        for check in (Index.open, index_files.verify):
            with pytest.raises(UserError, match=r"index is damaged, index again: .*lists.ivf"):
                check(tmp_path / "index")


@pytest.mark.filterwarnings(FEW)
def test_lists_of_another_index_are_not_mapped(parts: Parts, vectors: np.ndarray, tmp_path: Path) -> None:
    write(parts, tmp_path / "index")
    path = tmp_path / "index" / "index.faiss"
    path.with_name(on_disk.LISTS).write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match=r"lists.ivf is not of index.faiss"):
        on_disk.opened(path)
    Index.build(vectors, None, IDS, encoder=MAKER).save(tmp_path / "flat")
    with pytest.raises(ValueError, match=r"index.faiss has no lists in a file of their own"):
        on_disk.opened(tmp_path / "flat" / "index.faiss")


@pytest.mark.filterwarnings(FEW)
def test_a_full_disk_is_one_line(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 30, 1 << 30, 0))
    with pytest.raises(UserError, match=r"has 0 MB left, and the index takes 0; make room"):
        write(parts, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_the_command(command: Command, tmp_path: Path) -> None:
    model, data = tiny.write_model(tmp_path / "model"), tiny.write_data(tmp_path / "data")
    options = [data, "--model", model, "--device", "cpu", "--factory", "IVF2,Flat"]
    assert command("index", *options, "--out", tmp_path / "plain").code == 0
    done = command("index", *options, "--out", tmp_path / "index", "--engine", "ray")
    assert "; 1 shards merged on disk, 1 made now" in done.out
    question = ["copper river", "--device", "cpu", "--json", "-"]
    plain, found = (command("search", tmp_path / name, *question).json for name in ("plain", "index"))
    assert found == plain
    assert "index, sound" in command("verify", tmp_path / "index").out
    (tmp_path / "index" / on_disk.LISTS).write_bytes(b"")
    refused(command("search", tmp_path / "index", "copper"), "index is damaged, index again: lists.ivf has 0 bytes")
