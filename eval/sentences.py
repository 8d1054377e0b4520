"""Make one BEIR folder of sentences from several BEIR folders: a corpus large enough to compare compressed indexes on.

    python eval/sentences.py DATA/scifact DATA/cranfield DATA/conala --out DATA/sentences

A sentence is a document, with the id "<data set>/<document>-<n>", and so is a title (n = 0). Texts without full stops
are cut into pieces of about as many words. Every sentence of a relevant document is relevant, with its grade, which is
coarse: nDCG on such data compares systems, it does not say how good one is. Splits and queries are kept, their ids
prefixed. Knows no model.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.data.judgements import QRELS_HEADER
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import Kind, new_folder

WORDS = 40  # the most words of a sentence; a longer one is cut
FOLDER = Kind(("corpus.jsonl", "queries.jsonl"), ("qrels/*.tsv",))
PIECE = 12  # words of a piece of a text that has no sentences
# A full stop, question or exclamation mark (closing quotes and brackets may follow), white space, and no lower case
# letter: "e.g. this" is no end. Where a text has spaces around its full stops, any letter may follow.
END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[^a-z\s])|(?<=\s[.!?])\s+")


def sentences(text: str, *, words: int = WORDS, piece: int = PIECE) -> list[str]:
    """The sentences of a text, in order; together they hold all its words.

    A line break ends a sentence too (code). One of over `words` words is cut into equal parts; a text whose parts
    are all that long has no sentences to speak of, and is cut into parts of about `piece` words.
    """
    parts = [part for line in text.splitlines() for part in END.split(line) if part.strip(" .!?\t")]
    size = piece if parts and min(len(part.split()) for part in parts) > words else words
    return [short for part in parts for short in _cut(part.split(), size)]


def _cut(words: list[str], size: int) -> Iterator[str]:
    """Equal parts of at most `size` words."""
    count = -(-len(words) // size)
    for number in range(count):
        yield " ".join(words[len(words) * number // count : len(words) * (number + 1) // count])


def units(document: Document) -> list[str]:
    """The title, if there is one, and the sentences of a document; at least one, so that no document is lost."""
    title = [" ".join(document.title.split())] if document.title.strip() else []
    return [*title, *sentences(document.text)] or [document.text]


def make(sources: Iterable[Path], out: Path, *, overwrite: bool = False) -> dict[str, int]:
    """Write the folder; returns data set -> sentences. Raises UserError for two sources of one name."""
    counts: dict[str, int] = {}
    qrels: dict[str, list[str]] = {}
    with new_folder(out, holds=FOLDER, overwrite=overwrite) as new:
        with (
            (new / "corpus.jsonl").open("w", encoding="utf-8") as corpus,
            (new / "queries.jsonl").open("w", encoding="utf-8") as queries,
        ):
            for source in sources:
                dataset = load(source)
                name = dataset.name
                if name in counts:
                    raise UserError(f"two data sets are called {name}; rename one of the folders")
                ids: dict[str, list[str]] = {}
                for document in dataset.corpus:
                    parts = units(document)
                    ids[document.id] = [f"{name}/{document.id}-{number}" for number in range(len(parts))]
                    for id, text in zip(ids[document.id], parts, strict=True):
                        corpus.write(_line({"_id": id, "title": "", "text": text}))
                for query, text in dataset.queries.items():
                    queries.write(_line({"_id": f"{name}/{query}", "text": text}))
                for split, judged in dataset.qrels.items():
                    qrels.setdefault(split, []).extend(
                        f"{name}/{query}\t{id}\t{grade}\n"
                        for query, grades in judged.items()
                        for document_id, grade in grades.items()
                        for id in ids[document_id]
                    )
                counts[name] = sum(map(len, ids.values()))
        (new / "qrels").mkdir()
        for split, rows in qrels.items():
            content = "\t".join(QRELS_HEADER) + "\n" + "".join(rows)
            (new / "qrels" / f"{split}.tsv").write_text(content, encoding="utf-8")
    return counts


def _line(row: dict[str, str]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="BEIR folders")
    parser.add_argument("--out", type=Path, required=True, help="the BEIR folder to write")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    try:
        counts = make(options.data, options.out, overwrite=options.overwrite)
    except UserError as error:
        sys.exit(f"error: {error}")
    for name, count in counts.items():
        print(f"{name}: {count:,} sentences")
    print(f"{options.out}: {sum(counts.values()):,} sentences")


if __name__ == "__main__":
    main()
