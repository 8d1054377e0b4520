"""A page stands alone: well-formed, escaped, with thumbnails inside it and nothing to load or run."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from parsed_page import Parsed
from PIL import Image

from multimodal.report.gallery import SIDE, Bar, Figure, page, thumbnail
from retrieval_prompts.errors import UserError
from retrieval_prompts.report.page import write_page

NASTY = "<script>alert('x')</script> & \"quotes\""


def colour(name: str, size: tuple[int, int] = (8, 6)) -> Callable[[], Image.Image]:
    return lambda: Image.new("RGB", size, name)


def decoded(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2])))


def test_search_page() -> None:
    figures = [Figure(colour("red"), "red.jpg", "a red boat", "0.301"), Figure(colour("blue"), "blue.jpg")]
    parsed = Parsed(page("a red boat", figures, lines=["1,000 pictures", "toy"], foot="Cosines."))
    assert parsed.text == (
        "a red boat a red boat 1,000 pictures toy 1 0.301 red.jpg a red boat 2 blue.jpg Cosines."  # the title first
    )
    images = parsed.all("img")
    assert [image["alt"] for image in images] == ["red.jpg: a red boat", "blue.jpg"]
    assert [(image["width"], image["height"]) for image in images] == [("8", "6")] * 2
    reds = decoded(images[0]["src"]).convert("RGB").getpixel((4, 3))
    assert isinstance(reds, tuple) and reds[0] > 240 and max(reds[1:]) < 20, "the picture itself is inside"
    assert [figure["tabindex"] for figure in parsed.all("figure")] == ["0", "0"]


def test_nothing_is_loaded_and_nothing_runs() -> None:
    figures = [Figure(colour("red"), NASTY, NASTY, NASTY, (Bar(NASTY, 0.5, right=True),), right=True)]
    html = page(NASTY, figures, lines=[NASTY], foot=NASTY, query=figures[0])
    parsed = Parsed(html)
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in parsed.tags}
    for _, attributes in parsed.tags:
        assert not any(name.startswith("on") or name in {"href", "style"} for name in attributes)
        assert attributes.get("src", "data:image/").startswith("data:image/")
    assert "url(" not in html and "http" not in html.replace("http-equiv", "") and "<!--" not in html
    assert parsed.text.count(" ".join(NASTY.split())) == 8, "every word is there, as text"
    assert parsed.policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in parsed.policy and "script" not in parsed.policy


def test_classification_page() -> None:
    bars = (Bar("dog", 0.7231), Bar("cat", 0.2, right=True), Bar("sea lion", 1.0001))
    parsed = Parsed(page("3 pictures", [Figure(colour("red"), "a.png", bars=bars, right=False)]))
    assert "1 wrong a.png dog 72.3 % cat ✓ 20.0 % sea lion 100.0 %" in parsed.text
    assert [bar["width"] for bar in parsed.all("rect")] == ["72.3", "20.0", "100.0"]
    assert "right a.png" in Parsed(page("x", [Figure(colour("red"), "a.png", right=True)])).text


def test_only_the_first_so_many() -> None:
    def never() -> Image.Image:
        raise AssertionError("a figure that is not shown is not read")

    figures = [*(Figure(colour("red"), f"{n}.jpg") for n in range(2)), Figure(never, "2.jpg")]
    parsed = Parsed(page("many", figures, limit=2))
    assert len(parsed.all("figure")) == 2
    assert "2 of 3 shown" in parsed.text
    with pytest.raises(UserError) as error:
        page("none", figures, limit=0)
    assert str(error.value) == "a page shows at least 1 picture, got a limit of 0"


def test_nothing_found() -> None:
    parsed = Parsed(page("a unicorn", []))
    assert parsed.text.endswith("Nothing was found.")


@pytest.mark.parametrize("error", [OSError("truncated"), UserError("no picture")])
def test_a_picture_that_cannot_be_read(error: Exception) -> None:
    def broken() -> Image.Image:
        raise error

    parsed = Parsed(page("x", [Figure(broken, "broken.jpg", "a <dog>"), Figure(colour("red"), "b.jpg")]))
    assert "cannot be read 1 broken.jpg" in parsed.text
    gone = [attributes for attributes in parsed.all("div") if "gone" in attributes.get("class", "")]
    assert [attributes["aria-label"] for attributes in gone] == ["broken.jpg: a <dog>"]
    assert len(parsed.all("img")) == 1


def test_thumbnails_are_small_and_carry_nothing_else() -> None:
    picture = Image.new("RGB", (2 * SIDE, SIDE), "green")
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    picture.info["exif"] = exif.tobytes()
    address, width, height = thumbnail(picture)
    assert (width, height) == (SIDE, SIDE // 2) == decoded(address).size
    assert not decoded(address).getexif()
    assert picture.size == (2 * SIDE, SIDE), "the picture itself stays"
    assert thumbnail(Image.new("RGBA", (4, 4)))[1:] == (4, 4), "a small one is not blown up"


def test_write_page(tmp_path: Path) -> None:
    write_page(tmp_path / "new" / "page.html", page("café “✓”", []))
    assert "café “✓”" in (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
