"""Index folders that were changed, cut, exchanged or made by others are refused by name; nothing is lost."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_indexes import DOCUMENTS, IDS, VECTORS, build, names, random_vectors

from retrieval_prompts.data.corpus import Document
from retrieval_prompts.data.id_list import Ids
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import of_blocks, sealed
from retrieval_prompts.vectors import index_files, libraries
from retrieval_prompts.vectors.index import Index


def edit_manifest(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        fields = json.loads(path.read_text())
        del fields["sha256"]  # as in an older index: what is garbled is found by itself too
        path.write_text(json.dumps({**fields, **changes}))

    return edit


def hostile(name: str, content: bytes) -> Callable[[Path], None]:
    """Exchange a file, with checksums that fit."""

    def exchange(folder: Path) -> None:
        (folder / name).write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(json.dumps(sealed(manifest | index_files.described(folder))))

    return exchange


def array(content: bytes, kind: str, shape: str = "(1,)") -> bytes:
    """A file in numpy's format."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def exchange_ids(folder: Path) -> None:
    (folder / "ids.json").write_text(json.dumps(["d1", "d0", "d2", "d3"]))


def other_vectors(folder: Path) -> None:
    """A sound FAISS file of the right size, with one vector of 8 numbers where there were 4 of 2."""
    import faiss

    index = faiss.IndexFlatIP(8)
    index.add(np.ones((1, 8), dtype=np.float32))
    faiss.write_index(index, str(folder / "index.faiss"))


def flip(path: Path, at: bytes | None = None) -> None:
    """One bit, of the last byte or where `at` begins."""
    content = bytearray(path.read_bytes())
    content[-1 if at is None else content.index(at)] ^= 1
    path.write_bytes(bytes(content))


def older(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    """Damage of an index that has no checksums of its vectors."""

    def both(folder: Path) -> None:
        edit_manifest(blocks={})(folder)
        damage(folder)

    return both


def linked(folder: Path) -> None:
    (folder / "index.faiss").rename(folder.parent / "elsewhere")
    (folder / "index.faiss").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "is not an index folder: it has no manifest.json"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is not valid JSON"),
        (lambda f: (f / "manifest.json").write_text("[]"), "its manifest.json has no format number"),
        (edit_manifest(format=2), "has index format 2, this version reads 1; index again"),
        (
            edit_manifest(count=3),
            r"is damaged, index again: \(4, 2\) vectors and 4 ids where the manifest says \(3, 2\)",
        ),
        (edit_manifest(dimension=8), "is damaged, index again"),
        (edit_manifest(encoder={}), "is damaged, index again: manifest.json has no 'fingerprint'"),
        (edit_manifest(encoder={"fingerprint": ""}), "is damaged, index again: no fingerprint of the encoder"),
        (edit_manifest(files=None), "is damaged, index again"),
        (lambda f: (f / "index.faiss").unlink(), "is damaged, index again: .*No such file.*index.faiss"),
        (lambda f: (f / "documents.jsonl").unlink(), "is damaged, index again: .*documents.jsonl"),
        (lambda f: (f / "offsets.npy").write_bytes(b""), "offsets.npy has 0 bytes instead of"),
        (lambda f: (f / "offsets.npy").write_bytes(bytes(160)), "is damaged, index again: "),
        (
            lambda f: (f / "index.faiss").write_bytes((f / "index.faiss").read_bytes()[:-1]),
            "index.faiss has .* instead of",
        ),
        (
            lambda f: (f / "index.faiss").write_bytes(bytes((f / "index.faiss").stat().st_size)),
            "is damaged, index again",
        ),
        (other_vectors, r"is damaged, index again: index\.faiss was changed"),
        (older(other_vectors), r"\(1, 8\) vectors and 4 ids where the manifest says \(4, 2\)"),
        (lambda f: flip(f / "manifest.json", b"toy"), r"manifest\.json was changed after it was written \(its sha256"),
        (lambda f: flip(f / "offsets.npy"), r"is damaged, index again: offsets\.npy was changed"),
        (lambda f: flip(f / "lines.npy"), r"is damaged, index again: lines\.npy was changed"),
        (lambda f: flip(f / "index.faiss"), r"is damaged, index again: index\.faiss was changed"),
        (edit_manifest(files={"../../etc/passwd": 1}), "names the file '../../etc/passwd', which lies outside it"),
        (edit_manifest(files={"/etc/passwd": 1}), "names the file '/etc/passwd', which lies outside it"),
        (linked, r"index\.faiss is a link to .*elsewhere, outside its folder; it is not read"),
        (exchange_ids, "ids.json was changed"),
        (
            hostile("ids.json", b'["d0", "d1", "d2", ["d3"]]'),
            r"is damaged, index again: ids\.json is not a list of ids",
        ),
        (hostile("ids.json", b'["d0", "d1", "d2","d3 "]'), r"ids\.json is not a list of ids"),
        (hostile("ids.npy", array(bytes(96), "<u8", "(3, 4)")), r"ids\.json is not a list of ids"),
        (hostile("ids.npy", array(bytes(64), "<u8", "(2, 4)")), r"the table of ids has 2 rows"),
        (hostile("ids.npy", array(bytes(24), "<u8", "(3, 1)")), r"is damaged, index again: "),
        (hostile("ids.npy", array(b"\xff" * 96, "<u8", "(3, 4)")), r"ids\.json is not a list of ids"),
        (hostile("offsets.npy", b"PK\3\4"), r"is damaged, index again: offsets\.npy is not an array"),
        (hostile("offsets.npy", array(bytes(8), "<f8")), r"offsets\.npy is of type float64 and 1 dimensions"),
        (
            hostile("offsets.npy", array(b"", "<i8", "(1 << 40,)")),
            r"is damaged, index again: offsets\.npy is not an array",
        ),
    ],
)
@pytest.mark.parametrize("mmap", [True, False])
def test_a_damaged_index_is_refused_by_name(
    tmp_path: Path, damage: Callable[[Path], Any], message: str, mmap: bool
) -> None:
    folder = tmp_path / "index"
    build().save(folder)
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        Index.open(folder, mmap=mmap)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_releases_of_libraries_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = dict.fromkeys((*libraries.LIBRARIES, "retrieval-prompts"), "2.14.1")
    monkeypatch.setattr(libraries, "version", lambda name: now[name])
    index = build()
    index.check_encoder(index.manifest["encoder"])
    now |= {"torch": "2.14.2+cpu", "Pillow": "2.14.0"}  # repairs
    index.check_encoder(index.manifest["encoder"])
    now |= {"torch": "2.15.0", "tokenizers": "3.0"}
    said = r"this index was made with torch 2\.14\.1 \(2\.15\.0 here\), tokenizers 2\.14\.1 \(3\.0 here\); scores may"
    with pytest.warns(UserWarning, match=said):
        index.check_encoder(index.manifest["encoder"])
    garbled: list[Any] = [None, [], {"torch": 7, "gone": "1"}]
    for noted in garbled:  # of an earlier version, or garbled
        index.manifest["libraries"] = noted
        index.check_encoder(index.manifest["encoder"])


