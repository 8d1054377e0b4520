"""Pictures to vectors, each once: what is found again, what is healed, and views that depend on nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from toy_pictures import encoded, image_folder, noise, write

from multimodal.data.images import few_shot, load_images
from multimodal.data.pictures import Picture, load_pictures
from multimodal.vectors import features, segments
from multimodal.vectors.features import Features, crop_box, image_features, pixels, view_pixels
from retrieval_prompts.errors import DataWarning, UserError

WIDTH = 8
HALF = 2**-11  # the largest relative error of a number in half precision


class ToyEncoder:
    """A random projection of 4 x 4 pixels. `seen` counts images; `fail_at`: which of them raises an interrupt."""

    dimension = WIDTH
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    image_size = (4, 6)
    device = torch.device("cpu")

    def __init__(self, fingerprint: str = "e" * 64) -> None:
        self.image_fingerprint = fingerprint
        self.seen = 0
        self.fail_at = -1
        self.weights = torch.randn(3 * 4 * 6, WIDTH, generator=torch.Generator().manual_seed(0))

    def preprocess(self, image: Image.Image) -> Tensor:
        values = np.array(image.resize((6, 4), Image.Resampling.BILINEAR), dtype=np.float32)
        return torch.from_numpy(values).permute(2, 0, 1) / 255

    def encode_images(self, pixels: Tensor) -> Tensor:
        if self.seen <= self.fail_at < self.seen + len(pixels):
            raise KeyboardInterrupt
        self.seen += len(pixels)
        return F.normalize(pixels.flatten(1) @ self.weights, dim=-1)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of 16 vectors: one batch."""
    monkeypatch.setattr(segments, "ROWS", 16)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    image_folder(tmp_path / "pictures", {"a": 20, "b": 20})
    return load_pictures(tmp_path / "pictures")


def run(clip: ToyEncoder, pictures: Sequence[Picture], cache: Path, views: int = 1) -> Features:
    return image_features(clip, pictures, views=views, cache=cache, progress=False)


def expected(clip: ToyEncoder, pictures: Sequence[Picture], view: int = 0) -> Tensor:
    return torch.cat([ToyEncoder.encode_images(ToyEncoder(), pixels(clip, one, view)[None]) for one in pictures])


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


# --- the cache ------------------------------------------------------------------------------------------------------


def test_vectors_are_those_of_the_encoder(pictures: list[Picture], tmp_path: Path) -> None:
    clip = ToyEncoder()
    found = run(clip, pictures, tmp_path / "cache", views=3)
    assert (len(found), found.views, found.dimension, found.encoded, clip.seen) == (40, 3, WIDTH, 120, 120)
    assert found.kept.tolist() == list(range(40))
    assert found.skipped == []
    for view in range(3):
        vectors = found.take(range(40), view)
        assert vectors.dtype == torch.float32
        assert (vectors.norm(dim=-1) - 1).abs().max() < 1e-6
        assert (vectors - expected(clip, pictures, view)).norm(dim=-1).max() < HALF
    mixed = found.take(torch.tensor([5, 30, 5]), np.array([2, 0, 1]))
    assert torch.equal(mixed, torch.stack([found.take([at], view)[0] for at, view in ((5, 2), (30, 0), (5, 1))]))
    assert found.take([]).shape == (0, WIDTH)
    for positions, view in (([40], 0), ([0], 3)):
        with pytest.raises(IndexError):
            found.take(positions, view)


def test_the_second_time_nothing_is_encoded(pictures: list[Picture], tmp_path: Path) -> None:
    first = run(ToyEncoder(), pictures, tmp_path / "cache")
    clip = ToyEncoder()
    again = run(clip, pictures, tmp_path / "cache")
    assert (again.encoded, clip.seen) == (0, 0)
    assert torch.equal(first.take(range(40)), again.take(range(40)))


