"""Pictures -> vectors of a frozen image tower, each computed once: a cache on disk by content, encoder and view.

Another seed, shot count or method encodes nothing again, nor does a picture that was renamed or that occurs twice.
Half precision moves a unit vector by less than 5e-4 of its length; other pictures in the batch by far less than that.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from multimodal.data.pictures import Picture, decode
from multimodal.vectors import segments
from multimodal.vectors.segments import Segments
from retrieval_prompts.errors import DataWarning, UserError, few, first_line, out_of_memory
from retrieval_prompts.files import default_cache

SCALE = (0.08, 1.0)  # of a view: the share of the picture's area, and
RATIO = (3 / 4, 4 / 3)  # its width by its height, as CoOp's random resized crop has them
VIEWS = 256  # at most: a key holds the view in one byte
BLOCK = 8192  # vectors read from the cache at once

Item = TypeVar("Item")
Result = TypeVar("Result")


class ImageEncoder(Protocol):
    """What is needed of a frozen model; `multimodal.towers.clip.Clip` is one."""

    dimension: int

    @property
    def preprocess(self) -> Callable[[Any], Tensor]: ...
    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def image_fingerprint(self) -> str: ...
    @property
    def device(self) -> torch.device: ...
    def encode_images(self, pixels: Tensor) -> Tensor: ...


class Features:
    """Vectors of pictures in one or more views; they stay on disk, memory-mapped, in half precision.

    A position means a picture that could be read: position i is `pictures[kept[i]]` of what was asked for.

    Args:
        where: int64 (n, views), locations in `store`.
        kept: int64 (n,), ascending: which of the pictures could be read.
        skipped: (name, reason) of the others.
        encoded: how many vectors, one a picture and view, were computed now and not found in the cache.
        digests: uint8 (n, 32), the sha256 of each picture's file.
    """

    def __init__(
        self,
        store: Segments,
        where: NDArray[np.int64],
        kept: NDArray[np.int64],
        skipped: list[tuple[str, str]],
        encoded: int,
        digests: NDArray[np.uint8],
    ) -> None:
        self.store, self.where, self.digests = store, where, digests
        self.kept, self.skipped, self.encoded = kept, skipped, encoded

    def __len__(self) -> int:
        return len(self.where)

    @property
    def views(self) -> int:
        return self.where.shape[1]

    @property
    def dimension(self) -> int:
        return self.store.dimension

    def take(self, positions: ArrayLike | Tensor, view: ArrayLike | Tensor = 0) -> Tensor:
        """Positions (b,), and a view of all or one a position (b,) -> (b, dimension) in float32, of unit length."""
        at = _integers(positions).reshape(-1)
        locations = self.where[at, np.broadcast_to(_integers(view), at.shape)]
        return F.normalize(self.store.rows(locations).float(), dim=-1)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The pictures' own views, (n, dimension) in float32, block by block."""
        for start in range(0, len(self), BLOCK):
            yield self.take(np.arange(start, min(start + BLOCK, len(self)))).numpy()


def image_features(
    clip: ImageEncoder,
    pictures: Sequence[Picture],
    *,
    views: int = 1,
    cache: Path | None = None,
    progress: bool = True,
) -> Features:
    """Encode the pictures whose vectors are not in the cache, and say where all vectors are.

    Args:
        views: of each picture, see `view_pixels`: the first is the model's own evaluation preprocessing.
        cache: a folder; None: `images` in `default_cache()`. Vectors are written there in
            groups as they are made, so a run that is cut short goes on where it stopped; two runs may share it.
        progress: show a bar if it takes more than a second.

    Pictures that cannot be read are skipped, counted and named in one DataWarning.

    Raises:
        UserError: if none can be read, if the encoder gives numbers that are not finite, and if the cache cannot be
            written.
    """
    found = readable_features(clip, pictures, views=views, cache=cache, progress=progress)
    report([reason for _, reason in found.skipped], len(pictures))
    return found


def readable_features(
    clip: ImageEncoder, pictures: Sequence[Picture], *, views: int, cache: Path | None, progress: bool
) -> Features:
    """As `image_features`, without a word of those that are skipped, which may be all."""
    if not 1 <= views <= VIEWS:
        raise UserError(f"expected from 1 to {VIEWS} views, got {views}")
    folder = (cache or default_cache() / "images") / clip.image_fingerprint[:16]
    store = Segments(folder, clip.image_fingerprint, clip.dimension)
    queue = _Queue(clip, store)
    digests = np.zeros((len(pictures), 32), dtype=np.uint8)
    skipped: dict[int, str] = {}

    def prepare(picture: Picture) -> tuple[bytes, dict[int, Tensor]] | UserError:
        """The content's digest, and the pixels of the views that are not in the cache."""
        try:
            content = picture.read()
            digest = hashlib.sha256(content).digest()
            missing = [view for view in range(views) if store.find(_key(digest, view)) is None]
            image = decode(content, picture.place) if missing else None
        except UserError as error:
            return error
        return digest, {view: view_pixels(clip, image, digest, view) for view in missing if image is not None}

    window = max(2, 2 * queue.batch // views)
    bar = tqdm(total=len(pictures), desc="encode images", unit="image", delay=1, mininterval=0.5, disable=not progress)
    try:
        with bar:
            for position, prepared in enumerate(_ahead(prepare, pictures, window)):
                if isinstance(prepared, UserError):
                    skipped[position] = str(prepared)
                else:
                    digest, pixels = prepared
                    digests[position] = np.frombuffer(digest, dtype=np.uint8)
                    for view, one in pixels.items():
                        queue.put(_key(digest, view), one)
                bar.update()
            queue.encode()
    finally:
        queue.write()  # also what was encoded before an error or an interrupt
    kept = np.array([position for position in range(len(pictures)) if position not in skipped], dtype=np.int64)
    where = np.empty((len(kept), views), dtype=np.int64)
    for row, position in enumerate(kept):
        for view in range(views):
            location = store.find(_key(digests[position].tobytes(), view))
            assert location is not None
            where[row, view] = location
    names = [(pictures[position].name, reason) for position, reason in skipped.items()]
    return Features(store, where, kept, names, queue.encoded, digests[kept])


def pixels(clip: ImageEncoder, picture: Picture, view: int = 0) -> Tensor:
    """What the image tower sees of a picture, (3, H, W); see `view_pixels`.

    Raises:
        UserError: if it cannot be read.
    """
    content = picture.read()
    return view_pixels(clip, decode(content, picture.place), hashlib.sha256(content).digest(), view)


def view_pixels(clip: ImageEncoder, image: Image.Image, digest: bytes, view: int) -> Tensor:
    """A picture in RGB -> pixels (3, H, W).

    View 0 is the model's own evaluation preprocessing. Each other one is a random resized crop, bicubic, mirrored in
    half of the cases; the picture's content (`digest`) and the view's number decide which, and nothing else does.
    """
    if view == 0:
        return clip.preprocess(image)
    seed = hashlib.sha256(_key(digest, view)).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(seed[:8], "big"))
    height, width = clip.image_size
    image = image.crop(crop_box(*image.size, generator)).resize((width, height), Image.Resampling.BICUBIC)
    if torch.rand(1, generator=generator).item() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(list(moments)).view(3, 1, 1) for moments in (clip.mean, clip.std))
    return (values - mean) / std


