"""Files of text (plain, Markdown, HTML, PDF, Word) -> a title and parts in order, each with its place.

The libraries are those of the extra `files`: markdown-it-py, trafilatura, pypdf, python-docx.
"""

from __future__ import annotations

import importlib
import io
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_prompts.errors import MissingPackage, UserError, encodable, first_line

FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
TITLE_LINE = re.compile(r"^title\s*:\s*[\"']?(.*?)[\"']?\s*$", re.MULTILINE)
BESIDE = "//nav | //footer | //aside | //*[@role='navigation'] | //script | //style"  # of a page, beside its text
FILE_NAME = re.compile(r"\.(docx?|pdf|txt|html?|md|tex|dvi|indd)$|^(untitled|microsoft word)", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """A paragraph, a heading, an item of a list, a row of a table, or a page.

    Args:
        place: the headings above it, or its page.
    """

    text: str
    place: str = ""
    heading: bool = False


@dataclass(frozen=True)
class Prose:
    title: str
    parts: list[Part]

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.parts)


def read_prose(path: Path) -> Prose:
    """Read a file by the ending of its name, one of `PROSE`. The title is its own, else the name of the file.

    Raises:
        UserError: for what its library cannot read (with the reason), and where the library is missing.
    """
    try:
        prose = PROSE[path.suffix.lower()](path)
    except UserError:
        raise
    except Exception as error:  # a damaged file raises what its library likes
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None
    title = " ".join(_clean(prose.title).split()) or re.sub(r"[\s_-]+", " ", encodable(path.stem)).strip()
    parts = [Part(_clean(part.text), part.place, part.heading) for part in prose.parts]
    if parts and parts[0].heading and parts[0].text == title:
        parts = parts[1:]
    return Prose(title, [part for part in parts if part.text])


def markdown(text: str) -> Prose:
    """Markdown: its front matter's or first heading's title, text without marks, headings kept."""
    title = ""
    if front := FRONT_MATTER.match(text):
        title = named[1] if (named := TITLE_LINE.search(front[1])) else ""
        text = text[front.end() :]
    parser = _library("markdown_it").MarkdownIt("commonmark").enable("table")
    parts: list[Part] = []
    above: dict[int, str] = {}
    level = 0
    cells: list[str] | None = None
    for token in parser.parse(text):
        if token.type == "heading_open":
            level = int(token.tag[1])
        elif token.type == "tr_open":
            cells = []
        elif token.type == "tr_close":
            parts.append(Part(" | ".join(cells or []), _place(above)))
            cells = None
        elif token.type == "inline" and cells is not None:
            cells.append(_inline(token))
        elif token.type == "inline":
            content = _inline(token)
            if level:
                above = {depth: name for depth, name in above.items() if depth < level} | {level: content}
                title = title or (content if level == 1 else "")
            parts.append(Part(content, _place(above), heading=level > 0))
            level = 0
        elif token.type in ("fence", "code_block"):
            parts.append(Part(token.content, _place(above)))
        elif token.type == "html_block":
            parts.append(Part(re.sub(r"<!--.*?-->|<[^>]*>", " ", token.content, flags=re.DOTALL), _place(above)))
    return Prose(title, parts)


def _inline(token: Any) -> str:
    """The text of an inline token: of links and pictures what is read."""
    text = []
    for child in token.children or []:
        if child.type in ("text", "code_inline"):
            text.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            text.append(" ")
        elif child.type == "image":
            text.append(child.content)
    return "".join(text)


def _place(above: dict[int, str]) -> str:
    return " > ".join(above.values())


def _plain_text(path: Path) -> Prose:
    paragraphs = re.split(r"\n\s*\n", decoded(path.read_bytes()))
    return Prose("", [Part(" ".join(each.split())) for each in paragraphs])


def _markdown_file(path: Path) -> Prose:
    return markdown(decoded(path.read_bytes()))


def _html(path: Path) -> Prose:
    """The main text of a page: no menus, no footers, as trafilatura finds it; all of its text where that finds none."""
    trafilatura = _library("trafilatura")
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    page = trafilatura.load_html(path.read_bytes())
    if page is None:
        return Prose("", [])
    metadata = trafilatura.extract_metadata(page)
    title = (metadata.title if metadata is not None else None) or ""
    for element in page.xpath(BESIDE):
        element.drop_tree()
    options: dict[str, Any] = {"include_comments": False, "include_formatting": True, "favor_recall": True}
    found = trafilatura.extract(page, output_format="markdown", **options)
    if not found:
        return Prose(title, [Part(line) for line in trafilatura.html2txt(page).splitlines()])
    prose = markdown(found)
    return Prose(title or prose.title, prose.parts)


def _pdf(path: Path) -> Prose:
    pypdf = _library("pypdf")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reader = pypdf.PdfReader(io.BytesIO(path.read_bytes()))
    if reader.is_encrypted and not reader.decrypt(""):
        raise UserError(f"{path} asks for a password")
    title = str((reader.metadata and reader.metadata.title) or "")
    pages = [(number, page.extract_text()) for number, page in enumerate(reader.pages, 1)]
    parts = [
        Part(" ".join(re.sub(r"(?<=\w)-\n(?=[a-zà-ÿ])", "", each).split()), f"page {number}")
        for number, text in pages
        for each in re.split(r"\n\s*\n", text)
    ]
    return Prose("" if FILE_NAME.search(title) else title, parts)


def _docx(path: Path) -> Prose:
    document = _library("docx").Document(str(path))
    parts: list[Part] = []
    above: dict[int, str] = {}
    title = document.core_properties.title or ""
    title = "" if FILE_NAME.search(title) else title
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            rows = [" | ".join(cell.text.strip() for cell in row.cells) for row in block.rows]
            parts += [Part(row, _place(above)) for row in rows]
            continue
        style = block.style.name if block.style is not None else ""
        heading = re.fullmatch(r"Heading (\d)|(Title)", style or "")
        if heading and (text := block.text.strip()):
            level = int(heading[1] or 0)
            above = {depth: name for depth, name in above.items() if depth < level} | {level: text}
            title = title or (text if level <= 1 else "")
        parts.append(Part(block.text, _place(above), heading=heading is not None))
    return Prose(title, parts)


def decoded(content: bytes) -> str:
    """UTF-8, or what charset_normalizer takes it for."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        best = _library("charset_normalizer").from_bytes(content).best()
        return str(best) if best is not None else content.decode("latin-1")


def _clean(text: str) -> str:
    """Without NUL and halves of characters; spaces and line breaks at the ends taken off."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode().strip()


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        packages = {"markdown_it": "markdown-it-py", "docx": "python-docx", "charset_normalizer": "charset-normalizer"}
        raise MissingPackage(f'{packages.get(name, name)} is missing: pip install "retrieval-prompts[files]"') from None


PROSE: dict[str, Callable[[Path], Prose]] = {
    ".txt": _plain_text,
    ".text": _plain_text,
    ".md": _markdown_file,
    ".markdown": _markdown_file,
    ".html": _html,
    ".htm": _html,
    ".xhtml": _html,
    ".pdf": _pdf,
    ".docx": _docx,
}