def test_other_seeds_shots_orders_and_names_encode_nothing(tmp_path: Path) -> None:
    image_folder(tmp_path / "data", {"a": 20, "b": 20})
    train = load_images(tmp_path / "data").split("train")
    whole = run(ToyEncoder(), train.pictures, tmp_path / "cache")
    for seed, shots in ((0, 2), (1, 4)):
        chosen = few_shot(train, shots, seed)
        part = run(ToyEncoder(), train.take(chosen).pictures, tmp_path / "cache")
        assert part.encoded == 0
        assert torch.equal(part.take(range(len(part))), whole.take(chosen))
    assert run(ToyEncoder(), train.pictures[::-1], tmp_path / "cache").encoded == 0
    (tmp_path / "data" / "a").rename(tmp_path / "data" / "cat")
    assert run(ToyEncoder(), load_pictures(tmp_path / "data" / "cat"), tmp_path / "cache").encoded == 6, (
        "the test split"
    )


def test_changed_content_is_encoded(pictures: list[Picture], tmp_path: Path) -> None:
    run(ToyEncoder(), pictures, tmp_path / "cache")
    assert isinstance(pictures[7].source, Path)
    write(pictures[7].source, 1000)
    clip = ToyEncoder()
    changed = run(clip, pictures, tmp_path / "cache")
    assert changed.encoded == 1
    assert (changed.take([7]) - expected(clip, pictures[7:8])).norm() < HALF


def test_more_views_encode_only_the_new_ones(pictures: list[Picture], tmp_path: Path) -> None:
    assert run(ToyEncoder(), pictures, tmp_path / "cache", views=2).encoded == 80
    assert run(ToyEncoder(), pictures, tmp_path / "cache", views=5).encoded == 120
    assert run(ToyEncoder(), pictures, tmp_path / "cache", views=3).encoded == 0


def test_the_same_picture_under_two_names_is_encoded_once(tmp_path: Path) -> None:
    content = [encoded(noise(number)) for number in range(3)]
    pictures = [Picture(f"{number}", lambda number=number: content[number % 3]) for number in range(60)]  # type: ignore[misc]
    found = run(ToyEncoder(), pictures, tmp_path / "cache", views=2)
    assert found.encoded == 6
    assert torch.equal(found.take(range(60)), found.take(range(3)).repeat(20, 1))


def test_another_encoder_finds_nothing(pictures: list[Picture], tmp_path: Path) -> None:
    run(ToyEncoder(), pictures, tmp_path / "cache")
    assert run(ToyEncoder("f" * 64), pictures, tmp_path / "cache").encoded == 40
    # The folder's name is only the beginning of the encoder's
    assert run(ToyEncoder("e" * 63 + "f"), pictures, tmp_path / "cache").encoded == 40
    assert run(ToyEncoder(), pictures, tmp_path / "cache").encoded == 0, "and takes nothing away from the first"


def test_an_interrupted_run_goes_on_where_it_stopped(pictures: list[Picture], tmp_path: Path) -> None:
    clip = ToyEncoder()
    clip.fail_at = 35
    with pytest.raises(KeyboardInterrupt):
        run(clip, pictures, tmp_path / "cache")
    assert clip.seen == 32
    again = run(ToyEncoder(), pictures, tmp_path / "cache")
    assert again.encoded == 8
    assert (again.take(range(40)) - expected(clip, pictures)).norm(dim=-1).max() < HALF


def test_segments_are_on_disk_as_soon_as_they_are_full(pictures: list[Picture], tmp_path: Path) -> None:
    there: list[int] = []

    class Watched(ToyEncoder):
        def encode_images(self, pixels: Tensor) -> Tensor:
            there.append(len(files(tmp_path / "cache")))
            return super().encode_images(pixels)

    run(Watched(), pictures, tmp_path / "cache")
    assert there == [0, 1, 2]


def test_an_interrupt_loses_nothing_of_a_segment(
    pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "ROWS", 1024)
    clip = ToyEncoder()
    clip.fail_at = 35
    with pytest.raises(KeyboardInterrupt):
        run(clip, pictures, tmp_path / "cache")
    assert run(ToyEncoder(), pictures, tmp_path / "cache").encoded == 8


def test_a_crash_while_writing_leaves_no_file(
    pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); make room there, or"):
            run(ToyEncoder(), pictures, tmp_path / "cache")
    assert files(tmp_path / "cache") == []
    assert run(ToyEncoder(), pictures, tmp_path / "cache").encoded == 40


