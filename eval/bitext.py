"""Sentences and their translations, from the message catalogues of Python packages, as BEIR folders: one each way.

    pip download --no-deps django==5.2.19 wagtail==8.0.1 django-oscar==4.2.1    # BSD-3-Clause, all three
    python eval/bitext.py django-*.whl wagtail-*.whl django_oscar-*.whl --language de --out FOLDER

`FOLDER/en-de` asks with an English sentence for the German one, `FOLDER/de-en` the other way. A message is taken with
at least three words on both sides and without placeholders or markup, which would give its translation away; of two
with the same words on one side the first. A fifth of the pairs is the test split, a tenth dev, the others train; the
split goes by the hash of the English sentence, so that it is the same in all languages.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from babel.messages.pofile import read_po

from retrieval_prompts.data.judgements import write_qrels
from retrieval_prompts.files import write_bytes

WORDS = 3  # of a sentence, at least
ODD = re.compile(r"[%{}<>\n|]")  # placeholders and markup
SPLITS = {"test": range(20), "dev": range(20, 30), "train": range(30, 100)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, nargs="+", help="wheels with catalogues in them")
    parser.add_argument("--language", required=True, help="as in the folders of the catalogues: de, fr, pt_BR")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    for wheel in options.wheels:
        if not zipfile.is_zipfile(wheel):
            parser.error(f"{wheel} is not a wheel; see --help for where to get them")
    ways = [options.out / way for way in (f"en-{options.language}", f"{options.language}-en")]
    if there := [str(way) for way in ways if way.exists()]:
        parser.error(f"{' and '.join(there)} exist already; choose another --out")
    pairs = kept(pair for wheel in options.wheels for pair in messages(wheel, options.language))
    write(ways[0], pairs)
    write(ways[1], [(own, english) for english, own in pairs], asked=1)
    print(f"{len(pairs):,} pairs of English and {options.language}")


def messages(wheel: Path, language: str) -> Iterator[tuple[str, str]]:
    """(English, translation) in the order of the wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(f"/{language}/LC_MESSAGES/django.po"):
                with archive.open(name) as file, redirect_stdout(io.StringIO()):  # it tells of odd lines
                    catalogue = read_po(file)
                for message in catalogue:
                    if isinstance(message.id, str) and not message.fuzzy:
                        yield message.id.strip(), str(message.string).strip()


def kept(pairs: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    seen: tuple[set[str], set[str]] = (set(), set())
    for pair in pairs:
        folded = [text.casefold() for text in pair]
        if any(len(text.split()) < WORDS or ODD.search(text) for text in pair) or folded[0] == folded[1]:
            continue
        if not any(text in known for text, known in zip(folded, seen, strict=True)):
            found.append(pair)
            for text, known in zip(folded, seen, strict=True):
                known.add(text)
    return found


def write(folder: Path, pairs: Sequence[tuple[str, str]], asked: int = 0) -> None:
    """A BEIR folder of (query, document). `asked`: which of a pair is English."""
    splits: dict[str, dict[str, dict[str, int]]] = {name: {} for name in SPLITS}
    for number, pair in enumerate(pairs):
        place = int.from_bytes(hashlib.sha256(pair[asked].encode()).digest()[:4], "big") % 100
        name = next(name for name, places in SPLITS.items() if place in places)
        splits[name][f"q{number}"] = {f"d{number}": 1}
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    queries = [{"_id": f"q{number}", "text": query} for number, (query, _) in enumerate(pairs)]
    documents = [{"_id": f"d{number}", "title": "", "text": text} for number, (_, text) in enumerate(pairs)]
    for name, rows in (("queries", queries), ("corpus", documents)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_bytes(folder / f"{name}.jsonl", lines.encode())
    for name, judged in splits.items():
        write_qrels(folder / "qrels" / f"{name}.tsv", judged)


if __name__ == "__main__":
    main()