def crop_box(width: int, height: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a random crop of SCALE and RATIO; draws as torchvision's RandomResizedCrop does."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(1).uniform_(low, high, generator=generator)

    def integer(end: int) -> int:
        return int(torch.randint(end, (1,), generator=generator).item())

    low, high = torch.log(torch.tensor(RATIO)).tolist()
    for _ in range(10):
        area = width * height * uniform(*SCALE).item()
        ratio = uniform(low, high).exp().item()
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = integer(height - h + 1), integer(width - w + 1)
            return left, top, left + w, top + h
    # Elongated: the middle
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


class _Queue:
    """Pixels on their way to vectors, and vectors on their way to the disk."""

    def __init__(self, clip: ImageEncoder, store: Segments) -> None:
        self.clip, self.store = clip, store
        self.batch, self.halved = 16 if clip.device.type == "cpu" else 256, False
        self.pixels: dict[bytes, Tensor] = {}
        self.vectors: dict[bytes, Tensor] = {}
        self.encoded = 0

    def put(self, key: bytes, pixels: Tensor) -> None:
        # The same content may have come under another name, or from another run, since its pixels were asked for
        if key not in self.pixels and key not in self.vectors and self.store.find(key) is None:
            self.pixels[key] = pixels
            if len(self.pixels) == self.batch:
                self.encode()

    def encode(self) -> None:
        if not self.pixels:
            return
        pixels = list(self.pixels.values())
        parts: list[Tensor] = []
        while (done := sum(map(len, parts))) < len(pixels):
            parts += self._fitting(pixels[done : done + self.batch])
        vectors = torch.cat(parts)
        if not torch.isfinite(vectors).all():
            raise UserError("the image tower gives numbers that are not finite; check the model's weights")
        self.vectors.update(zip(self.pixels, vectors.half().cpu(), strict=True))
        self.encoded += len(self.pixels)
        self.pixels.clear()
        if len(self.vectors) >= segments.ROWS:
            self.write()

    @torch.no_grad()
    def _fitting(self, pixels: list[Tensor]) -> list[Tensor]:
        """The vectors of a batch; none where memory does not hold it: then batches are half as large from there on."""
        try:
            batch = torch.stack(pixels)
            # Convolutions are faster on this layout, and a ViT is as fast
            return [self.clip.encode_images(batch.contiguous(memory_format=torch.channels_last))]
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            said = first_line(error)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(pixels) == 1:
            raise UserError(
                f"memory does not hold a pass over one picture ({said}); free some of it, or use --device cpu"
            )
        if not self.halved:
            warnings.warn(
                f"memory does not hold a pass over {len(pixels)} pictures; they are encoded in smaller batches from "
                "here on",
                UserWarning,
                stacklevel=2,
            )
        self.batch, self.halved = len(pixels) // 2, True
        return []

    def write(self) -> None:
        if self.vectors:
            done, self.vectors = self.vectors, {}
            self.store.add(list(done), torch.stack(list(done.values())))
        self.store.scan()  # another run may have made some of what comes next


def _integers(values: ArrayLike | Tensor) -> NDArray[np.int64]:
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values, dtype=np.int64)


def _key(digest: bytes, view: int) -> bytes:
    return digest + bytes([view])


def _ahead(function: Callable[[Item], Result], items: Iterable[Item], window: int) -> Iterator[Result]:
    """`function` of each item, in order, computed in threads up to `window` items ahead."""
    running: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(max_workers=min(8, _cores()))
    try:
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) >= window:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def report(reasons: Sequence[str], of: int) -> None:
    """Say why some of so many pictures are skipped, in a DataWarning. Raises UserError where all are."""
    if not reasons:
        return
    if len(reasons) == of:
        raise UserError(f"no picture can be read: {few(reasons, '; ')}")
    message = f"{len(reasons)} of {of} pictures are skipped: {few(reasons, '; ')}"
    warnings.warn(message, DataWarning, stacklevel=3)
