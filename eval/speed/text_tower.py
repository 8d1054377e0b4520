"""One training step of a CLIP text tower, forward and backward, in the ways that there are, side by side in one run.

    published   as in CoOp's code: the prompts of all classes, embedded at full length, through the whole transformer
    truncated   cut behind the longest row's EOT
    shared      and the part before the class name run once

The loss is the cross-entropy of 32 random image features, the same for all ways; weights are random unless a
checkpoint is named, which changes no time. Where the published way's activations are beyond --memory, it runs its
classes in chunks of 100 one after the other, forward and backward, which is the same work; the result says so.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.towers.text import TextTower
from multimodal.towers.tokens import SLOT, Rows
from retrieval_prompts.files import check_output, write_json

WAYS = ("published", "truncated", "shared")
CHUNK = 100
IMAGES = 32
ADJECTIVES = ("red", "small", "old", "wooden", "dark", "young", "shiny", "broken", "striped")


def class_names(count: int) -> list[str]:
    """ImageNet's 1,000 names as open_clip has them; beyond these the same with an adjective before them."""
    plain = list(open_clip.IMAGENET_CLASSNAMES)
    names = plain + [f"{adjective} {name}" for adjective in ADJECTIVES for name in plain]
    if not 1 <= count <= len(names):
        raise SystemExit(f"--classes must be from 1 to {len(names)}, got {count}")
    return names[:count]


def published(tower: TextTower, rows: Rows, context: Tensor) -> Tensor:
    """CoOp's PromptLearner and TextEncoder (Zhou et al. 2022): rows -> (C, dimension)."""
    model: Any = tower.model
    length, M = tower.context_length, rows.length
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows.ids])
    words = ids.masked_fill(ids == SLOT, tower.tokens.placeholder)
    with torch.no_grad():
        embedded = model.token_embedding(words)
    prefix, suffix = embedded[:, :1], embedded[:, 1 + M :]
    x = torch.cat([prefix, context.expand(len(rows), -1, -1), suffix], dim=1) + model.positional_embedding
    x = model.transformer(x, attn_mask=model.attn_mask)
    x = model.ln_final(x)
    return x[torch.arange(len(rows)), words.argmax(dim=-1)] @ model.text_projection


