"""Write a small classification and retrieval set of pictures that the small CLIP never saw: Fluent emoji by class.

    python -m eval.small_clip.sample build/small_clip eval/data/pictures

Layout: train/<class>/*.png, test/<class>/*.png (64 x 64, on white) and captions.csv with the name of every picture. A
class's pictures are shuffled with a fixed seed, then dealt: half to train, at most 16; the rest to test, at most 20.
"""

from __future__ import annotations

import argparse
import collections
import csv
import io
import json
import random
from pathlib import Path

import resvg_py
from PIL import Image

from eval.small_clip.phrases import Emoji, by_code, load_emoji
from eval.small_clip.prepare import icons_of

CLASSES = """arrow, bird, book, bug, building, button, clock, clothing, cooked food, drink, face, fruit, hand, heart,
mammal, music, office supply, plant, sea animal, sports equipment, tool, vegetable, vehicle, weather"""
SIZE, MARGIN = 64, 3
MOST_TRAIN, MOST_TEST = 16, 20
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder that fetch.py filled")
    parser.add_argument("out", type=Path, help="the folder to write train/, test/ and captions.csv into")
    options = parser.parse_args()
    groups = fluent_by_class(options.folder / "raw")
    captions: list[tuple[str, str, str]] = []
    for name in sorted(groups):
        members = sorted(groups[name], key=lambda pair: pair[0].code)
        random.Random(SEED).shuffle(members)
        half = min(MOST_TRAIN, len(members) // 2)
        for split, some in (("train", members[:half]), ("test", members[half : half + MOST_TEST])):
            for one, svg in some:
                path = Path(split) / name.replace(" ", "_") / f"{one.name.replace(' ', '_')}.png"
                (options.out / path).parent.mkdir(parents=True, exist_ok=True)
                draw(svg).save(options.out / path, optimize=True)
                captions.append((path.as_posix(), one.name, split))
    with (options.out / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "caption", "split"])
        writer.writerows(sorted(captions))
    print(f"{len(captions)} pictures of {len(groups)} classes")


def fluent_by_class(raw: Path) -> dict[str, list[tuple[Emoji, str]]]:
    """Class name -> the held-out emoji of that class and their SVG texts."""
    codes = by_code(load_emoji(raw / "emojibase-data"))
    listed: dict[str, str] = json.loads((raw / "fluent-emoji-flat/chars.json").read_text())
    named = {name: codes[code] for code, name in listed.items() if code in codes}
    wanted = {name.strip() for name in CLASSES.split(",")}
    groups: dict[str, list[tuple[Emoji, str]]] = collections.defaultdict(list)
    for name, svg in icons_of(raw / "fluent-emoji-flat"):
        if name in named and named[name].category in wanted:
            groups[named[name].category or ""].append((named[name], svg))
    return groups


def draw(svg: str) -> Image.Image:
    """SVG text -> a picture of few colours on white, centred with a small margin."""
    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=4 * SIZE, skip_system_fonts=True)
    picture = Image.open(io.BytesIO(bytes(drawn))).convert("RGBA")
    picture = picture.crop(picture.getbbox())
    picture.thumbnail((SIZE - 2 * MARGIN, SIZE - 2 * MARGIN), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIZE, SIZE), "white")
    square.alpha_composite(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    return square.convert("RGB").quantize(128)


if __name__ == "__main__":
    main()
