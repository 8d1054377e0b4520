"""The addresses of a server of pictures: what each takes, and what it gives back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from multimodal.classifier import Floats
from multimodal.serving.answering import Answer, Answering, Hit
from multimodal.serving.asked import Asked, PictureLimits, classify_of, search_of
from multimodal.serving.served import Loaded, PictureShelf
from multimodal.serving.thumbnails import SIDE, Thumbnails
from retrieval_prompts.errors import UserError
from retrieval_prompts.serving.application import Application, Handler, Request, Response, answer, busy
from retrieval_prompts.serving.by_name import FROZEN
from retrieval_prompts.serving.fields import Refused

Read = Callable[[bytes, PictureShelf, PictureLimits], Asked]
SMALL = 1 << 16  # bytes of a body that is read at once; larger ones are for a thread
DRAWN = 2  # pictures that are scaled down at a time
SECONDS = 86_400  # for which a browser may keep one


class PictureWeb(Application):
    """The application of prompts over an index of pictures.

    Args:
        images: see `Thumbnails`.
    """

    shelf: PictureShelf
    limits: PictureLimits

    def __init__(self, shelf: PictureShelf, limits: PictureLimits, images: Path | None = None) -> None:
        super().__init__(shelf, limits, Answering(shelf, limits.pixels), Path(__file__).parent / "page")
        self.thumbnails = Thumbnails(shelf.index, images)
        self._drawing, self._wanted = asyncio.Semaphore(DRAWN), 0

    def addresses(self) -> list[tuple[str, str, Handler]]:
        """See `Application`."""
        return [
            ("POST", "/search", self._search),
            ("POST", "/classify", self._classify),
            ("GET", "/pictures/{number}", self._picture),
        ]

    def about(self) -> dict[str, Any]:
        """See `Application`."""
        return {"model": self.shelf.clip.title, "pictures": len(self.shelf.index), "frozen": self.shelf.frozen}

    def about_prompt(self, prompt: Loaded) -> dict[str, Any]:
        """See `Application`."""
        made = prompt.classifier
        return {"method": made.settings.method, "classes": list(made.classes), "search": not prompt.no_search}

    async def _search(self, request: Request) -> Response:
        asked, answers = await self._answers(request, search_of)
        results = [
            {"hits": self._shown(each.hits), **({} if each.frozen is None else {"frozen": self._shown(each.frozen)})}
            for each in answers
        ]
        return _answered(asked, results)

    async def _classify(self, request: Request) -> Response:
        asked, answers = await self._answers(request, classify_of)
        names, results = asked.rows[0].classes, []
        for each in answers:
            assert each.probabilities is not None
            result = {"classes": _likely(names, each.probabilities, asked.k)}
            if each.frozen_probabilities is not None:
                result["frozen"] = _likely(names, each.frozen_probabilities, asked.k)
            results.append(result)
        return _answered(asked, results)

    async def _answers(self, request: Request, read: Read) -> tuple[Asked, list[Answer]]:
        asked = await self._asked(request, read)
        return asked, await self.results(request, asked.rows)

    async def _asked(self, request: Request, read: Read) -> Asked:
        """What a body asks for; it is not kept while its pictures wait."""
        body = await self.body(request)
        if len(body) <= SMALL:
            return read(body, self.shelf, self.limits)
        return await asyncio.to_thread(read, body, self.shelf, self.limits)

    async def _picture(self, request: Request) -> Response:
        number: str = request.path_params["number"]
        known = number.isascii() and number.isdecimal() and len(number) < 12 and int(number) < len(self.shelf.index)
        digest = self.thumbnails.digest(int(number)) if known else None
        if digest is None or request.query_params.get("v", digest[:16]) != digest[:16]:
            raise Refused(404, "there is no such picture" if not known or digest else "this index shows no pictures")
        headers = {
            "etag": f'"{digest[:32]}-{SIDE}"',
            "cache-control": f"private, max-age={SECONDS}",
            "vary": "authorization",
        }
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(await self._drawn(int(number)), headers=headers, media_type="image/jpeg")

    async def _drawn(self, position: int) -> bytes:
        """Raises Refused where there is no room, time or picture."""
        if self._wanted >= self.limits.waiting:
            raise busy(f"{self._wanted} pictures wait already")
        self._wanted += 1
        try:
            async with asyncio.timeout(self.limits.timeout), self._drawing:
                return await asyncio.to_thread(self.thumbnails, position)
        except TimeoutError:
            raise self.late() from None
        except UserError:  # which says where files are
            message = "this picture is not shown: its file is not there, or not the one that was indexed"
            raise Refused(404, message) from None
        finally:
            self._wanted -= 1

    def _shown(self, hits: Sequence[Hit]) -> list[dict[str, Any]]:
        return [
            {"id": hit.id, "score": hit.score, "title": hit.title, "text": hit.text, "picture": self._address(hit)}
            for hit in hits
        ]

    def _address(self, hit: Hit) -> str | None:
        """Of a picture, relative to the server; with its digest, as another index may have another at the place."""
        digest = self.thumbnails.digest(hit.position)
        return None if digest is None else f"pictures/{hit.position}?v={digest[:16]}"


def _answered(asked: Asked, results: list[dict[str, Any]]) -> Response:
    first = asked.rows[0]
    name, strength = (FROZEN, None) if first.prompt is None else (first.prompt.name, first.share)
    about = {"prompt": name, "strength": strength}
    return answer({**about, **results[0]} if asked.single else {**about, "results": results})


def _likely(names: Sequence[str], probabilities: Floats, k: int | None) -> list[dict[str, Any]]:
    """Classes and their probabilities, the most likely first."""
    best = (-probabilities).argsort(kind="stable")[:k]
    return [{"class": names[at], "probability": float(probabilities[at])} for at in best]
