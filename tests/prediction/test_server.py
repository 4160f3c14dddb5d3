"""The web page: hostile requests and files are answered in words, nothing is kept, and a real browser can use it."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from headstart.prediction import open_model
from headstart.prediction.server import MOST_CONNECTIONS, MOST_SCANS, Server

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_model import scan_path, write_scans

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where temporary folders are made: empty before and after."""
    folder, before = tmp_path_factory.mktemp("uploads"), tempfile.tempdir
    tempfile.tempdir = str(folder)
    yield folder
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def server(age_model: Path, uploads: Path) -> Iterator[Server]:
    with running(Server(open_model(age_model), most_bytes=2**23)) as server:
        yield server


def ask(server: Server, method: str, path: str, body: bytes | None = None,
        **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=120)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text, reply.headers


def test_it_listens_on_the_loopback_address_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_the_page_may_load_nothing_but_itself(server: Server) -> None:
    status, page, headers = ask(server, "GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "not a medical device" in page


@pytest.mark.parametrize(("method", "path", "headers", "status"), [
    ("GET", "/../../etc/passwd", {}, 404),
    ("GET", "/report/../../../etc/passwd", {}, 404),
    ("GET", "/report/" + "0" * 32, {}, 404),
    ("GET", "/", {"Host": "evil.example"}, 403),
    ("POST", "/predict", {"Host": "evil.example"}, 403),
    ("POST", "/predict", {"Origin": "http://evil.example"}, 403),
    ("POST", "/predict", {"Origin": "null"}, 403),
    ("POST", "/elsewhere", {}, 404),
    ("POST", "/predict", {"Content-Length": "-5"}, 411),
    ("POST", "/predict", {"Content-Length": "99999999999"}, 413),
    ("POST", "/predict", {"Transfer-Encoding": "chunked"}, 411),
    ("PUT", "/predict", {}, 501),
])
def test_requests_that_are_not_its_own(server: Server, uploads: Path, method: str, path: str, headers: dict[str, str],
                                       status: int) -> None:
    body = None if "Content-Length" in headers or "Transfer-Encoding" in headers else b"x" * 10
    assert ask(server, method, path, body, **headers)[0] == status
    assert list(uploads.iterdir()) == []


@pytest.mark.parametrize("content", [
    b"", b"not a scan", b"\x1f\x8b" + b"\0" * 50, b"\x5c\x01\0\0" + b"\xff" * 400, b"<script>alert(1)</script>" * 99,
], ids=["empty", "text", "broken gzip", "broken header", "script"])
def test_hostile_files_are_refused_in_words(server: Server, uploads: Path, content: bytes) -> None:
    status, text, _ = ask(server, "POST", "/predict", content)
    assert status == 422, text
    reason = json.loads(text)["error"]
    assert reason
    assert str(uploads) not in reason
    assert list(uploads.iterdir()) == []


def test_an_upload_that_breaks_off_leaves_nothing(server: Server, uploads: Path) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port)) as line:
        line.sendall(f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n"
                     "Content-Length: 1000\r\n\r\nabc".encode())
        line.shutdown(socket.SHUT_WR)
        assert line.recv(100) == b""
    assert list(uploads.iterdir()) == []
    assert ask(server, "GET", "/")[0] == 200
    wait_until(lambda: is_idle(server))


def is_idle(server: Server) -> bool:
    """Whether nothing is predicted and every place is free."""
    taken = [server.places.acquire(blocking=False) for _ in range(MOST_SCANS)]
    for _ in filter(None, taken):
        server.places.release()
    return all(taken) and not server.predicting.locked()


