"""A page as tests look at it: every element must be closed where it was opened."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "link"}
DRAWN = {"path", "circle", "rect", "polyline"}  # SVG's, which close themselves


class Parsed(HTMLParser):
    """The tags with their attributes, the visible words and the scripts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID | DRAWN:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in DRAWN:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())  # which takes no-break spaces for spaces, too

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def policy(self) -> str:
        (policy,) = (
            meta["content"] for meta in self.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
        )
        return policy
