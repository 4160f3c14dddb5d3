"""A page as a parser sees it."""

from __future__ import annotations

from html.parser import HTMLParser


class Collected(HTMLParser):
    """Tags and their attributes, for what a regular expression would get wrong."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