def test_a_client_that_vanishes_leaves_nothing(server: Server, uploads: Path,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    line = started_upload(server, 1000)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
    wait_until(lambda: list(uploads.iterdir()))
    line.close()
    wait_until(lambda: not list(uploads.iterdir()) and is_idle(server))
    assert ask(server, "GET", "/")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_slow_upload_is_ended_however_steadily_it_drips(age_model: Path, uploads: Path) -> None:
    with running(Server(open_model(age_model), seconds=0.5)) as server, started_upload(server, 1000) as line:
        drip(line)
        assert b" 408 " in line.recv(100)
        assert list(uploads.iterdir()) == []


def test_slow_headers_are_ended_too(age_model: Path) -> None:
    with running(Server(open_model(age_model), seconds=0.5)) as server, \
            socket.create_connection(("127.0.0.1", server.server_port)) as line:
        line.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        drip(line)
        assert line.recv(100) == b""


def test_who_comes_while_others_wait_is_asked_to_come_later(server: Server, uploads: Path) -> None:
    waiting = [started_upload(server, 1000) for _ in range(MOST_SCANS)]
    wait_until(lambda: len(list(uploads.iterdir())) == MOST_SCANS)
    status, text, _ = ask(server, "POST", "/predict", b"x")
    assert (status, json.loads(text)["error"][:12]) == (429, "other scans ")
    for line in waiting:
        line.close()
    wait_until(lambda: not list(uploads.iterdir()))
    assert ask(server, "POST", "/predict", b"x")[0] == 422


def test_only_so_many_connections_stay_open(server: Server) -> None:
    lines = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(MOST_CONNECTIONS + 1)]
    lines[-1].settimeout(10)
    assert lines[-1].recv(1) == b""
    for line in lines:
        line.close()
    wait_until(lambda: _answers(server))


def _answers(server: Server) -> bool:
    try:
        return ask(server, "GET", "/")[0] == 200
    except (ConnectionError, http.client.HTTPException):
        return False


def started_upload(server: Server, length: int) -> socket.socket:
    """A connection on which an upload of ``length`` bytes has begun."""
    line = socket.create_connection(("127.0.0.1", server.server_port))
    line.sendall(f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n"
                 f"Content-Length: {length}\r\n\r\nabc".encode())
    return line


def drip(line: socket.socket) -> None:
    """A byte now and then, until the other side has had enough."""
    line.settimeout(0.1)
    for _ in range(200):
        try:
            line.send(b"x")
            if line.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            continue
    line.settimeout(10)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def wait_until(happened: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_a_browser_drops_a_real_scan_and_then_a_hostile_one(server: Server, uploads: Path, chromium: str,
                                                            real_data: Path, tmp_path: Path) -> None:
    scan = sorted((real_data / "ixi10").rglob("*_T1w.nii.gz"))[0]
    hostile = tmp_path / "<img src=x onerror=alert(1)>.nii"
    hostile.write_bytes(b"\x5c\x01\0\0<img src=x onerror=alert(1)>")
    complaints: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("console", lambda said: complaints.append(said.text) if "422" not in said.text else None)
        page.goto(server.url)
        page.set_input_files("#file", scan)
        page.wait_for_selector("#report:not([hidden])", timeout=200_000)
        assert "age: " in page.inner_text("#status")
        report = page.frame_locator("#report")
        assert report.locator("#checks tbody tr").count() >= 9
        assert report.locator("canvas").count() == 3
        before = report.locator("canvas").first.evaluate("canvas => canvas.toDataURL()")
        report.locator(".viewer select").select_option("none")
        assert report.locator("canvas").first.evaluate("canvas => canvas.toDataURL()") != before
        with page.expect_download() as download:
            page.click("#download")
        assert "not a medical device" in Path(download.value.path()).read_text()
        page.set_input_files("#file", hostile)
        page.wait_for_selector("#status.failed")
        assert "Not predicted" in page.inner_text("#status")
        assert page.locator("#report").is_hidden()
        browser.close()
    assert complaints == []
    assert list(uploads.iterdir()) == []


def test_reports_are_forgotten(server: Server) -> None:
    first = server.keep("first")
    for number in range(8):
        server.keep(str(number))
    assert ask(server, "GET", first)[0] == 404


def test_a_good_scan_is_answered(server: Server, tmp_path: Path) -> None:
    scan = scan_path(write_scans(tmp_path / "bids", 1), "sub-00")
    status, text, _ = ask(server, "POST", "/predict?explain=nothing", scan.read_bytes())
    assert status == 200, text
    found = json.loads(text)
    assert found["verdict"] in ("ok", "flag")
    assert "your scan" in ask(server, "GET", found["report"])[1]
