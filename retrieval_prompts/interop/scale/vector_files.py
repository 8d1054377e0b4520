"""Vectors in a folder of Parquet files, a file a shard: written whole or not at all, read back in order.

The folder holds
    part-000000.parquet   the columns _id (text) and vector (a list of `dimension` numbers), in the order of the shard,
                          and others of text where there are some; in its metadata the encoder, a digest of the content
                          that was encoded, and one of the columns
    _shards.json          the encoder, the kind of numbers, how many parts there are, and, once all are there, how many
                          documents each has
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from retrieval_prompts.data.corpus import Document, frame
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.files import check_seal, read_json, sealed, sweep, write_bytes, write_json

FORMAT = 1
ABOUT = "_shards.json"
KEY = b"retrieval-prompts"
NUMBERS = ("float32", "float16")
NAME = re.compile(r"part-\d{6,}\.parquet")
NOTHING: Mapping[str, Sequence[str]] = MappingProxyType({})


@dataclass(frozen=True)
class Part:
    """What is known of the vectors of a shard before they are there.

    Args:
        encoder: see `BiEncoder.identity`.
        texts: see `digest_of`.
        numbers: "float32" or "float16".
    """

    encoder: Mapping[str, Any]
    texts: str
    numbers: str

    def noted(self) -> dict[str, Any]:
        return {"format": FORMAT, "encoder": dict(self.encoder), "texts": self.texts, "numbers": self.numbers}


def name_of(number: int) -> str:
    return f"part-{number:06d}.parquet"


def digest_of(documents: Sequence[Document]) -> str:
    """A sha256 over ids, titles and texts."""
    found = hashlib.sha256()
    for document in documents:
        found.update(frame(document))
    return found.hexdigest()


def write(
    path: Path,
    part: Part,
    ids: Sequence[str],
    vectors: np.ndarray,
    *,
    beside: Mapping[str, Sequence[str]] = NOTHING,
    notes: Any = None,
) -> None:
    """Write the vectors (n, dimension) of a shard.

    Args:
        beside: further columns, of text.
        notes: what else is to be known of the shard, as JSON has it.

    Raises:
        UserError: for those that half precision cannot hold, and for an id that no text file can.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with np.errstate(over="ignore"):
        kept = np.ascontiguousarray(vectors, dtype=part.numbers)
    if not np.isfinite(kept).all():
        raise UserError(f"{path}: half precision does not hold these vectors, of up to {np.abs(vectors).max():g}")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(kept.ravel()), kept.shape[1])
    more = {name: pa.array(list(column), pa.string()) for name, column in beside.items()}
    try:
        names = pa.array(list(ids), pa.string())
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path}: the id {str(error.object)!r} is not Unicode, which files of vectors hold; rename it"
        ) from None
    table = pa.table({"_id": names, "vector": lists, **more})
    noted = part.noted() | {"sha256": _Content({}, list(ids), kept, beside).digest(), "notes": notes}
    table = table.replace_schema_metadata({KEY: json.dumps(noted).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none", use_dictionary=False, write_statistics=False)
    write_bytes(path, buffer.getvalue())


def there(path: Path, part: Part) -> int | None:
    """How many vectors a part has that was written whole of these texts by this encoder; None: it must be made."""
    try:
        found = _read(path)
    except (FileNotFoundError, UserError):
        return None
    same = {name: found.noted.get(name) for name in part.noted()} == part.noted()
    return len(found.ids) if same and found.whole() else None


def begin(folder: Path, encoder: Mapping[str, Any], numbers: str, shards: int, *, overwrite: bool) -> None:
    """Make a folder for parts, or go on with one.

    Raises:
        UserError: for one that holds other things, and, unless `overwrite`, vectors of another encoder or kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, "part-")
    about = {"format": FORMAT, "encoder": dict(encoder), "numbers": numbers, "shards": shards}
    if (folder / ABOUT).is_file():
        was = describe(folder)
        same = all(was.get(name) == about[name] for name in ("encoder", "numbers"))
        if not same and not overwrite:
            made = f"{was['encoder'].get('model')} in {was['numbers']}"
            raise UserError(
                f"{folder} holds vectors of {made} (fingerprint {str(was['encoder'].get('fingerprint'))[:12]}), which "
                "these would replace; choose another folder, or pass --overwrite"
            )
    elif others := [each.name for each in folder.iterdir() if not each.name.startswith(".")]:
        raise UserError(f"{folder} holds other things ({few(sorted(others))}); choose another folder for the vectors")
    write_json(folder / ABOUT, sealed(about))


def finish(folder: Path, counts: Mapping[str, int]) -> None:
    """Note that all parts are there, and how many documents each has; parts of an older division are removed."""
    for path in folder.iterdir():
        if NAME.fullmatch(path.name) and path.name not in counts:
            path.unlink()
    about = {**describe(folder), "parts": dict(counts), "documents": sum(counts.values())}
    write_json(folder / ABOUT, sealed(about))


def describe(folder: Path) -> dict[str, Any]:
    """What such a folder says of itself. Raises UserError."""
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict) or about.get("format") != FORMAT or not isinstance(about.get("encoder"), dict):
        raise UserError(f"{folder / ABOUT} is not of vectors in shards; choose another folder")
    check_seal(folder / ABOUT, about)
    return about


def check(folder: Path) -> bool:
    """Read every part of a folder. Raises UserError where one is not as it was written, or was never made."""
    about = describe(folder)
    if "parts" not in about:
        raise UserError(f"{folder} is not finished; the same command goes on from where it was")
    for name, count in about["parts"].items():
        _sound(folder / name, about["encoder"], count)
    return True


def contents(folder: Path) -> Iterator[tuple[dict[str, list[str]], Any]]:
    """The columns of text of each part of a finished folder, ids under "_id", and its notes. Raises UserError."""
    for name in describe(folder)["parts"]:
        yield _texts(folder / name)


class Parts:
    """The vectors of a corpus from a finished folder, in the corpus's order: `faiss_index.Rows`.

    A block is a part; memory holds one.

    Args:
        ids: those of the corpus. Repeated lines, of which a corpus keeps the first, are passed over.

    Raises:
        UserError: where the parts are not of these documents, or damaged.
    """

    def __init__(self, folder: Path, ids: Sequence[str]) -> None:
        self.folder, self.about = folder, describe(folder)
        self.names = list(self.about["parts"])
        self.chosen: list[np.ndarray] = []  # of each part the rows that are the corpus's
        self.digests: list[str] = []  # of each part's ids and vectors
        at, seen = 0, set[str]()
        for name in self.names:
            rows, (digest, names) = [], _ids(folder / name)
            self.digests.append(digest)
            for row, id in enumerate(names):
                if at < len(ids) and id == ids[at]:
                    rows.append(row)
                    at += 1
                elif id not in (seen := seen or set(ids)):
                    raise UserError(f"{folder / name} has the document {id!r}, which the corpus has not; encode again")
            self.chosen.append(np.array(rows, dtype=np.int64))
        if at < len(ids):
            raise UserError(f"{folder} has {at:,} of {len(ids):,} documents, in order; encode again")
        self.starts = np.cumsum([0, *map(len, self.chosen)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.block(number) for number in range(len(self.names)))

    @property
    def dimension(self) -> int:
        import pyarrow.parquet as pq

        return int(pq.read_schema(self.folder / self.names[0]).field("vector").type.list_size)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """The vectors (n, dimension) at these positions; each part that has some is read once."""
        owners = np.searchsorted(self.starts, positions, side="right") - 1
        result: np.ndarray | None = None
        for owner in np.unique(owners):
            block, mine = self.block(int(owner)), owners == owner
            if result is None:
                result = np.empty((len(positions), block.shape[1]), dtype=np.float32)
            result[mine] = block[positions[mine] - self.starts[owner]]
        return np.empty((0, 0), dtype=np.float32) if result is None else result

    def block(self, number: int) -> np.ndarray:
        """The vectors (n, dimension) of a part that are the corpus's."""
        return np.asarray(self._kept(number)[self.chosen[number]], dtype=np.float32)

    def _kept(self, number: int) -> np.ndarray:
        name = self.names[number]
        return _sound(self.folder / name, self.about["encoder"], self.about["parts"][name])


@dataclass(frozen=True)
class Stretch:
    """The rows of a part that are a corpus's, as they go to a worker.

    Args:
        digest: of the part's ids and vectors.
        count: of its rows, without those in `left`.
        start: the position of the first in the corpus.
        left: rows that the corpus has not.
    """

    name: str
    digest: str
    count: int
    start: int
    left: list[int]

    @classmethod
    def of(cls, parts: Parts, number: int) -> Stretch:
        rows, total = parts.chosen[number], parts.about["parts"][parts.names[number]]
        left = np.setdiff1d(np.arange(total), rows).tolist()
        return cls(parts.names[number], parts.digests[number], len(rows), int(parts.starts[number]), left)

    def read(self, folder: Path, encoder: Mapping[str, Any]) -> tuple[list[str], np.ndarray]:
        """The ids, and the vectors (count, dimension). Raises UserError where the part is another."""
        path = folder / self.name
        found = _whole(path)
        if found.noted.get("encoder") != encoder or found.noted["sha256"] != self.digest:
            raise UserError(f"{path} is not as it was written; encode again: only it will be made")
        rows = np.delete(np.arange(len(found.ids)), self.left)
        return [found.ids[row] for row in rows], np.asarray(found.kept[rows], dtype=np.float32)


@dataclass(frozen=True)
class _Content:
    """What a part holds: what is noted, ids, vectors as they are kept, further columns."""

    noted: Mapping[str, Any]
    ids: list[str]
    kept: np.ndarray
    beside: Mapping[str, Sequence[str]]

    def digest(self) -> str:
        about: list[Any] = [self.ids, list(self.kept.shape), str(self.kept.dtype)]
        about += [{name: list(column) for name, column in self.beside.items()}] if self.beside else []
        found = hashlib.sha256(json.dumps(about).encode())
        found.update(np.ascontiguousarray(self.kept).data)
        return found.hexdigest()

    def whole(self) -> bool:
        """Whether it is what was written."""
        return self.noted.get("sha256") == self.digest()


def _sound(path: Path, encoder: Mapping[str, Any], count: int) -> np.ndarray:
    """The vectors of a part that is as it was written. Raises UserError."""
    found = _whole(path)
    if found.noted.get("encoder") != encoder or len(found.ids) != count:
        raise UserError(f"{path} is not as it was written; encode again: only it will be made")
    return found.kept


def _whole(path: Path) -> _Content:
    """As `_read`. Raises UserError for a part that is gone, or is not as its digest says."""
    try:
        found = _read(path)
    except FileNotFoundError:
        raise UserError(f"{path} is gone; encode again: only it will be made") from None
    if not found.whole():
        raise UserError(f"{path} is not as it was written; encode again: only it will be made")
    return found


def _ids(path: Path) -> tuple[str, list[str]]:
    """The digest that a part says it has, and its ids. Raises UserError."""
    with _readable(path):
        table = _table(path, ["_id"])
        return str(_noted(table)["sha256"]), table.column("_id").to_pylist()


def _texts(path: Path) -> tuple[dict[str, list[str]], Any]:
    """The columns of a part but the vectors, and its notes. Raises UserError."""
    import pyarrow.parquet as pq

    with _readable(path):
        table = _table(path, [name for name in pq.read_schema(path).names if name != "vector"])
        return {name: table.column(name).to_pylist() for name in table.column_names}, _noted(table).get("notes")


def _read(path: Path) -> _Content:
    """What a part holds.

    Raises:
        FileNotFoundError.
        UserError: for what is no such file.
    """
    content = path.read_bytes()
    with _readable(path):
        table = _table(io.BytesIO(content))
        lists = table.column("vector").combine_chunks()
        kept = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(table), lists.type.list_size)
        more = [name for name in table.column_names if name not in ("_id", "vector")]
        beside = {name: table.column(name).to_pylist() for name in more}
        return _Content(_noted(table), table.column("_id").to_pylist(), kept, beside)


def _table(source: Any, columns: list[str] | None = None) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(source, columns=columns)


def _noted(table: Any) -> dict[str, Any]:
    return dict(json.loads(table.schema.metadata[KEY]))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What is wrong with a part as a UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} is gone; encode again: only it will be made") from None
    except Exception as error:  # what a damaged file makes of Arrow is anybody's guess
        raise UserError(f"{path} is damaged; encode again: only it will be made ({type(error).__name__})") from None