def test_a_file_of_vectors_that_is_cut_does_not_end_the_process(tmp_path: Path) -> None:
    for factory in ("Flat", "SQ8", "HNSW4"):
        build(factory=factory).save(tmp_path / factory)
        whole = (tmp_path / factory / "index.faiss").read_bytes()
        for end in (40, 60, len(whole) - 9):
            hostile("index.faiss", whole[:end])(tmp_path / factory)
            with pytest.raises(UserError, match="is damaged, index again"):
                Index.open(tmp_path / factory)


def test_exchanged_texts_are_noticed_when_they_are_read(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    path = tmp_path / "index" / "documents.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"_id": "d1"', b'"_id": "dX"'))
    opened = Index.open(tmp_path / "index")
    assert opened.document("d0") == DOCUMENTS[0]
    with pytest.raises(UserError, match=r"documents\.jsonl changed after it was opened.*found 'dX' where 'd1' was"):
        opened.document("d1")


def test_an_index_that_another_run_replaces_stays_as_it_was_opened(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    others = [Document(each.id, "another title", each.text) for each in DOCUMENTS]
    build(documents=others).save(tmp_path / "index", overwrite=True)
    assert [opened.document(each.id) for each in DOCUMENTS] == list(DOCUMENTS)
    assert Index.open(tmp_path / "index").document("d0").title == "another title"
    again = pickle.loads(pickle.dumps(opened.documents))  # reads the file that has the name now
    with pytest.raises(UserError, match="changed after it was opened"):
        again[0]


def test_a_bit_of_a_text_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    flip(tmp_path / "index" / "documents.jsonl", b"title d1")
    opened = Index.open(tmp_path / "index")
    assert opened.document("d0") == DOCUMENTS[0]
    with pytest.raises(UserError, match=r"\(the line of 'd1' is not the one that was written\)"):
        opened.document("d1")
    with pytest.raises(UserError, match=r"index in .* is damaged, index again: documents\.jsonl was changed"):
        index_files.verify(tmp_path / "index")


TYPES = ("Flat", "SQfp16", "SQ8", "HNSW8", "IVF4,Flat", "PCA8,Flat", "PQ4x4")


@pytest.mark.parametrize("factory", TYPES)
def test_every_single_bit_of_an_index_is_noticed(factory: str, tmp_path: Path) -> None:
    index = build(random_vectors(640), None, names(640), factory=factory)
    index.save(tmp_path / "index")
    path = tmp_path / "index" / "index.faiss"
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for bit in (*range(0, 800, 11), *random.integers(0, 8 * len(whole), 80)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(UserError, match=r"index again: index\.faiss was changed$"):
            Index.open(tmp_path / "index")
    path.write_bytes(whole)
    assert index_files.verify(tmp_path / "index")
    assert len(Index.open(tmp_path / "index")) == 640


def test_the_vectors_of_another_corpus_of_the_same_size_are_refused(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    build(VECTORS[::-1]).save(tmp_path / "other")
    (tmp_path / "index" / "index.faiss").write_bytes((tmp_path / "other" / "index.faiss").read_bytes())
    with pytest.raises(UserError, match=r"index\.faiss was changed"):
        Index.open(tmp_path / "index")


def test_of_a_large_file_the_ends_are_read_at_opening_and_all_of_it_by_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"block": 64}
    monkeypatch.setattr(index_files, "BOUND", 1000)
    monkeypatch.setattr(index_files, "BLOCK", 64)
    monkeypatch.setattr(index_files, "of_blocks", lambda path, only=None: of_blocks(path, only, **small))
    build(random_vectors(50), None, names(50)).save(tmp_path / "index")
    path = tmp_path / "index" / "index.faiss"
    whole = path.read_bytes()
    assert len(whole) > 1000
    for at, noticed in ((3, True), (len(whole) // 2, False), (len(whole) - 3, True)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        if noticed:
            with pytest.raises(UserError, match=r"index\.faiss was changed, first in block"):
                Index.open(tmp_path / "index")
        else:
            Index.open(tmp_path / "index")
        with pytest.raises(UserError, match=r"index\.faiss was changed, first in block"):
            index_files.verify(tmp_path / "index")


def test_of_a_large_file_beside_the_index_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "words.index.npy").write_bytes(bytes(range(250)))

    small = {"block": 64}
    monkeypatch.setattr(index_files, "BOUND", 240)
    monkeypatch.setattr(index_files, "BLOCK", 64)
    monkeypatch.setattr(index_files, "of_blocks", lambda path, only=None: of_blocks(path, only, **small))
    build().save(tmp_path / "index", beside={"bm25": write})
    index, path = Index.open(tmp_path / "index"), tmp_path / "index" / "bm25" / "words.index.npy"
    assert index.has_beside(tmp_path / "index", "bm25") and index_files.verify(tmp_path / "index")
    for at, noticed in ((0, True), (125, False), (249, True)):
        flip(path, bytes([at]))
        if noticed:
            with pytest.raises(UserError, match=r"words\.index\.npy was changed"):
                index.has_beside(tmp_path / "index", "bm25")
        else:
            assert index.has_beside(tmp_path / "index", "bm25")
        with pytest.raises(UserError, match=r"words\.index\.npy was changed"):
            index_files.verify(tmp_path / "index")
        path.write_bytes(bytes(range(250)))


def test_an_older_index_has_its_ids_in_json_alone(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    (tmp_path / "index" / "ids.npy").unlink()
    path = tmp_path / "index" / "manifest.json"
    fields = json.loads(path.read_text())
    del fields["files"]["ids.npy"], fields["blocks"]["ids.npy"], fields["blocks"]["ids.json"]
    path.unlink()
    path.write_text(json.dumps(sealed(fields)))
    opened = Index.open(tmp_path / "index")
    assert opened.ids == IDS
    assert opened.document("d1") == DOCUMENTS[1]
    assert index_files.verify(tmp_path / "index")
    flip(tmp_path / "index" / "ids.json", b"d1")
    with pytest.raises(UserError, match=r"ids\.json was changed"):
        Index.open(tmp_path / "index")


def test_the_ids_of_a_large_index_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval_prompts.data.id_list.HELD", 0)
    build().save(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    assert isinstance(opened.ids, Ids)
    assert not opened.ids.content.flags.owndata
    assert [opened.document(id) for id in IDS] == DOCUMENTS
    assert opened.search(VECTORS, 4)[1] == build().search(VECTORS, 4)[1]
    with pytest.raises(UserError, match="the index has no document 'x'"):
        opened.document("x")
    opened.save(tmp_path / "copy")
    for path in (tmp_path / "copy").iterdir():
        assert path.read_bytes() == (tmp_path / "index" / path.name).read_bytes()


def test_an_index_without_checksums_is_read_and_nobody_can_tell(tmp_path: Path) -> None:
    build().save(tmp_path / "index")
    edit_manifest(blocks={})(tmp_path / "index")
    assert Index.open(tmp_path / "index").document("d1") == DOCUMENTS[1]
    assert not index_files.verify(tmp_path / "index")


def test_an_index_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "index.faiss")

    build().save(tmp_path / "index")
    monkeypatch.setattr("retrieval_prompts.vectors.faiss_foreign.opened", forbidden)  # root may read anything
    with pytest.raises(UserError, match=r"^the index in .*index cannot be read: \[Errno 13\] Permission denied: 'in"):
        Index.open(tmp_path / "index")


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    def full(*_: object) -> None:
        raise RuntimeError("Error in virtual size_t FileIOWriter at /x/io.cpp:42: Error: write error: No space left")

    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(UserError, match=r"^the index cannot be written to .*index: write error: No space left$"):
        build().save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []
