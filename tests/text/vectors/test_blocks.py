"""Blocks of vectors on disk: found again, made again, never stale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toys import LONG, TEXTS

from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.files import default_cache
from retrieval_prompts.towers.text import Floats, TextTower
from retrieval_prompts.vectors import blocks as stored
from retrieval_prompts.vectors.blocks import VectorBlocks, combined, encode_blocks, sound
from retrieval_prompts.vectors.encode import encode_texts

ToyTower = Callable[..., TextTower]
MANY = [f"{text} {number}" for number in range(3) for text in (*TEXTS, LONG)]


@pytest.fixture
def tower_of_blocks(toy_tower: ToyTower, monkeypatch: pytest.MonkeyPatch) -> TextTower:
    """A toy BERT, and blocks of 4 texts."""
    monkeypatch.setattr(stored, "BLOCK", 4)
    return toy_tower("bert")


class Texts(list[str]):
    """Documents in memory."""

    def contents(self, start: int, stop: int) -> list[str]:
        return self[start:stop]


def blocks_of(tower: TextTower, texts: list[str], cache: Path | None, encoder: str = "e" * 64) -> VectorBlocks:
    return encode_blocks(tower, Texts(texts), encoder=encoder, cache=cache)


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


DOCUMENTS = [f"the fox {number}" for number in range(10)]


def test_the_second_time_nothing_is_encoded(tower_of_blocks: TextTower, tmp_path: Path) -> None:
    expected = encode_texts(tower_of_blocks, DOCUMENTS, "document")
    first, again = (blocks_of(tower_of_blocks, DOCUMENTS, tmp_path) for _ in range(2))
    assert (first.encoded, again.encoded) == (10, 0)
    assert [len(block) for block in again] == [4, 4, 2]
    assert np.array_equal(again.array(), first.array())
    assert np.abs(again.array() - expected).max() < 1e-6
    assert all(isinstance(block, np.memmap) for block in again), "on disk, not in memory"
    assert len(files(tmp_path)) == 3


def test_a_changed_text_encodes_its_block_alone(tower_of_blocks: TextTower, tmp_path: Path) -> None:
    blocks_of(tower_of_blocks, DOCUMENTS, tmp_path)
    changed = [*DOCUMENTS[:5], "the dog", *DOCUMENTS[6:]]
    blocks = blocks_of(tower_of_blocks, changed, tmp_path)
    assert blocks.encoded == 4
    assert np.abs(blocks.array() - encode_texts(tower_of_blocks, changed, "document")).max() < 1e-6
    assert blocks_of(tower_of_blocks, [*DOCUMENTS, "the dog"], tmp_path).encoded == 3, "the last block grew"
    assert blocks_of(tower_of_blocks, DOCUMENTS, tmp_path).encoded == 0, "both versions are kept"


def test_texts_are_not_confused(tower_of_blocks: TextTower, tmp_path: Path) -> None:
    blocks_of(tower_of_blocks, ["ab", "c"], tmp_path)
    assert blocks_of(tower_of_blocks, ["a", "bc"], tmp_path).encoded == 2
    assert blocks_of(tower_of_blocks, ["c", "ab"], tmp_path).encoded == 2


def test_precisions_are_near_and_kept_apart(tower_of_blocks: TextTower, tmp_path: Path) -> None:
    texts = Texts(TEXTS)
    long = "2 of 5 documents that were encoded are cut at the 32 tokens that model .* reads; chunks are read whole"
    with pytest.warns(DataWarning, match=long):
        exact = blocks_of(tower_of_blocks, texts, tmp_path)
    with pytest.warns(DataWarning, match=long):
        half = encode_blocks(tower_of_blocks, texts, encoder="e" * 64, cache=tmp_path, precision="bfloat16")
    assert half.encoded == len(texts), "vectors of the other precision are not taken for these"
    assert half.array().dtype == np.float32
    lengths = np.linalg.norm(exact.array(), axis=1) * np.linalg.norm(half.array(), axis=1)
    assert ((exact.array() * half.array()).sum(axis=1) / lengths).min() > 0.999
    assert not np.array_equal(exact.array(), half.array())
    assert np.array_equal(np.asarray(exact), exact.array())
    assert np.asarray(exact, dtype=np.float64).dtype == np.float64
    assert blocks_of(tower_of_blocks, texts, tmp_path).encoded == 0
    with pytest.raises(UserError, match="--precision must be float32 or bfloat16, got 'float16'"):
        encode_texts(tower_of_blocks, texts, "document", precision="float16")


def test_another_encoder_finds_nothing(tower_of_blocks: TextTower, tmp_path: Path) -> None:
    blocks_of(tower_of_blocks, DOCUMENTS, tmp_path, encoder="e" * 64)
    # The folder's name is only the beginning of the encoder's
    assert blocks_of(tower_of_blocks, DOCUMENTS, tmp_path, encoder="e" * 63 + "f").encoded == 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5],
        lambda content: content[:20],
        lambda content: b"",
        lambda content: b"garbage" * 100,
        lambda content: content.replace(b"'<f4'", b"'<f8'"),
        lambda content: content.replace(b"(4, 32)", b"(8, 16)"),
        lambda content: content[:-32],
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda content: bytes(len(content)),
        lambda content: content[:-1] + bytes([content[-1] ^ 128]),
    ],
    ids=[
        *("cut", "cut in the header", "empty", "garbage", "other numbers", "another shape"),
        *("without a digest", "a flipped bit", "zeros", "a bit of the digest"),
    ],
)
def test_a_damaged_block_is_encoded_again(
    damage: Callable[[bytes], bytes], tower_of_blocks: TextTower, tmp_path: Path
) -> None:
    expected = blocks_of(tower_of_blocks, DOCUMENTS[:4], tmp_path).array()
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    assert damage(whole) != whole
    file.write_bytes(damage(whole))
    blocks = blocks_of(tower_of_blocks, DOCUMENTS[:4], tmp_path)
    assert blocks.encoded == 4
    assert np.array_equal(blocks.array(), expected)
    assert file.read_bytes() == whole


def test_blocks_that_were_exchanged_or_deleted_are_encoded_again(tower_of_blocks: TextTower, tmp_path: Path) -> None:
    expected = blocks_of(tower_of_blocks, DOCUMENTS[:8], tmp_path).array()
    one, two = files(tmp_path)
    contents = [one.read_bytes(), two.read_bytes()]
    one.write_bytes(contents[1])
    blocks = blocks_of(tower_of_blocks, DOCUMENTS[:8], tmp_path)
    assert (blocks.encoded, [one.read_bytes(), two.read_bytes()]) == (4, contents)
    assert np.array_equal(blocks.array(), expected)
    two.unlink()
    assert blocks_of(tower_of_blocks, DOCUMENTS[:8], tmp_path).encoded == 4
    assert sound(one) and sound(two)


def test_what_a_killed_run_left_in_the_cache_is_swept(tower_of_blocks: TextTower, tmp_path: Path) -> None:
    blocks_of(tower_of_blocks, DOCUMENTS[:4], tmp_path)
    (file,) = files(tmp_path)
    (file.parent / f".{file.name}.new-abcdefgh").write_bytes(b"half")
    assert blocks_of(tower_of_blocks, DOCUMENTS[:4], tmp_path).encoded == 0
    assert files(tmp_path) == [file]


def test_an_interrupted_run_goes_on_where_it_stopped(tower_of_blocks: TextTower, tmp_path: Path) -> None:
    class Interrupted(Texts):
        def contents(self, start: int, stop: int) -> list[str]:
            if start == 8:
                raise KeyboardInterrupt
            return super().contents(start, stop)

    with pytest.raises(KeyboardInterrupt):
        encode_blocks(tower_of_blocks, Interrupted(DOCUMENTS), encoder="e" * 64, cache=tmp_path)
    assert len(files(tmp_path)) == 2
    assert blocks_of(tower_of_blocks, DOCUMENTS, tmp_path).encoded == 2


def test_a_crash_while_writing_leaves_no_file(
    tower_of_blocks: TextTower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OSError, match="No space left"):
            blocks_of(tower_of_blocks, DOCUMENTS, tmp_path)
    assert files(tmp_path) == []
    assert blocks_of(tower_of_blocks, DOCUMENTS, tmp_path).encoded == 10


def test_without_a_cache_blocks_stay_in_memory(tower_of_blocks: TextTower) -> None:
    blocks = blocks_of(tower_of_blocks, DOCUMENTS, None)
    assert blocks.encoded == 10
    assert np.abs(blocks.array() - encode_texts(tower_of_blocks, DOCUMENTS, "document")).max() < 1e-6


def blocks(*parts: list[float]) -> VectorBlocks:
    """Blocks of vectors of one number."""
    arrays: list[Floats] = [np.array(part, dtype=np.float32)[:, None] for part in parts]
    return VectorBlocks(arrays, 1, 0)


def test_rows_are_read_from_their_blocks() -> None:
    made = blocks([0, 1, 2], [3], [4, 5])
    assert (len(made), made.nbytes) == (6, 24)
    for positions in ([], [0], [5, 0, 3, 3, 2], [2, 3, 4], [0, 1, 2, 3, 4, 5]):
        rows = made.rows(np.array(positions, dtype=np.int64))
        assert rows.shape == (len(positions), 1)
        assert rows[:, 0].tolist() == positions


def test_array_map_and_iteration() -> None:
    made = blocks([0, 1, 2], [3])
    assert made.array()[:, 0].tolist() == [0, 1, 2, 3]
    doubled = VectorBlocks(made.blocks, made.dimension, made.encoded, lambda block: block * 2)
    assert doubled.array()[:, 0].tolist() == [0, 2, 4, 6] and doubled.rows(np.array([3, 1]))[:, 0].tolist() == [6, 2]
    assert [block[:, 0].tolist() for block in doubled] == [[2 * x for x in block[:, 0].tolist()] for block in made]
    assert [block[:, 0].tolist() for block in made] == [[0, 1, 2], [3]]
    empty = VectorBlocks([], 5, 0)
    assert empty.array().shape == (0, 5)
    assert len(empty) == 0


def test_no_more_files_are_open_than_a_process_may_have(
    tower_of_blocks: TextTower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "OPEN", 1)
    expected = encode_texts(tower_of_blocks, DOCUMENTS, "document")
    for _ in range(2):
        made = blocks_of(tower_of_blocks, DOCUMENTS, tmp_path)
        assert [isinstance(block, np.memmap) for block in made.blocks] == [True, False, False]
        assert np.abs(made.array() - expected).max() < 1e-6
        assert np.abs(made.rows(np.array([9, 0, 9])) - expected[[9, 0, 9]]).max() < 1e-6
    for path in files(tmp_path):
        path.unlink()
    with pytest.raises(UserError, match=r"\.npy changed while it was used \(.*No such file.*\); run it again$"):
        made.array()


def test_two_corpora_are_combined_as_they_are_read() -> None:
    one, other = blocks([0, 1, 2], [3]), blocks([10, 20, 30], [40])
    one.transform = lambda block: block * 0
    made = combined(one, other, lambda a, b: a + b)
    assert made.array()[:, 0].tolist() == [10, 21, 32, 43]
    assert made.rows(np.array([3, 0]))[:, 0].tolist() == [43, 10]


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    assert default_cache() == cache
    monkeypatch.delenv("RETRIEVAL_PROMPTS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "retrieval-prompts"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "retrieval-prompts"
