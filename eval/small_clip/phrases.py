"""Names of pictures as plain English phrases, and the class of an emoji sub-group. Knows nothing about pixels."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

# Sub-groups of the Unicode emoji list, as one English class name each; sub-groups without a plain name are left out.
CLASS_OF_SUBGROUP = {
    "face-smiling": "face",
    "face-affection": "face",
    "face-tongue": "face",
    "face-hand": "face",
    "face-neutral-skeptical": "face",
    "face-sleepy": "face",
    "face-unwell": "face",
    "face-hat": "face",
    "face-glasses": "face",
    "face-concerned": "face",
    "face-negative": "face",
    "cat-face": "cat face",
    "monkey-face": "monkey face",
    "heart": "heart",
    "hand-fingers-open": "hand",
    "hand-fingers-partial": "hand",
    "hand-single-finger": "hand",
    "hand-fingers-closed": "hand",
    "hands": "hand",
    "body-parts": "body part",
    "person": "person",
    "person-gesture": "person",
    "person-role": "worker",
    "person-fantasy": "fantasy character",
    "person-activity": "person",
    "person-sport": "athlete",
    "person-resting": "person",
    "family": "family",
    "animal-mammal": "mammal",
    "animal-bird": "bird",
    "animal-amphibian": "amphibian",
    "animal-reptile": "reptile",
    "animal-marine": "sea animal",
    "food-marine": "sea animal",
    "animal-bug": "bug",
    "plant-flower": "plant",
    "plant-other": "plant",
    "food-fruit": "fruit",
    "food-vegetable": "vegetable",
    "food-prepared": "cooked food",
    "food-asian": "cooked food",
    "food-sweet": "dessert",
    "drink": "drink",
    "dishware": "tableware",
    "place-map": "map",
    "place-geographic": "landscape",
    "place-building": "building",
    "place-religious": "building",
    "place-other": "place",
    "transport-ground": "vehicle",
    "transport-water": "boat",
    "transport-air": "aircraft",
    "time": "clock",
    "sky-weather": "weather",
    "event": "celebration",
    "award-medal": "medal",
    "sport": "sports equipment",
    "game": "game",
    "arts-crafts": "craft",
    "clothing": "clothing",
    "sound": "sound",
    "music": "music",
    "musical-instrument": "music",
    "phone": "phone",
    "computer": "computer",
    "light-video": "camera",
    "book-paper": "book",
    "money": "money",
    "mail": "mail",
    "writing": "pen",
    "office": "office supply",
    "lock": "lock",
    "tool": "tool",
    "science": "science equipment",
    "medical": "medicine",
    "household": "household item",
    "transport-sign": "sign",
    "warning": "warning sign",
    "arrow": "arrow",
    "religion": "religious symbol",
    "zodiac": "zodiac sign",
    "av-symbol": "button",
    "gender": "symbol",
    "math": "math symbol",
    "punctuation": "punctuation",
    "geometric": "shape",
    "flag": "flag",
}
# Broader words that a class brings with it.
BROADER = {
    "mammal": "animal",
    "bird": "animal",
    "amphibian": "animal",
    "reptile": "animal",
    "sea animal": "animal",
    "bug": "insect",
    "fruit": "food",
    "vegetable": "food",
    "cooked food": "meal",
    "dessert": "sweet food",
    "drink": "beverage",
    "plant": "nature",
    "vehicle": "transport",
    "boat": "vehicle",
    "aircraft": "vehicle",
    "clothing": "clothes",
    "music": "musical instrument",
    "sports equipment": "sport",
    "face": "smiley",
    "building": "place",
    "office supply": "office",
    "weather": "sky",
    "book": "paper",
    "computer": "electronics",
    "phone": "electronics",
    "camera": "electronics",
}


@dataclass(frozen=True)
class Emoji:
    """One emoji of the Unicode list."""

    code: str  # "1f436", joined with "-"
    name: str
    tags: tuple[str, ...]
    category: str | None  # a value of CLASS_OF_SUBGROUP


@dataclass
class Described:
    """What is known of one picture."""

    source: str
    name: str
    keywords: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)


def plain(text: str) -> str:
    """Lower-case words of ASCII letters, single spaces: "Jack-O'Lantern_2" -> "jack o lantern"."""
    text = unicodedata.normalize("NFKD", text.replace("’", "").replace("'", ""))
    text = text.encode("ascii", "ignore").decode().lower()
    return " ".join(re.sub(r"[^a-z]+", " ", text).split())


def load_emoji(emojibase: Path) -> list[Emoji]:
    """The emoji of the package emojibase-data, without skin tones, country flags and components."""
    subgroups = {
        row["order"]: row["key"] for row in json.loads((emojibase / "en/messages.json").read_text())["subgroups"]
    }
    rows = json.loads((emojibase / "en/data.json").read_text())
    found = []
    for row in rows:
        subgroup = subgroups.get(row.get("subgroup"), "")
        if subgroup in ("", "country-flag", "subdivision-flag", "skin-tone", "hair-style", "keycap"):
            continue
        tags = tuple(dict.fromkeys(plain(tag) for tag in row.get("tags", [])))
        found.append(
            Emoji(
                row["hexcode"].lower(), plain(row["label"]), tuple(filter(None, tags)), CLASS_OF_SUBGROUP.get(subgroup)
            )
        )
    return found


def by_code(emoji: list[Emoji]) -> dict[str, Emoji]:
    """Look-up by code point sequence, with and without the variation selector FE0F."""
    found = {one.code: one for one in emoji}
    for one in emoji:
        found.setdefault(one.code.replace("-fe0f", ""), one)
    return found


def by_squeezed_name(emoji: list[Emoji]) -> dict[str, Emoji]:
    """Look-up by the letters of the name, for icon sets that write "crescentmoon"."""
    return {one.name.replace(" ", ""): one for one in emoji}
