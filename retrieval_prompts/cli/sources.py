"""Options on what people have, and the data folder that it is read as: a BEIR folder itself, or one that is made."""

from __future__ import annotations

import functools
import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts.cli.options import parameter_of, replaced
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.data.sources.chunks import Chunking
    from retrieval_prompts.data.sources.making import Made, Sources

PANEL = "What is read"
QUERIES = "queries: a table (id and text, or text alone), lines of text, TREC topics, ir_datasets:NAME"
JUDGEMENTS = (
    "what is relevant: pairs (query, document), a click log (query, id, clicks), triples with negatives, qrels, "
    "ir_datasets:NAME; files named train, dev, test are these splits"
)


def _option(kind: Any, name: str, help: str) -> Any:
    return Annotated[kind | None, typer.Option(name, help=help, rich_help_panel=PANEL)]


NAMED: dict[str, Any] = {
    "queries": _option(list[str], "--queries", QUERIES),
    "judgements": _option(list[str], "--judgements", JUDGEMENTS),
    "id_column": _option(str, "--id", "column of documents' ids  [default: guessed, and said]"),
    "title_column": _option(str, "--title", "column of their titles"),
    "text_columns": _option(list[str], "--text", "column of their texts; several are joined"),
    "columns": _option(
        str,
        "--columns",
        "of queries and judgements, as in query=frage,id=artikel,clicks=n; also query-id, document, negative, grade",
    ),
    "chunk": _option(
        int,
        "--chunk",
        "cut texts into chunks of this many of the model's tokens; 0: do not cut  [default: files at the model's "
        "length, tables not]",
    ),
    "overlap": _option(int, "--overlap", "tokens that a chunk has of the one before  [default: an eighth]"),
    "duplicates": _option(
        str, "--duplicates", "documents that are left out: exact, near (MinHash) or none: keep  [default: keep]"
    ),
}
Documents = Annotated[
    list[str] | None,
    typer.Option(
        "--documents",
        help="in place of DATA: files, folders, globs, ir_datasets:NAME; see `corpus`",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class Reading:
    """What the options say: see `NAMED`."""

    queries: list[str] | None = None
    judgements: list[str] | None = None
    id_column: str | None = None
    title_column: str | None = None
    text_columns: list[str] | None = None
    columns: str | None = None
    chunk: int | None = None
    overlap: int | None = None
    duplicates: str | None = None

    def sources(self, documents: list[str], **shares: Any) -> Sources:
        """Raises UserError for options that do not go together."""
        from retrieval_prompts.data.sources.division import Shares
        from retrieval_prompts.data.sources.documents import Columns
        from retrieval_prompts.data.sources.making import Sources

        return Sources(
            documents=tuple(documents),
            queries=tuple(self.queries or ()),
            judgements=tuple(self.judgements or ()),
            columns=Columns(self.id_column, self.title_column, tuple(self.text_columns or ())),
            judged=_pairs(self.columns),
            duplicates=self.duplicates or "keep",
            shares=Shares(**shares),
            cut_tables=bool(self.chunk),
        )

    def chunking(self, sources: Sources, load: Callable[[], Any]) -> Chunking | None:
        """How texts are cut. `load` gives the model, which is loaded where it counts tokens.

        Raises:
            UserError: for a size or an overlap that cannot be.
        """
        from retrieval_prompts.data.sources.documents import has_prose

        if self.chunk is not None and self.chunk != 0 and self.chunk < 32:
            raise UserError(f"--chunk must be at least 32 tokens, or 0 for whole texts, got {self.chunk}")
        wanted = self.chunk if self.chunk is not None else has_prose(sources.documents)
        if not wanted:
            if self.overlap is not None:
                raise UserError("--overlap applies to chunks; pass --chunk as well")
            return None
        from retrieval_prompts.towers.chunking import chunking_for

        return chunking_for(load(), self.chunk, self.overlap)


AS_IT_IS = Reading()  # the default of a command's parameter: nothing was given


def with_sources(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options on sources in place of its parameter `reading`, which gets them."""

    @functools.wraps(command)
    def run(*arguments: Any, **values: Any) -> None:
        given = Reading(**{name: values.pop(name, None) for name in NAMED})
        command(*arguments, **values, reading=given)

    return replaced(command, run, "reading", [parameter_of(name, kind) for name, kind in NAMED.items()])


def loader(model: str | None, prompts: Path | None = None, **options: Any) -> Callable[[], BiEncoder]:
    """Loads a bi-encoder when it is first asked for (see `BiEncoder.load`): to count tokens, or to encode."""

    @functools.cache
    def load() -> BiEncoder:
        from retrieval_prompts.biencoder import BiEncoder

        return BiEncoder.load(model, prompts, **options)

    return load


def data_folder(
    data: Path | None,
    documents: list[str] | None,
    reading: Reading,
    load: Callable[[], BiEncoder],
    say: Callable[[str], Any],
    cache: Path | None,
) -> Path:
    """The folder that a command reads: DATA itself where it is a BEIR folder and nothing else is asked for; else one
    that is made of the sources, once, in the cache. Raises UserError."""
    from retrieval_prompts.data.sources.at_hand import at_hand
    from retrieval_prompts.files import default_cache

    if (data is None) == (not documents) and not (data is None and reading.judgements):
        raise UserError("name what to read: a BEIR folder, a folder of files or a table, or --documents")
    if data is not None and reading == AS_IT_IS and _is_beir(data):
        return data
    sources = reading.sources([str(data)] if data is not None else documents or [])
    folder, made = at_hand(sources, reading.chunking(sources, lambda: load().tower), cache or default_cache())
    tell(made, say)
    return folder


def tell(made: Made, say: Callable[[str], Any]) -> None:
    """How sources were understood, and what was left out of them."""
    for line in made.said:
        say(line)
    for line in made.left_out:
        say(f"left out or changed: {line}")


def _is_beir(data: Path) -> bool:
    """Whether a path is what only a BEIR folder can be: one with a corpus or qrels, or nothing that can be read."""
    from retrieval_prompts.data.sources.opened import is_named

    if is_named(data):
        return False
    if not data.exists():
        return not glob.has_magic(str(data))
    return any((data / name).exists() for name in ("corpus.jsonl", "corpus.jsonl.gz", "qrels"))


def _pairs(columns: str | None) -> Mapping[str, str]:
    """query=a,id=b as a dictionary. Raises UserError."""
    roles = ("query-id", "query", "id", "document", "negative", "grade", "clicks")
    found = {}
    for pair in filter(None, (columns or "").split(",")):
        role, equals, name = (part.strip() for part in pair.partition("="))
        if role not in roles or not equals or not name:
            raise UserError(f"--columns: expected ROLE=COLUMN with commas between, of {', '.join(roles)}, got {pair!r}")
        found[role] = name
    return found