class Resident:
    """Growth of the process's resident memory at its peak (Linux: /proc/self)."""

    def __enter__(self) -> Resident:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        self.before = self._read("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = self._read("VmHWM") - self.before

    @staticmethod
    def _read(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def encode_ours(tower: TextTower, way: str, rows: Rows, context: Tensor) -> Tensor:
    return tower.encode(rows, context, way=way)


@contextmanager
def saved_bytes(tower: TextTower, found: list[int]) -> Iterator[None]:
    """Count what autograd keeps for the backward pass, each storage once, the frozen weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in tower.model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
        found.append(sum(seen.values()))


class Step:
    """A step of one way: features of the classes, the loss, the gradient of the context."""

    def __init__(self, tower: TextTower, rows: Rows, context: Tensor, images: Tensor, labels: Tensor) -> None:
        self.tower, self.rows, self.context, self.images, self.labels = tower, rows, context, images, labels

    def whole(self, encode: Callable[[Rows, Tensor], Tensor], peak: list[int] | None = None) -> tuple[Tensor, Tensor]:
        context = self.context.clone().requires_grad_()

        def forward() -> tuple[Tensor, Tensor]:
            features = encode(self.rows, context)
            scores = 100 * self.images @ F.normalize(features.float(), dim=1).T
            return features, F.cross_entropy(scores, self.labels)

        if peak is None:
            features, loss = forward()
        else:
            with saved_bytes(self.tower, peak):
                features, loss = forward()
        loss.backward()
        assert context.grad is not None
        return features.detach(), context.grad

    def in_chunks(
        self, encode: Callable[[Rows, Tensor], Tensor], peak: list[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Chunk after chunk, forward and backward. The gradient of the loss with respect to the class features is
        taken from a first pass without gradients that is not timed with the others (see `main`)."""
        context = self.context.clone().requires_grad_()
        parts = []
        for start in range(0, len(self.rows), CHUNK):
            some = Rows(self.rows.ids[start : start + CHUNK], self.rows.length)
            if peak is not None and start == 0:
                with saved_bytes(self.tower, peak):
                    features = encode(some, context)
            else:
                features = encode(some, context)
            features.backward(self.outer[start : start + CHUNK])
            parts.append(features.detach())
        assert context.grad is not None
        return torch.cat(parts), context.grad

    def prepare(self, features: Tensor) -> None:
        """The gradient of the loss with respect to the class features, for `in_chunks`."""
        features = features.clone().requires_grad_()
        with torch.enable_grad():
            scores = 100 * self.images @ F.normalize(features, dim=1).T
            F.cross_entropy(scores, self.labels).backward()
        assert features.grad is not None
        self.outer = features.grad


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--context", type=int, default=16, help="context vectors, M")
    parser.add_argument("--model", default="ViT-B-32", help="an open_clip name with a fused causal text tower")
    parser.add_argument("--pretrained", help="a checkpoint file or tag  [random weights]")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of all ways but the first"
    )
    parser.add_argument(
        "--steps", type=int, default=3, help="timed steps a way, after one that is not; the median counts"
    )
    parser.add_argument("--memory", type=float, default=2.0, help="gigabytes of saved activations before chunking")
    parser.add_argument("--published-memory", type=float, default=4.0, help="the same for the published way")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args()
    if arguments.json is not None:
        check_output(arguments.json, overwrite=arguments.overwrite)

    torch.manual_seed(0)
    model = open_clip.create_model(
        arguments.model, pretrained=arguments.pretrained, load_weights=bool(arguments.pretrained)
    )
    model = model.eval().requires_grad_(False)
    tower = TextTower(model, open_clip.get_tokenizer(arguments.model), memory=arguments.memory)
    rows = tower.rows(class_names(arguments.classes), arguments.context)
    images = F.normalize(torch.randn(IMAGES, tower.dimension), dim=1)
    labels = torch.randint(arguments.classes, (IMAGES,))
    step = Step(tower, rows, 0.02 * torch.randn(arguments.context, tower.width), images, labels)

    # As the module's docstring says: about eleven widths a token and layer
    whole = (
        arguments.classes * tower.context_length * tower.layers * 11 * tower.width * 4
        <= 1e9 * arguments.published_memory
    )
    found: dict[str, dict[str, Any]] = {}
    reference: tuple[Tensor, Tensor] | None = None
    for way in arguments.ways.split(","):
        bfloat16 = arguments.precision == "bfloat16" and way != "published"
        encode = partial(published, tower) if way == "published" else partial(encode_ours, tower, way)
        run = step.whole
        if way == "published" and not whole:
            with torch.no_grad():
                step.prepare(
                    torch.cat(
                        [
                            encode(Rows(rows.ids[at : at + CHUNK], rows.length), step.context)
                            for at in range(0, len(rows), CHUNK)
                        ]
                    )
                )
            run = step.in_chunks
        peak: list[int] = []
        seconds = []
        chunk = CHUNK if way == "published" else tower.fitting(rows, way)
        chunked = chunk < len(rows) and (way != "published" or not whole)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            with Resident() as resident:
                result = run(encode, peak)
            for _ in range(arguments.steps):
                start = time.perf_counter()
                result = run(encode)
                seconds.append(time.perf_counter() - start)
        reference = reference or result
        found[way] = {
            "seconds_per_step": statistics.median(seconds),
            "seconds": [round(value, 4) for value in seconds],
            # What is recomputed in the backward pass is not seen where autograd saves, but in the resident memory
            "peak_activation_bytes": resident.bytes if chunked and way != "published" else peak[0],
            "peak_resident_bytes": resident.bytes,
            "forward_difference": difference(result[0].float(), reference[0]),
            "gradient_difference": difference(result[1], reference[1]),
            "chunks_of": chunk if chunked else None,
            "precision": "bfloat16" if bfloat16 else "float32",
        }
        row = found[way]
        print(
            f"{way:10} {row['seconds_per_step']:9.3f} s a step   {row['peak_activation_bytes'] / 1e6:9.1f} MB saved   "
            f"difference {row['forward_difference']:.1e} forward, {row['gradient_difference']:.1e} gradient"
            + (f"   (in chunks of {CHUNK} classes)" if row["chunks_of"] else ""),
            flush=True,
        )
    if "published" in found:
        for way in found:
            if way != "published":
                speed = found["published"]["seconds_per_step"] / found[way]["seconds_per_step"]
                print(f"{way}: {speed:.1f} times as fast as published")
    result_json = {
        "model": arguments.model,
        "classes": arguments.classes,
        "context": arguments.context,
        "tokens_in_the_mean": sum(map(len, rows.ids)) / len(rows) - 2 - arguments.context,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "memory_gigabytes": arguments.memory,
        "ways": found,
    }
    if arguments.json is not None:
        write_json(arguments.json, result_json)


if __name__ == "__main__":
    main()
