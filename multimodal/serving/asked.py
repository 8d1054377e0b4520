"""Bodies of requests -> rows of a batch, or a refusal that says what was expected."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multimodal.serving.answering import Query
from multimodal.serving.served import Loaded, PictureShelf
from retrieval_prompts.serving.fields import Refused, checked_texts, hits_of, kind_of, parsed, strength_of, value
from retrieval_prompts.serving.limits import Limits

SEARCH = ("query", "queries", "image", "k", "prompt", "strength", "frozen")
CLASSIFY = ("image", "images", "classes", "k", "prompt", "strength", "frozen")


@dataclass(frozen=True)
class PictureLimits(Limits):
    """Limits of a server of pictures.

    Args:
        pixels: of a picture that is sent.
        classes: of a request.
    """

    pixels: int = 50_000_000
    classes: int = 1000


@dataclass(frozen=True)
class Asked:
    """What a request asked for: its rows, whether it was one question and not a list.

    Args:
        k: classes of an answer, at most; None: all.
    """

    rows: list[Query]
    single: bool
    k: int | None = None


def search_of(body: bytes, shelf: PictureShelf, limits: PictureLimits) -> Asked:
    """Raises Refused, and UserError for prompts that there are not."""
    given = parsed(body, SEARCH)
    if sum(name in given for name in ("query", "queries", "image")) != 1:
        raise Refused(422, "expected one of query, a text, queries, a list of texts, and image, a picture in base64")
    k = hits_of(given, limits)
    prompt, strength, beside = _by(given, shelf)
    if "image" in given:
        if prompt is not None or beside:
            raise Refused(422, "prompts apply to words; a search by a picture takes none, leave prompt and frozen out")
        return Asked([Query(None, picture=_picture(given["image"], "image"), k=k)], True)
    if prompt is not None and prompt.no_search:
        raise Refused(422, f"{prompt.name}: {prompt.no_search}")
    single = "query" in given
    texts = checked_texts([given["query"]] if single else given["queries"], "query" if single else "queries", limits)
    return Asked([Query(prompt, strength, text, k=k, beside=beside) for text in texts], single)


def classify_of(body: bytes, shelf: PictureShelf, limits: PictureLimits) -> Asked:
    """Raises Refused, and UserError for prompts that there are not."""
    given = parsed(body, CLASSIFY)
    if ("image" in given) == ("images" in given):
        raise Refused(422, "expected either image, a picture in base64, or images, a list of them")
    prompt, strength, beside = _by(given, shelf)
    classes = _classes(given, prompt, limits)
    k = value(given, "k", int, None)
    if k is not None and k < 1:
        raise Refused(422, f"k must be at least 1, got {k}")
    pictures = _pictures(given, limits)
    rows = [Query(prompt, strength, "", each, place, 0, classes, beside) for place, each in pictures.items()]
    return Asked(rows, "image" in given, k)


def _by(given: Mapping[str, Any], shelf: PictureShelf) -> tuple[Loaded | None, float | None, bool]:
    """The prompt, its strength, and whether the frozen model's answer is wanted beside."""
    prompt = shelf.get(value(given, "prompt", str, None))
    return prompt, strength_of(given, prompt), value(given, "frozen", bool, False)


def _classes(given: Mapping[str, Any], prompt: Loaded | None, limits: PictureLimits) -> tuple[str, ...]:
    """The names that were given, else those of the prompt's training. Raises Refused."""
    names = given.get("classes")
    if names is None:
        own = () if prompt is None else prompt.classifier.classes
        if not own:
            raise Refused(422, 'expected classes, a list of names, such as ["cat", "dog"]')
        return own
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused(422, f"expected classes to be a list of names, got {_said(names)}")
    if not 1 <= len(names) <= limits.classes:
        raise Refused(422, f"expected from 1 to {limits.classes} classes, got {len(names)}")
    for position, name in enumerate(names):
        if len(name) > limits.text or any("\ud800" <= sign <= "\udfff" for sign in name):
            raise Refused(422, f"classes: expected a name of at most {limits.text:,} characters at position {position}")
    return tuple(names)


def _pictures(given: Mapping[str, Any], limits: PictureLimits) -> dict[str, bytes]:
    """What messages call it -> the bytes of a picture. Raises Refused."""
    if "image" in given:
        return {"image": _picture(given["image"], "image")}
    images = given["images"]
    if not isinstance(images, list) or not 1 <= len(images) <= limits.queries:
        raise Refused(422, f"expected images to be a list of 1 to {limits.queries} pictures, got {_said(images)}")
    places = (f"images: the picture at position {position}" for position in range(len(images)))
    return {place: _picture(each, place) for place, each in zip(places, images, strict=True)}


def _picture(given: Any, place: str) -> bytes:
    if not isinstance(given, str):
        raise Refused(422, f"expected {place} to be the bytes of a picture file in base64, got {kind_of(given)}")
    try:
        return base64.b64decode("".join(given.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(422, f"expected {place} to be the bytes of a picture file in base64 ({error})") from None


def _said(found: Any) -> str:
    return f"a list of {len(found)}" if isinstance(found, list) else kind_of(found)