def test_a_cache_that_is_a_file(pictures: list[Picture], tmp_path: Path) -> None:
    write(tmp_path / "cache")
    with pytest.raises(
        UserError, match=r"cache/e{16} cannot be read \(Not a directory\); expected a folder of vectors"
    ):
        run(ToyEncoder(), pictures, tmp_path / "cache")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5],
        lambda content: content[:20],
        lambda content: b"",
        lambda content: b"garbage" * 100,
        lambda content: content[:-700] + bytes([content[-700] ^ 1]) + content[-699:],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content.replace(b'"F16"', b'"I16"'),
        lambda content: content.replace(b'"keys"', b'"kegs"'),
        lambda content: content.replace(b"[16,8]", b"[8,16]"),
        lambda content: content.replace(b"[16,33]", b"[33,16]"),
    ],
    ids=["cut", "header", "empty", "garbage", "a vector", "a key", "numbers", "names", "shape", "shape of keys"],
)
def test_a_damaged_segment_is_healed(damage: Callable[[bytes], bytes], pictures: list[Picture], tmp_path: Path) -> None:
    whole = run(ToyEncoder(), pictures, tmp_path / "cache").take(range(40))
    before = {path: path.read_bytes() for path in files(tmp_path / "cache")}
    assert len(before) == 3
    path = max(before, key=lambda path: len(before[path]))
    assert damage(before[path]) != before[path]
    path.write_bytes(damage(before[path]))
    healed = run(ToyEncoder(), pictures, tmp_path / "cache")
    assert healed.encoded == 16
    assert torch.equal(healed.take(range(40)), whole)
    assert {path: path.read_bytes() for path in files(tmp_path / "cache")} == before
    assert run(ToyEncoder(), pictures, tmp_path / "cache").encoded == 0


def test_two_runs_at_once(pictures: list[Picture], tmp_path: Path) -> None:
    found: dict[int, Features] = {}
    start = threading.Barrier(3)

    def work(number: int) -> None:
        start.wait()
        found[number] = run(ToyEncoder(), pictures if number else pictures[::-1], tmp_path / "cache", views=2)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(found[1].take(range(40), 1), found[2].take(range(40), 1))
    assert (found[0].take(range(40)).flip(0) - found[1].take(range(40))).abs().max() < HALF
    assert run(ToyEncoder(), pictures, tmp_path / "cache", views=2).encoded == 0


def test_what_another_run_has_encoded_meanwhile_is_used(pictures: list[Picture], tmp_path: Path) -> None:
    class Other(ToyEncoder):
        """While it encodes its first batch, another run encodes the second half of the pictures."""

        def encode_images(self, pixels: Tensor) -> Tensor:
            if not self.seen:
                run(ToyEncoder(), pictures[20:], tmp_path / "cache")
            return super().encode_images(pixels)

    found = run(Other(), pictures, tmp_path / "cache")
    assert found.encoded == 20, "of which the four after the first batch come with it"
    assert (found.take(range(40)) - expected(ToyEncoder(), pictures)).norm(dim=-1).max() < HALF


def test_vectors_stay_on_disk(pictures: list[Picture], tmp_path: Path) -> None:
    """Memory-mapped, and without a file descriptor each: a million vectors are a thousand segments."""
    found = run(ToyEncoder(), pictures, tmp_path / "cache", views=20)
    open_files = {path.resolve() for path in Path("/proc/self/fd").glob("*")}
    assert not open_files & set(files(tmp_path / "cache"))
    maps = Path("/proc/self/maps").read_text()
    assert all(str(path) in maps for path in files(tmp_path / "cache"))
    for path in files(tmp_path / "cache"):
        path.unlink()
    assert found.take(range(40)).isfinite().all(), "a cache that is emptied does not disturb a run"


def test_the_default_folder(pictures: list[Picture], cache: Path) -> None:
    encoder = ToyEncoder("d" * 64)
    assert image_features(encoder, pictures).encoded == 40
    assert len(list((cache / "images" / ("d" * 16)).glob("*.safetensors"))) == 3
    assert image_features(encoder, pictures).encoded == 0


