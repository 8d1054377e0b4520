"""Files of text as people write them, and chunks of them: places worked out by hand, tokens that are words."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from retrieval_prompts.data.beir_folder import load, load_corpus
from retrieval_prompts.data.sources import prose
from retrieval_prompts.data.sources.chunks import Chunk, Chunking, cut
from retrieval_prompts.data.sources.documents import Columns, read_documents
from retrieval_prompts.data.sources.left_out import LeftOut
from retrieval_prompts.data.sources.making import Sources, make
from retrieval_prompts.data.sources.prose import Part, Prose, read_prose
from retrieval_prompts.errors import MissingPackage, UserError

MARKDOWN = """---
title: "Returns"
---
# Returns policy

You may [return](http://x.y) *anything*
within a month.

## Money

| how | when |
|-----|------|
| card | soon |

- first
- second

```
code()
```
"""
PAGE = """<html><head><title>Parking</title></head><body><nav>Home About Contact</nav>
<article><h1>Parking</h1><p>You may park behind the building. It is free on Sundays.</p></article>
<footer>All rights reserved</footer><script>var x = 1</script></body></html>"""


def counted(size: int, overlap: int = 0, special: int = 0) -> Chunking:
    """Chunks in words."""
    return Chunking(size, overlap, lambda texts: [len(text.split()) for text in texts], special)


def test_markdown_loses_its_marks_and_keeps_its_headings(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(MARKDOWN)
    prose = read_prose(tmp_path / "a.md")
    assert prose.title == "Returns"
    assert [(part.text, part.place, part.heading) for part in prose.parts] == [
        ("Returns policy", "Returns policy", True),
        ("You may return anything within a month.", "Returns policy", False),
        ("Money", "Returns policy > Money", True),
        ("how | when", "Returns policy > Money", False),
        ("card | soon", "Returns policy > Money", False),
        ("first", "Returns policy > Money", False),
        ("second", "Returns policy > Money", False),
        ("code()", "Returns policy > Money", False),
    ]


def test_a_page_is_read_without_its_menu_and_footer(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE)
    prose = read_prose(tmp_path / "a.html")
    assert prose.title == "Parking"
    assert prose.text == "You may park behind the building. It is free on Sundays."


def test_word_files_have_headings_and_tables(tmp_path: Path) -> None:
    import docx

    document = docx.Document()
    document.add_heading("Travel", 1)
    document.add_paragraph("Trains first.")
    row = document.add_table(1, 2).rows[0]
    row.cells[0].text, row.cells[1].text = "Paris", "3 h"
    document.save(str(tmp_path / "a.docx"))
    prose = read_prose(tmp_path / "a.docx")
    assert prose.title == "Travel"
    assert [(part.text, part.place) for part in prose.parts] == [("Trains first.", "Travel"), ("Paris | 3 h", "Travel")]


def pdf(path: Path, *pages: str) -> None:
    import fpdf

    document = fpdf.FPDF()
    document.set_font("helvetica", size=12)
    for page in pages:
        document.add_page()
        document.multi_cell(0, 8, page)
    document.output(str(path))


def test_pages_of_a_pdf_are_places_and_the_file_names_it(tmp_path: Path) -> None:
    pdf(tmp_path / "year_report.pdf", "We grew.", "We will grow.")
    prose = read_prose(tmp_path / "year_report.pdf")
    assert prose.title == "year report"
    assert [(part.text, part.place) for part in prose.parts] == [("We grew.", "page 1"), ("We will grow.", "page 2")]


def test_plain_text_in_an_old_encoding_is_read_and_a_broken_file_is_said(tmp_path: Path) -> None:
    text = "Überall hört man größere Töne, und jeder möchte über die Straße gehen.\n\nZweiter Absatz."
    (tmp_path / "alt.txt").write_bytes(text.encode("cp1252"))
    assert read_prose(tmp_path / "alt.txt").parts[0].text == text.split("\n")[0]
    (tmp_path / "a.pdf").write_bytes(b"no pdf")
    with pytest.raises(UserError, match=r"a\.pdf cannot be read"):
        read_prose(tmp_path / "a.pdf")


def test_chunks_end_with_sentences_and_overlap_by_whole_ones() -> None:
    parts = [Part("One two three. Four five six. Seven eight nine. Ten."), Part("Eleven twelve.")]
    assert [chunk.text for chunk in cut("", parts, counted(6))] == [
        "One two three. Four five six.",
        "Seven eight nine. Ten.\nEleven twelve.",
    ]
    assert [chunk.text for chunk in cut("", parts, counted(7, overlap=3))] == [
        "One two three. Four five six.",
        "Four five six. Seven eight nine. Ten.",
        "Ten.\nEleven twelve.",
    ]
    assert [chunk.text for chunk in cut("a title of five words", parts, counted(100))] == [
        "One two three. Four five six. Seven eight nine. Ten.\nEleven twelve."
    ]


def test_a_heading_begins_a_chunk_that_is_half_full_and_short_sections_stay_together() -> None:
    parts = [
        Part("A", "A", heading=True),
        Part(" ".join(["word"] * 12), "A"),
        Part("B", "B", heading=True),
        Part("short", "B"),
        Part("C", "C", heading=True),
        Part("short", "C"),
    ]
    assert cut("", parts, counted(24)) == [
        Chunk("A\n" + " ".join(["word"] * 12), "A"),
        Chunk("B\nshort\nC\nshort", "B"),
    ]


def test_a_sentence_that_is_longer_than_a_chunk_is_cut_between_words() -> None:
    words = [f"w{number}" for number in range(50)]
    chunks = cut("", [Part(" ".join(words))], counted(20))
    assert all(len(chunk.text.split()) <= 20 for chunk in chunks)
    assert " ".join(chunk.text for chunk in chunks).split() == words


def test_a_folder_of_files_becomes_chunks_that_know_their_document(tmp_path: Path) -> None:
    folder = tmp_path / "handbook"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "a.md").write_text(f"# A\n\n{'Word. ' * 30}")
    (folder / "sub dir" / "b.txt").write_text("Short.")
    (folder / "empty.txt").write_text(" \n")
    (folder / "c.jpg").write_bytes(b"")
    (tmp_path / "pairs.csv").write_text("query,id\nhow,a.md\n")
    sources = Sources((str(folder),), judgements=(str(tmp_path / "pairs.csv"),))
    made = make(tmp_path / "data", sources, counted(20))
    data = load(tmp_path / "data")
    assert data.corpus.ids == ["a.md#1", "a.md#2", "sub%20dir/b.txt"]
    assert data.qrels["train"]["q1"] == {"a.md#1": 1}  # which stands for a.md
    assert data.corpus.first_of == {"a.md#2": "a.md#1", "a.md": "a.md#1"}
    assert (made.documents, made.chunks) == (2, 3)
    assert (tmp_path / "data" / "qrels" / "train.tsv").read_text().splitlines()[1] == "q1\ta.md\t1"
    assert sorted(made.left_out) == [
        f"files of other kinds: 1 ({folder / 'c.jpg'})",
        f"files without text: 1 ({folder / 'empty.txt'})",
    ]
    whole = make(tmp_path / "whole", sources)
    assert (whole.documents, whole.chunks) == (2, 0)
    assert load_corpus(tmp_path / "whole").ids == ["a.md", "sub%20dir/b.txt"]


def test_a_file_that_cannot_be_read_is_left_out_and_a_missing_package_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("a text")
    (tmp_path / "b.md").write_text("b text")

    def broken(path: Path) -> Prose:
        raise ValueError("odd; pip install something")

    monkeypatch.setitem(prose.PROSE, ".md", broken)
    left = LeftOut()
    assert [each.id for each in read_documents([str(tmp_path)], Columns(), None, left).entries] == ["a.txt"]
    assert left.counts == {"files that could not be read: cannot be read (odd; pip install something)": 1}
    monkeypatch.setitem(prose.PROSE, ".md", lambda path: prose._library("no_such_package"))
    with pytest.raises(MissingPackage, match="no_such_package is missing: pip install"):
        list(read_documents([str(tmp_path)], Columns(), None, left).entries)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are UTF-8")
def test_names_of_files_that_are_no_utf_8_are_written_with_escapes(tmp_path: Path) -> None:
    place = Path(os.fsdecode(bytes(tmp_path / "caf") + b"\xe9"))
    place.mkdir()
    for name in ("a.md", os.fsdecode(b"caf\xe9.txt")):
        (place / name).write_text("a text")
    make(tmp_path / "data", Sources((str(place),)))
    a, b = load_corpus(tmp_path / "data")
    assert (a.source, b.title) == (f"{tmp_path}/caf\\udce9/a.md", "caf\\udce9")
    assert json.loads((tmp_path / "data" / "sources.json").read_bytes())["sources"] == {"documents": [str(place)]}
