"""Fetching from a real local server: resumed, redirected, checked, offline afterwards."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headstart.errors import HeadstartError
from headstart.files import read_json
from headstart.upstreams import find, forget, locate
from headstart.upstreams.base import Upstream, Url
from headstart.upstreams.fetch import expected_sha256, is_here

CONTENT = hashlib.shake_128(b"weights").digest(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.content`` with ranges and tags; breaks off where it is told to."""

    def do_GET(self) -> None:
        self.server.requests.append(dict(self.headers))
        if self.path == "/moved.pt":
            self.send_response(302)
            self.send_header("Location", "/weights.pt")
            self.end_headers()
        elif self.path == "/weights.pt":
            self.send_content()
        else:
            self.send_error(404)

    def send_content(self) -> None:
        content, tag = self.server.content, f'"{hashlib.sha256(self.server.content).hexdigest()[:8]}"'
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.headers.get("If-Range") == tag else 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop, self.server.break_at = self.server.break_at or len(content), None
        self.wfile.write(content[start:stop])
        self.close_connection = True
        return None

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.break_at, server.requests = CONTENT, None, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    for variable in ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)


def record(server: ThreadingHTTPServer, path: str = "weights.pt", sha256: str | None = SHA256) -> Upstream:
    url = f"http://127.0.0.1:{server.server_port}/{path}"
    return replace(find("imagenet-resnet18"), name="test", source=Url(url, sha256))


def test_a_file_comes_whole_and_then_needs_no_network(server: ThreadingHTTPServer, monkeypatch) -> None:
    seen: list[int] = []
    upstream = record(server)
    assert not is_here(upstream)
    path = locate(upstream, progress=lambda done, total: seen.append(done))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == len(CONTENT)
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    assert locate(upstream) == path
    assert is_here(upstream)
    assert len(server.requests) == 1


def test_a_broken_download_goes_on_where_it_ended(server: ThreadingHTTPServer) -> None:
    server.break_at = 2_000_000
    with pytest.raises(HeadstartError, match="same command again"):
        locate(record(server))
    assert locate(record(server)).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == "bytes=2000000-"


def test_a_file_that_changed_in_between_starts_over(server: ThreadingHTTPServer) -> None:
    server.break_at = 2_000_000
    with pytest.raises(HeadstartError):
        locate(record(server, sha256=None))
    server.content = CONTENT[::-1]
    assert locate(record(server, sha256=None)).read_bytes() == CONTENT[::-1]


def test_a_redirect_is_followed(server: ThreadingHTTPServer) -> None:
    assert locate(record(server, "moved.pt")).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_corrupted_byte_is_found_and_nothing_is_kept(server: ThreadingHTTPServer) -> None:
    server.content = CONTENT[:500] + b"\x00" + CONTENT[501:]
    with pytest.raises(HeadstartError, match="SHA-256"):
        locate(record(server))
    assert not is_here(record(server))
    server.content = CONTENT
    assert locate(record(server)).read_bytes() == CONTENT


def test_the_publishers_first_digits_are_checked_too(server: ThreadingHTTPServer) -> None:
    assert locate(record(server, sha256=SHA256[:8])).is_file()
    forget(record(server))
    with pytest.raises(HeadstartError, match="SHA-256"):
        locate(record(server, sha256="00000000"))


def test_an_unpublished_digest_is_recorded_at_the_first_fetch(server: ThreadingHTTPServer) -> None:
    upstream = record(server, sha256=None)
    receipt = read_json(locate(upstream).parent / "receipt.json")
    assert (receipt["sha256"], receipt["published_sha256"], receipt["bytes"]) == (SHA256, None, len(CONTENT))
    assert expected_sha256(upstream) == SHA256


def test_offline_says_what_to_do(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HeadstartError, match=r"HF_HUB_OFFLINE forbids the network.*weights fetch test"):
        locate(record(server))
    assert not server.requests


def test_a_missing_file_is_named(server: ThreadingHTTPServer) -> None:
    with pytest.raises(HeadstartError, match=r"gone.pt: cannot be fetched \(404"):
        locate(record(server, "gone.pt"))


def test_a_server_that_is_not_there_is_named(server: ThreadingHTTPServer) -> None:
    with pytest.raises(HeadstartError, match="cannot be fetched"):
        locate(replace(record(server), source=Url("http://127.0.0.1:9/weights.pt")))


def test_a_non_commercial_licence_is_accepted_once(server: ThreadingHTTPServer) -> None:
    upstream = replace(record(server), commercial=False, licence="CC BY-NC 4.0")
    with pytest.raises(HeadstartError, match=r"CC BY-NC 4.0.*--accept-licence"):
        locate(upstream)
    assert not server.requests
    locate(upstream, accept_licence=True)
    assert locate(upstream).is_file()


def test_what_cannot_be_fetched_says_where_to_get_it() -> None:
    with pytest.raises(HeadstartError, match=r"weights import FILE --as brainiac-vit-base"):
        locate(find("brainiac-vit-base"), accept_licence=True)
