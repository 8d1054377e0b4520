"""Pictures in shards, encoded by workers: the vectors of one process to the last bit, kept by shard, made once."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from command_line import Command, command_line
from image_commands import refused
from one_worker import in_this_process
from toy_pictures import image_folder, write

from multimodal.cli import app as cli
from multimodal.data.pictures import Picture, load_pictures
from multimodal.interop import picture_shards
from multimodal.interop.picture_shards import encode_pictures, of_parts, portable, write_index
from multimodal.towers.clip import Clip
from multimodal.vectors.features import image_features
from multimodal.vectors.image_index import ImageIndex
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.interop.scale import pool
from retrieval_prompts.interop.scale.parts_run import Encoded


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line("multimodal-prompts", cli.main, monkeypatch, capsys)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "photos", {"a": 30, "b": 20})


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)


def run(clip: Clip, photos: Path, size: int = 16) -> Encoded:
    return encode_pictures(clip, load_pictures(photos), photos.with_name("vectors"), load=lambda _: clip, size=size)


def vectors(photos: Path) -> np.ndarray:
    return np.concatenate(list(of_parts(photos.with_name("vectors"), photos).parts))


def test_vectors_are_those_of_one_process(one_worker: None, tiny_model: Clip, photos: Path, tmp_path: Path) -> None:
    first, again = run(tiny_model, photos), run(tiny_model, photos)
    assert (first.documents, first.encoded, first.shards, first.made) == (50, 50, 4, 4)
    assert (again.documents, again.encoded, again.shards, again.made) == (50, 0, 4, 0)
    features = image_features(tiny_model, load_pictures(photos), cache=tmp_path / "cache")
    np.testing.assert_array_equal(vectors(photos), np.concatenate(list(features.blocks())), strict=True)
    np.testing.assert_array_equal(of_parts(photos.with_name("vectors"), photos).digests, features.digests, strict=True)


def test_shards_that_are_damaged_or_of_other_pictures_are_made_again(
    one_worker: None, tiny_model: Clip, photos: Path
) -> None:
    run(tiny_model, photos)
    before = vectors(photos)
    part = photos.with_name("vectors") / "part-000001.parquet"
    digest = of_parts(part.parent, photos).digests[16].tobytes().hex().encode()
    for broken in (part.read_bytes()[:-9], part.read_bytes().replace(digest, digest[::-1])):
        part.write_bytes(broken)
        assert (run(tiny_model, photos).encoded, vectors(photos).tobytes()) == (16, before.tobytes())
    write(photos / "b" / "9.png", 0)  # the last one, now as a/0.png
    assert run(tiny_model, photos).encoded == 2
    assert vectors(photos)[-1].tobytes() == before[0].tobytes()


def test_what_cannot_be_read_is_left_out_and_named(one_worker: None, tiny_model: Clip, photos: Path) -> None:
    (photos / "a" / "3.png").write_bytes(b"no")
    for number in range(20):
        (photos / "b" / f"{number}.png").write_bytes(b"nor this")
    for encoded in (29, 0):
        with pytest.warns(DataWarning, match=r"21 of 50 pictures are skipped: .*3\.png cannot be read"):
            done = run(tiny_model, photos, size=15)
        assert (done.documents, done.empty, done.encoded) == (29, 21, encoded)
    assert [each.id for each in of_parts(photos.with_name("vectors"), photos).documents][:2] == ["a/0.png", "a/1.png"]
    shutil.rmtree(photos / "a")
    with pytest.raises(UserError, match="no picture can be read: "):
        run(tiny_model, photos)


def test_what_workers_cannot_reach_is_refused(one_worker: None, tiny_model: Clip, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="workers read files, and inside is none; save the pictures in a folder"):
        encode_pictures(tiny_model, [Picture("inside", lambda: b"")], tmp_path / "vectors")


def test_an_index_by_workers_is_the_index_of_one_process(
    one_worker: None, command: Command, clip_folder: Path, photos: Path, tmp_path: Path
) -> None:
    options = [photos, "--model", clip_folder, "--device", "cpu"]
    alone, many = tmp_path / "alone", tmp_path / "many"
    assert command("index", *options, "--out", alone).code == 0
    done = command("index", *options, "--out", many, "--engine", "ray")
    assert (
        f"{many}: 50 images, Flat; 50 encoded now by 1 workers, 0 of 1 shards were there, in {many}.vectors" in done.out
    )
    for name in ("index.faiss", "ids.json", "documents.jsonl", "pictures/digests.npy"):
        assert (many / name).read_bytes() == (alone / name).read_bytes()
    done = command("index", *options, "--out", many, "--engine", "ray", "--factory", "IVF1,SQ8", "--overwrite")
    assert "0 encoded now by 1 workers, 1 of 1 shards were there" in done.out
    assert "; 1 shards merged on disk, 1 made now" in done.out
    assert len(ImageIndex.open(many)) == 50
    done = command("verify", many, f"{many}.vectors")
    assert "index, sound" in done.out
    assert "vectors in shards, sound" in done.out
    refused(command("index", *options, "--out", many, "--workers", "2"), "--workers belongs to --engine ray")
    cached = command("index", *options, "--out", many, "--engine", "ray", "--cache", tmp_path / "c", "--overwrite")
    refused(cached, "--cache is of images that this process encodes")


@pytest.mark.filterwarnings("ignore")  # of Ray, and of what it imports
def test_a_worker_that_is_killed_is_made_up_for(tiny_model: Clip, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    mark, load = tmp_path / "killed", portable(tiny_model)

    def dying(device: str) -> Clip:
        if not mark.exists():  # the first worker to come here
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return load(device)

    wanted = pool.Wanted(workers=1, device="cpu")
    done = encode_pictures(tiny_model, load_pictures(photos), tmp_path / "vectors", load=dying, size=32, wanted=wanted)
    assert mark.exists()
    assert (done.documents, done.encoded, done.made, done.workers) == (50, 50, 2, 1)
    features = image_features(tiny_model, load_pictures(photos), cache=tmp_path / "cache")
    np.testing.assert_array_equal(vectors(photos), np.concatenate(list(features.blocks())), strict=True)
    write_index(tiny_model, of_parts(tmp_path / "vectors", photos), tmp_path / "index")
    assert len(ImageIndex.open(tmp_path / "index")) == 50
    assert picture_shards.SHARD % 16 == 0
