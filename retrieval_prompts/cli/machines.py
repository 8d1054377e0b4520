"""Options on where a corpus is encoded, in this process or by workers on many machines, and how these do it."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import parameter_of, replaced
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.data.corpus import Corpus
    from retrieval_prompts.interop.scale.parts_run import Encoded
    from retrieval_prompts.interop.scale.shards import Shard
    from retrieval_prompts.interop.scale.vector_files import Parts
    from retrieval_prompts.interop.stores.filling import Written
    from retrieval_prompts.vectors.index import Index

PANEL = "Many machines"


def _option(kind: Any, name: str, help: str, **more: Any) -> Any:
    return Annotated[kind | None, typer.Option(name, help=help, rich_help_panel=PANEL, **more)]


NAMED: dict[str, Any] = {
    "engine": _option(str, "--engine", "ray: a pool of workers encodes, on this machine or a cluster"),
    "address": _option(str, "--address", "of a cluster: auto, HOST:6379, ray://HOST:10001  [default: this machine]"),
    "workers": _option(int, "--workers", "how many encode, a thread each  [default: one a GPU, else one a CPU]", min=1),
    "vectors": _option(
        Path, "--vectors", "the folder of their vectors, in Parquet; found ones stay  [default: OUT.vectors]"
    ),
    "half": _option(bool, "--half", "vectors in half precision: half the bytes"),
}


@dataclass(frozen=True)
class Machines:
    """What the options say: see `NAMED`."""

    engine: str | None = None
    address: str | None = None
    workers: int | None = None
    vectors: Path | None = None
    half: bool | None = None

    def wanted(self) -> bool:
        """Whether workers encode. Raises UserError for options that do not go together."""
        if self.engine not in (None, "ray"):
            raise UserError(f"--engine must be ray, or left out, got {self.engine!r}")
        given = [name for name in list(NAMED)[1:] if getattr(self, name)]
        if given and self.engine is None:
            raise UserError(f"--{given[0]} belongs to --engine ray; pass both")
        return self.engine == "ray"

    def place(self, out: Path | None, device: str | None, overwrite: bool) -> Place:
        """Where workers put vectors by these; the folder is held until the command ends. Raises UserError."""
        from retrieval_prompts.interop.scale import pool

        pool.check_installed()
        folder = self.vectors
        if folder is None and out is not None:
            folder = out.with_name(f"{out.name}.vectors")
        if folder is None:
            raise UserError("pass --out, the index folder to write, or --vectors, a folder for the vectors of workers")
        if out is not None and folder.absolute() == out.absolute():
            raise UserError(f"--vectors and --out are both {out}; give each a folder of its own")
        console.lock(folder)
        wanted = pool.Wanted(self.workers, self.address, device)
        return Place(folder, {"half": bool(self.half), "overwrite": overwrite, "wanted": wanted})


@dataclass(frozen=True)
class Place:
    """A folder of vectors, and workers that fill it.

    Args:
        run: of `parts_run.encode`.
    """

    folder: Path
    run: dict[str, Any]

    @property
    def numbers(self) -> str:
        return "half precision" if self.run["half"] else "float32"

    def started(self) -> AbstractContextManager[Any]:
        """The workers; what encodes or adds to an index in the block uses them."""
        from retrieval_prompts.interop.scale import pool

        return pool.started(self.run["wanted"])

    def building(self, parts: Parts) -> AbstractContextManager[Callable[..., dict[str, Any]]]:
        """What writes an index of the parts: see `merged.building`."""
        from retrieval_prompts.interop.scale import merged

        return merged.building(parts, self.run["wanted"])

    def merged(self, built: Index) -> str:
        """What is to be said of an index that was built so."""
        build = built.manifest["build"]
        return f"; {build['shards']:,} shards merged on disk, {build['made']:,} made now" if "shards" in build else ""

    def said(self, done: Encoded) -> str:
        """What was encoded."""
        by = f"{done.workers:,} {'GPUs' if done.gpus else 'workers'}"
        kept = f"{done.shards - done.made:,} of {done.shards:,} shards were there"
        return f"{done.encoded:,} encoded now by {by}, {kept}"


@dataclass(frozen=True)
class Encoder:
    """Workers that encode documents.

    Args:
        options: of `BiEncoder.load`.
    """

    place: Place
    prompts: Path | None
    options: dict[str, Any]

    def of_corpus(self, biencoder: BiEncoder, corpus: Corpus) -> tuple[Parts, str]:
        """The vectors of a corpus, and what was done for them."""
        from retrieval_prompts.interop.scale import shards

        return self._of_shards(biencoder, corpus, shards.of_corpus(corpus.path))

    def to_store(self, biencoder: BiEncoder, corpus: Corpus, to: str) -> tuple[Written, str]:
        """What became of a corpus on its way into a store, and what was encoded for it."""
        from retrieval_prompts.interop.scale import shards, stored

        found = shards.of_corpus(corpus.path)
        parts, said = self._of_shards(biencoder, corpus, found)
        run = {name: self.place.run[name] for name in ("overwrite", "wanted")}
        return stored.write(parts, found, corpus, to, **run), said

    def _of_shards(self, biencoder: BiEncoder, corpus: Corpus, found: list[Shard]) -> tuple[Parts, str]:
        from retrieval_prompts.interop.scale.vector_files import Parts

        done = self._encode(biencoder, found)
        return Parts(self.place.folder, corpus.ids), f"{self.place.said(done)}, in {self.place.folder}"

    def alone(self, biencoder: BiEncoder, data: Path) -> None:
        """Encode a folder's or a file's documents where they are, and say what was done."""
        from retrieval_prompts.interop.scale import shards

        done = self._encode(biencoder, shards.of_files(data))
        if done.empty:
            console.warn(f"{data}: {done.empty:,} of {done.documents:,} documents have neither title nor text")
        folder = self.place.folder
        console.say(f"{folder}: {done.documents:,} documents in {self.place.numbers}; {self.place.said(done)}")
        if biencoder.identity()["document_prompt"] is None:
            name, texts = shlex.quote(str(folder)), shlex.quote(str(data))
            if not any((data / f"corpus.jsonl{end}").is_file() for end in ("", ".gz")):
                console.say(f"next: retrieval-prompts corpus {texts} --out DATA")
                texts = "DATA"
            console.say(f"next: retrieval-prompts adopt {name} --texts {texts} --out INDEX")

    def _encode(self, biencoder: BiEncoder, found: list[Shard]) -> Encoded:
        from retrieval_prompts.interop.scale.sharded import encode_shards, portable

        load = portable(biencoder.tower.name, self.prompts, **self.options)
        return encode_shards(biencoder, load, found, self.place.folder, **self.place.run)


IN_PROCESS = Machines()  # the default of a command's parameter: nothing was given


def with_machines(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command these options in place of its parameter `machines`, which gets them."""

    @functools.wraps(command)
    def run(*arguments: Any, **values: Any) -> None:
        given = Machines(**{name: values.pop(name, None) for name in NAMED})
        command(*arguments, **values, machines=given)

    return replaced(command, run, "machines", [parameter_of(name, kind) for name, kind in NAMED.items()])
