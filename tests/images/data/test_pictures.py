"""Odd files shown as RGB, and files that are none."""

from __future__ import annotations

import io
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_pictures import RED, WHITE, encoded, image_folder, noise, write

from multimodal.data import pictures
from multimodal.data.pictures import Picture, decode, load_pictures
from retrieval_prompts.errors import DataWarning, UserError

# --- pictures -------------------------------------------------------------------------------------------------------


def shown(content: bytes) -> np.ndarray:
    image = decode(content, "x")
    assert image.mode == "RGB"
    return np.asarray(image)


def test_a_plain_picture() -> None:
    assert np.array_equal(shown(encoded(noise(1))), np.asarray(noise(1)))


@pytest.mark.parametrize("format", ["AVIF", "DDS", "ICO", "JPEG2000", "MPO", "PCX", "PPM", "QOI", "SGI", "TGA"])
def test_what_pillow_reads_is_read(format: str) -> None:
    image = noise(1, (32, 32))
    content = encoded(image, format)
    with Image.open(io.BytesIO(content)) as plainly:
        assert np.array_equal(shown(content), np.asarray(plainly.convert("RGB")))


def test_transparent_is_white() -> None:
    clear, half, full = (0, 0, 0, 0), (255, 0, 0, 128), (255, 0, 0, 255)
    image = Image.new("RGBA", (3, 1))
    for column, pixel in enumerate((clear, half, full)):
        image.putpixel((column, 0), pixel)
    assert shown(encoded(image)).tolist() == [[list(WHITE), [255, 127, 127], list(RED)]]
    assert shown(encoded(image, "WEBP", lossless=True)).tolist() == [[list(WHITE), [255, 127, 127], list(RED)]]
    gray = Image.new("LA", (1, 1), (0, 0))
    assert shown(encoded(gray)).tolist() == [[list(WHITE)]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 255, 0, *RED])
    palette.putpixel((1, 0), 1)
    assert shown(encoded(palette, transparency=0)).tolist() == [[list(WHITE), list(RED)]]
    assert shown(encoded(palette, "GIF", transparency=0)).tolist() == [[list(WHITE), list(RED)]]
    assert shown(encoded(palette)).tolist() == [[[0, 255, 0], list(RED)]]
    keyed = Image.new("RGB", (1, 1), RED)
    assert shown(encoded(keyed, transparency=RED)).tolist() == [[list(WHITE)]]


def test_cmyk_and_gray() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(shown(encoded(red, "JPEG", quality=100)).astype(int) - RED).max() <= 2
    assert np.array_equal(shown(encoded(red, "TIFF")), np.broadcast_to(RED, (8, 8, 3)))
    assert shown(encoded(Image.new("L", (1, 1), 7))).tolist() == [[[7, 7, 7]]]
    assert shown(encoded(Image.new("1", (1, 1), 1))).tolist() == [[list(WHITE)]]


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    ramp = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        assert shown(encoded(Image.fromarray(ramp), format))[0, :, 0].tolist() == [0, 1, 128, 255]
    whole = Image.fromarray(ramp.astype(np.int32))
    assert shown(encoded(whole, "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]
    real = Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32))
    assert shown(encoded(real, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture(orientation: int) -> None:
    upright = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    # What a camera stores so that turning it as the tag says gives the picture
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # tag -> PIL's transpose that undoes it
    stored = upright.transpose(Image.Transpose(back[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(shown(encoded(stored, exif=exif)), np.asarray(upright))


def test_the_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, (0, 0, 255))]
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        content = encoded(
            frames[0],
            format,
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if format == "WEBP" else {}),
        )
        assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) == 2
        assert np.array_equal(shown(content), np.broadcast_to(RED, (4, 4, 3)))
    stereo = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(stereo)).format == "MPO"
    assert np.abs(shown(stereo).astype(int) - RED).max() <= 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>not found</html>", "it is not one of AVIF, BMP, DDS"),
        (encoded(noise(0), "EPS"), "it is not one of"),
        (encoded(noise(0, (64, 64)), "JPEG")[:-200], "image file is truncated"),
        (encoded(noise(0, (64, 64)))[:-2000], ""),
        (encoded(noise(0))[:30], ""),
        (encoded(Image.new("RGB", (2001, 10))), "2001 x 10 pixels, more than 200 times as long as wide"),
    ],
    ids=["empty", "a page", "a program", "a cut JPEG", "a cut PNG", "a cut header", "a strip"],
)
def test_what_is_no_picture_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"{path} cannot be read as a picture ({reason}")) as refused:
        Picture("x.jpg", path).load()
    assert "\n" not in str(refused.value)


