"""A publisher on this machine: serves files with ranges and tags, lists them as S3 does, breaks off when told to."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 4  # keys in one page of a listing


class Publisher(ThreadingHTTPServer):
    """``files``: path -> bytes; ``break_at``: path -> after how many bytes the next answer breaks off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.break_at: dict[str, int] = {}
        self.asked: list[tuple[str, str | None]] = []  # path, range

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path.lstrip("/"))
        if not path and "list-type" in parts.query:
            return self.send_listing({name: values[0] for name, values in parse_qs(parts.query).items()})
        self.server.asked.append((path, self.headers.get("Range")))
        if path not in self.server.files:
            return self.send_error(404)
        return self.send_file(path, self.server.files[path])

    def send_listing(self, query: dict[str, str]) -> None:
        keys = sorted(key for key in self.server.files if key.startswith(query["prefix"]))
        start = int(query.get("continuation-token", 0))
        more = start + PAGE < len(keys)
        items = "".join(f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.files[key])}</Size>"
                        f"<ETag>&quot;{hashlib.md5(self.server.files[key]).hexdigest()}&quot;</ETag></Contents>"
                        for key in keys[start:start + PAGE])
        token = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
        body = ('<?xml version="1.0" encoding="UTF-8"?><ListBucketResult '
                f'xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{token}{items}</ListBucketResult>').encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, path: str, content: bytes) -> None:
        tag, wanted = f'"{hashlib.md5(content).hexdigest()}"', self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.headers.get("If-Range") == tag else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:self.server.break_at.pop(path, len(content))])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""
