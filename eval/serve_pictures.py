"""Load for `multimodal-prompts serve`, beside one question at a time with open_clip and FAISS.

    multimodal-prompts index eval/data/pictures --out INDEX
    python -m eval.serve_pictures INDEX eval/data/pictures --json eval/results/serve-pictures.json

Both servers run at once and are asked in turns, as `eval/serve_load.py` does for texts: by words, by a picture that is
sent, and, ours alone, to classify such a picture. The other is the same framework around the model of open_clip, one
question at a time behind a lock, and `faiss.IndexFlatIP`. Every answer of ours is compared with the one that the same
question gets when nobody else asks.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import sys
import time
from pathlib import Path
from typing import Any

from eval.serve_load import Counted, Served, after, alone, clients, serving, summary
from multimodal.data.images import load_images
from retrieval_prompts import UserError
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json

PACKAGES = ("torch", "open-clip-torch", "faiss-cpu", "starlette", "uvicorn", "pillow")
ASKED = 40  # different pictures
FORMS = (
    "a picture of a {}",
    "a drawing of one {}",
    "two of the kind: {}",
    "{}, seen from afar",
    "a small {} in colour",
)
Body = dict[str, Any]


def alike(found: Any, expected: Any) -> bool:
    """Whether two answers say the same, numbers to 1e-5."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(alike(found[name], value) for name, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(alike, found, expected))
    return abs(found - expected) <= 1e-5 if isinstance(expected, float) else bool(found == expected)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Name of a question and number of clients -> what came of it."""
    data = load_images(options.images)
    pictures = data.split("test").pictures
    chosen = pictures[:: max(1, len(pictures) // ASKED)][:ASKED]
    sent = [{"image": base64.b64encode(picture.read()).decode()} for picture in chosen]
    words = [{"query": form.format(name), "k": 10} for name in data.classes for form in FORMS]
    classify = [{**each, "classes": data.classes} for each in sent]
    similar = [{**each, "k": 10} for each in sent]
    ours = ("-m", "multimodal.cli.app", "serve", str(options.index), "--port=0", "--device=cpu")
    turns: dict[str, list[tuple[Counted, float, float]]] = {}
    with serving("-m", "eval.serve_pictures", str(options.index), "--other") as other, serving(*ours) as our:
        asked: dict[str, tuple[Served, str, list[Body]]] = {
            "one at a time, words": (other, "/search", words),
            "serve, words": (our, "/search", words),
            "one at a time, picture": (other, "/search", similar),
            "serve, picture": (our, "/search", similar),
            "serve, classify": (our, "/classify", classify),
        }
        expected = {
            name: asyncio.run(alone(server.port, bodies, path)) if name.startswith("serve") else None
            for name, (server, path, bodies) in asked.items()
        }
        for turn in range(options.turns):
            for count in options.clients:
                for name in asked if turn % 2 == 0 else reversed(asked):
                    server, path, bodies = asked[name]
                    started, before = time.perf_counter(), server.cpu()
                    given = server.port, count, bodies, after(options.seconds), expected[name]
                    counted = asyncio.run(clients(*given, path=path, alike=alike))
                    took = time.perf_counter() - started, server.cpu() - before
                    turns.setdefault(f"{name}, {count} clients", []).append((counted, *took))
    return {name: summary(each) for name, each in turns.items()}


def other_server(index: Path) -> None:
    """One question at a time: open_clip and FAISS in the same framework."""
    import threading

    import faiss
    import torch
    import uvicorn
    from PIL import Image
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from multimodal.vectors.image_index import open_with_model
    from retrieval_prompts.serving.server import listening

    opened, clip = open_with_model(index, None, None, device="cpu")
    model, ids, vectors = clip.model, list(opened.ids), faiss.read_index(str(index / "index.faiss"))
    lock = threading.Lock()

    @torch.no_grad()
    def found(asked: Body) -> list[Body]:
        with lock:
            if "query" in asked:
                vector = model.encode_text(clip.tokenizer([asked["query"]]), normalize=True)
            else:
                image = Image.open(io.BytesIO(base64.b64decode(asked["image"]))).convert("RGB")
                vector = model.encode_image(clip.preprocess(image)[None], normalize=True)
            scores, places = vectors.search(vector.numpy(), asked["k"])
        return [
            {"id": ids[at], "score": score} for at, score in zip(places[0].tolist(), scores[0].tolist(), strict=True)
        ]

    async def search(request: Request) -> Response:
        return JSONResponse({"hits": await run_in_threadpool(found, await request.json())})

    at = listening("127.0.0.1", 0)
    print(f"http://127.0.0.1:{at.getsockname()[1]}", flush=True)
    app = Starlette(routes=[Route("/search", search, methods=["POST"])])
    asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).serve(sockets=[at]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="an index folder of pictures, Flat")
    parser.add_argument("images", type=Path, nargs="?", help="the pictures to ask with, in folders of their classes")
    parser.add_argument("--json", type=Path, help="the result file")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--other", action="store_true", help="be the server that is compared with")
    options = parser.parse_args()
    if options.other:
        other_server(options.index)
        return
    try:
        if options.images is None or options.json is None:
            raise UserError("expected IMAGES, the pictures to ask with, and --json FILE")
        check_output(options.json, overwrite=options.overwrite)
        settings = {name: getattr(options, name) for name in ("clients", "turns", "seconds")}
        write_json(options.json, {"settings": settings, **made_on(PACKAGES), "speed": run(options)})
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