# --- bad input ------------------------------------------------------------------------------------------------------


def test_pictures_that_cannot_be_read_are_skipped_and_named(pictures: list[Picture], tmp_path: Path) -> None:
    for position, content in ((3, encoded(noise(1))[:-900]), (5, b""), (20, b"no picture")):
        source = pictures[position].source
        assert isinstance(source, Path)
        source.write_bytes(content)
    gone = pictures[30].source
    assert isinstance(gone, Path)
    gone.unlink()
    with pytest.warns(DataWarning, match=r"4 of 40 pictures are skipped: .*\(.*truncated.*; .*it is empty.*and 1 more"):
        found = run(ToyEncoder(), pictures, tmp_path / "cache", views=2)
    assert [name for name, _ in found.skipped] == [pictures[position].name for position in (3, 5, 20, 30)]
    assert "No such file" in found.skipped[3][1]
    assert found.kept.tolist() == [position for position in range(40) if position not in (3, 5, 20, 30)]
    assert (len(found), found.encoded) == (36, 72)
    kept = [pictures[position] for position in found.kept]
    assert (found.take(range(36), 1) - expected(ToyEncoder(), kept, 1)).norm(dim=-1).max() < HALF
    with pytest.warns(DataWarning, match="4 of 40"):
        assert run(ToyEncoder(), pictures, tmp_path / "cache", views=2).encoded == 0


def test_no_picture_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no picture can be read: .*x\.png cannot be read as a picture"):
        run(ToyEncoder(), load_pictures(tmp_path), tmp_path / "cache")
    nothing = run(ToyEncoder(), [], tmp_path / "cache", views=2)
    assert (len(nothing), nothing.views, nothing.encoded) == (0, 2, 0)


def test_numbers_that_are_not_finite_are_not_kept(pictures: list[Picture], tmp_path: Path) -> None:
    clip = ToyEncoder()
    clip.weights[0, 0] = float("nan")
    with pytest.raises(UserError, match="numbers that are not finite"):
        run(clip, pictures, tmp_path / "cache")
    assert files(tmp_path / "cache") == []


@pytest.mark.parametrize("views", [0, 257])
def test_how_many_views(views: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"expected from 1 to 256 views, got {views}"):
        run(ToyEncoder(), [], tmp_path / "cache", views=views)


def test_errors_of_the_program_are_not_taken_for_bad_pictures(tmp_path: Path) -> None:
    def broken() -> bytes:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        run(ToyEncoder(), [Picture("x", broken)], tmp_path / "cache")


# --- views ----------------------------------------------------------------------------------------------------------


def test_view_zero_is_the_models_own_preprocessing(pictures: list[Picture]) -> None:
    clip = ToyEncoder()
    assert torch.equal(pixels(clip, pictures[0]), clip.preprocess(noise(0)))


def test_views_are_determined_by_content_and_number(pictures: list[Picture], tmp_path: Path) -> None:
    clip = ToyEncoder()
    one = [pixels(clip, pictures[0], view) for view in range(1, 6)]
    assert all(view.shape == (3, 4, 6) for view in one)
    assert len({tuple(view.flatten().tolist()) for view in one}) == 5
    state = torch.get_rng_state()
    copy = Picture("another name", write(tmp_path / "copy.png", 0))
    assert all(torch.equal(pixels(clip, copy, view), one[view - 1]) for view in (4, 2, 1))
    assert torch.equal(torch.get_rng_state(), state), "no global random numbers"
    other = view_pixels(clip, noise(0), b"d" * 32, 1)
    assert not torch.equal(other, one[0])