def test_a_decompression_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for side in (11, 40):  # Pillow warns of the first and refuses the second
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with pytest.raises(UserError, match=r"x cannot be read as a picture \(.*pixels"):
                decode(encoded(Image.new("RGB", (side, side))), "x")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.png cannot be read \(No such file or directory\)"):
        Picture("gone.png", tmp_path / "gone.png").load()

    def offline() -> bytes:
        raise OSError("the server is away")

    with pytest.raises(UserError, match=r"^train/7 cannot be read \(the server is away\)"):
        Picture("train/7", offline).read()


def test_load_pictures(tmp_path: Path) -> None:
    image_folder(tmp_path, {"b": 2, "a/deep": 1, ".hidden": 1})
    (tmp_path / "b" / "notes.txt").write_text("x")
    write(tmp_path / "b" / "x.XCF")
    with pytest.warns(DataWarning, match=r"left out 1 files whose names are not those of pictures, 1 .xcf \(b/x.XCF\)"):
        found = load_pictures(tmp_path)
    assert [picture.name for picture in found] == ["a/deep/0.png", "b/0.png", "b/1.png"]
    assert np.array_equal(np.asarray(found[1].load()), np.asarray(noise(0)))
    odd = write(tmp_path / "odd.data")
    assert [picture.name for picture in load_pictures(odd)] == ["odd.data"], "a file that is named is taken"
    (tmp_path / "b" / "x.XCF").unlink()
    mixed = load_pictures([str(odd), tmp_path / "b", odd])
    assert [picture.name for picture in mixed] == [odd.as_posix(), *(f"{tmp_path}/b/{n}.png" for n in range(2))]
    with pytest.raises(UserError, match="gone does not exist; expected a picture or a folder of pictures"):
        load_pictures([odd, tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no picture found in .*empty; expected files that end in \.jpg, \.png"):
        load_pictures(tmp_path / "empty")
    with pytest.raises(UserError, match="no picture found in an empty list"):
        load_pictures([])


def test_what_is_no_file_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(UserError, match=rf"{name} cannot be read as a picture \(it is not a file\)"):
            Picture(name, tmp_path / name).load()
    write(tmp_path / "large.png")
    monkeypatch.setattr(pictures, "MOST", 100)
    with pytest.raises(UserError, match=r"large\.png cannot be read as a picture \(it has 0 MB, more than 0\)"):
        Picture("large.png", tmp_path / "large.png").load()


def test_pictures_of_phones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif", reason="an extra")
    turned = Image.new("RGB", (64, 48), (200, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    heif.from_pillow(turned).save(tmp_path / "a.HEIC", exif=exif.tobytes())
    (picture,) = load_pictures(tmp_path)
    shown = np.asarray(picture.load()).astype(int)
    assert shown.shape == (64, 48, 3) and abs(shown[9, 9] - (200, 30, 30)).max() < 9
    monkeypatch.setattr(pictures, "reads_heif", lambda: False)
    with pytest.raises(
        UserError, match=r'a.HEIC cannot be read as a picture \(it is HEIC: pip install "retrieval-prompts\[heic\]"'
    ):
        picture.load()
    write(tmp_path / "b.png")
    with pytest.warns(
        DataWarning, match=r'1 .heic \(a.HEIC\); of HEIC, pip install "retrieval-prompts\[heic\]" reads it'
    ):
        assert [one.name for one in load_pictures(tmp_path)] == ["b.png"]