def test_views_show_the_picture_normalised_and_sometimes_mirrored() -> None:
    """A picture whose red is the column and green the row: a crop keeps their order, a mirrored one turns the red."""
    rows, columns = np.mgrid[0:200, 0:200].astype(np.uint8)
    image = Image.fromarray(np.stack([columns, rows, np.full_like(rows, 51)], axis=-1))
    clip = ToyEncoder()
    mirrored = 0
    for number in range(100):
        values = view_pixels(clip, image, bytes([number]) * 32, 1)
        values = values * torch.tensor(clip.std).view(3, 1, 1) + torch.tensor(clip.mean).view(3, 1, 1)
        assert (values[2] - 0.2).abs().max() < 1e-5
        assert (values[1].diff(dim=0) > 0).all()
        steps = values[0].diff(dim=1)
        assert (steps > 0).all() or (steps < 0).all()
        mirrored += bool((steps < 0).all())
    assert 30 < mirrored < 70


@pytest.mark.parametrize("size", [(64, 48), (3, 2), (1, 1), (400, 2), (2, 400)])
def test_crops_are_those_of_torchvision(size: tuple[int, int]) -> None:
    from torchvision.transforms import RandomResizedCrop

    image = Image.new("RGB", size)
    for seed in range(50):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            top, left, height, width = RandomResizedCrop.get_params(image, [*features.SCALE], [*features.RATIO])
        box = crop_box(*size, torch.Generator().manual_seed(seed))
        assert box == (left, top, left + width, top + height)


# --- a real architecture --------------------------------------------------------------------------------------------


def test_batch_mates_move_a_vector_less_than_half_precision_does(tmp_path: Path) -> None:
    """Kernels differ with the batch's size by a few roundings in single precision; a kept number has 11 bits."""
    open_clip = pytest.importorskip("open_clip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(
            embed_dim=WIDTH,
            vision_cfg={"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
            text_cfg={"context_length": 8, "vocab_size": 32, "width": 32, "heads": 2, "layers": 1},
        ).eval()

    class Real(ToyEncoder):
        image_size = (32, 32)

        def preprocess(self, image: Image.Image) -> Tensor:
            return torch.from_numpy(np.array(image.resize((32, 32)), dtype=np.float32)).permute(2, 0, 1) / 255

        def encode_images(self, pixels: Tensor) -> Tensor:
            return F.normalize(model.encode_image(pixels), dim=-1)

    pictures = load_pictures(image_folder(tmp_path / "pictures", {"a": 21}))
    together = run(Real(), pictures, tmp_path / "together")
    with torch.no_grad():
        exact = torch.cat([Real().encode_images(pixels(Real(), one)[None]) for one in pictures])
        batched = Real().encode_images(torch.stack([pixels(Real(), one) for one in pictures]))
    assert (batched - exact).norm(dim=-1).max() < HALF / 100
    assert (together.take(range(21)) - exact).norm(dim=-1).max() < HALF
    for position, one in enumerate(pictures):
        alone = run(Real(), [one], tmp_path / "alone")
        assert (alone.take([0]) - together.take([position])).norm() < 2 * HALF


# --- memory ---------------------------------------------------------------------------------------------------------


class FullEncoder(ToyEncoder):
    """Whose memory holds so many pictures at once."""

    def __init__(self, holds: int) -> None:
        super().__init__()
        self.holds, self.failed = holds, 0

    def encode_images(self, pixels: Tensor) -> Tensor:
        if len(pixels) > self.holds:
            self.failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().encode_images(pixels)


def test_batches_are_halved_until_they_fit(pictures: list[Picture], tmp_path: Path) -> None:
    clip = FullEncoder(5)
    with pytest.warns(UserWarning) as found:
        vectors = run(clip, pictures, tmp_path / "cache").take(range(40))
    assert [str(each.message) for each in found] == [
        "memory does not hold a pass over 16 pictures; they are encoded in smaller batches from here on"
    ]
    assert clip.failed == 2, "16, then 8; then batches of 4"
    assert (vectors - expected(clip, pictures)).norm(dim=-1).max() < HALF


def test_a_picture_that_does_not_fit(pictures: list[Picture], tmp_path: Path) -> None:
    with pytest.warns(UserWarning), pytest.raises(UserError) as error:
        run(FullEncoder(0), pictures, tmp_path / "cache")
    assert str(error.value) == (
        "memory does not hold a pass over one picture (CUDA out of memory.); free some of it, or use --device cpu"
    )
