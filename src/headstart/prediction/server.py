"""A web page on this machine alone: drop a scan, see quality, answer and maps; nothing of it is kept.

It listens on the loopback address, answers only requests that name it as their host and come from its own page, and
keeps an upload in a random temporary folder, under a name of its own, while it is being predicted.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from headstart.errors import HeadstartError
from headstart.explanation import METHODS
from headstart.prediction.finished import FinishedModel
from headstart.prediction.outputs import saliency
from headstart.prediction.page import TEMPLATES, scan_page
from headstart.prediction.predictor import Prediction, predict_prepared, prepared_for
from headstart.prediction.quality import contract_words
from headstart.prediction.words import answer, caveats, headline
from headstart.report.page import assets, template_environment

ADDRESS = "127.0.0.1"
MOST_BYTES = 256 * 2**20
CHUNK_BYTES = 2**20
KEPT_REPORTS = 8  # in memory
REQUEST_SECONDS = 60.0  # for a request to arrive whole, however its bytes are spread: this machine sends 256 MB in one
MOST_CONNECTIONS = 32
MOST_SCANS = 3  # one is predicted, the others wait; more are asked to come later
SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
        "Cross-Origin-Resource-Policy": "same-origin"}
SERVE = TEMPLATES / "serve"


class Server(ThreadingHTTPServer):
    """The page for one model.

    Args:
        port: 0 for any that is free.
        most_bytes: of an upload.
        seconds: for a request to arrive.
    """

    daemon_threads = True

    def __init__(self, model: FinishedModel, port: int = 0, most_bytes: int = MOST_BYTES,
                 seconds: float = REQUEST_SECONDS) -> None:
        self.model, self.most_bytes, self.seconds = model, most_bytes, seconds
        self.predicting = threading.Lock()  # one scan at a time
        self.places = threading.BoundedSemaphore(MOST_SCANS)
        self.connections = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self.reports: OrderedDict[str, str] = OrderedDict()
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise HeadstartError(f"port {port} cannot be used ({error.strerror})",
                                 fix="Give another --port.") from error

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Connections beyond the limit are closed at once."""
        return self.connections.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a request may call this server."""
        return tuple(f"{name}:{self.server_port}" for name in (ADDRESS, "localhost"))

    def keep(self, page: str) -> str:
        """Keep a report in memory; its address."""
        token = secrets.token_hex(16)
        self.reports[token] = page
        while len(self.reports) > KEPT_REPORTS:
            self.reports.popitem(last=False)
        return f"/report/{token}"


class Timed(io.RawIOBase):
    """What a client sends, until its time is up: a byte now and then does not prolong it."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self.connection, self.seconds = connection, seconds
        self.restart()

    def restart(self) -> None:
        self.end = time.monotonic() + self.seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request did not arrive in time")
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """One connection. Whatever it sends, the reply is a page, JSON, or a status with a reason."""

    server: Server
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.incoming = Timed(self.connection, self.server.seconds)
        self.rfile = io.BufferedReader(self.incoming)

    def handle_one_request(self) -> None:
        self.incoming.restart()
        super().handle_one_request()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        report = re.fullmatch(r"/report/([0-9a-f]{32})", path)
        if not self._is_own_host():
            self._refuse(HTTPStatus.FORBIDDEN, "this page answers on this machine only")
        elif path == "/":
            page, policy = upload_page(self.server.model, self.server.most_bytes)
            self._reply(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": policy})
        elif report and report[1] in self.server.reports:
            self._reply(HTTPStatus.OK, self.server.reports[report[1]].encode(), "text/html; charset=utf-8",
                        {"Content-Security-Policy": "frame-ancestors 'self'"})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        length = self.headers.get("Content-Length", "")
        origin = self.headers.get("Origin")
        if not self._is_own_host() or (origin and urlsplit(origin).netloc not in self.server.hosts):
            self._refuse(HTTPStatus.FORBIDDEN, "this page answers to itself only")
        elif url.path != "/predict":
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
        elif not re.fullmatch(r"[0-9]{1,12}", length) or "Transfer-Encoding" in self.headers:
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "the size of the upload must be given")
        elif int(length) > self.server.most_bytes:
            limit = f"{self.server.most_bytes / 2**20:g} MB"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the file is larger than {limit}")
        elif not self.server.places.acquire(blocking=False):
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS, "other scans are being predicted; try again in a minute")
        else:
            try:
                self._predict(int(length), (parse_qs(url.query).get("explain") or ["gradient"])[0])
            finally:
                self.server.places.release()

    def _predict(self, length: int, method: str) -> None:
        """The upload is gone before the answer is sent."""
        folder = Path(tempfile.mkdtemp(prefix="headstart-"))  # readable by this user alone
        try:
            status, said = self._answer(folder / "scan.nii.gz", length, method)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.connection.settimeout(self.server.seconds)  # for the reply
        if status is HTTPStatus.OK:
            self._reply(status, json.dumps(said).encode(), "application/json")
        elif status is not None:
            self._refuse(status, str(said))
        else:
            self.close_connection = True

    def _answer(self, scan: Path, length: int, method: str) -> tuple[HTTPStatus | None, Any]:
        """Status and reply, or the reason why there is none; no status where the upload broke off."""
        try:
            if not self._receive(scan, length):
                return None, None
            with self.server.predicting:
                return HTTPStatus.OK, predicted(self.server, scan, method if method in METHODS else None)
        except TimeoutError:
            return HTTPStatus.REQUEST_TIMEOUT, "the upload took too long"
        except ConnectionError:
            return None, None
        except HeadstartError as error:
            return HTTPStatus.UNPROCESSABLE_ENTITY, " ".join(filter(None, [error.problem + ".", error.fix]))
        except Exception as error:  # one file must not end the server
            return HTTPStatus.INTERNAL_SERVER_ERROR, f"unexpected {type(error).__name__}: {error}"

    def _receive(self, path: Path, length: int) -> bool:
        """Write the upload to ``path``; False if it broke off."""
        with open(path, "wb") as file:
            left = length
            while left:
                chunk = self.rfile.read(min(left, CHUNK_BYTES))
                if not chunk:
                    return False
                file.write(chunk)
                left -= len(chunk)
        return True

    def _is_own_host(self) -> bool:
        """Whether the request names this server: a page elsewhere that points its name here does not."""
        return self.headers.get("Host", "") in self.server.hosts

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True  # what is left of the request is not read
        self._reply(status, json.dumps({"error": reason}).encode(), "application/json", {"Connection": "close"})

    def _reply(self, status: HTTPStatus, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **SAFE, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "headstart"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nobody's business."""


def predicted(server: Server, scan: Path, method: str | None) -> dict[str, Any]:
    """Predict an upload, keep its report in memory, and say what the page shows at once."""
    model = server.model
    prepared = prepared_for(model, scan)
    prediction: Prediction = predict_prepared(model, prepared)
    try:
        found = saliency(model, prepared, prediction, method)
    except HeadstartError:  # a network without attention
        found = None
    page = scan_page("your scan", model, prepared, prediction, found, method)
    return {"headline": headline(prediction), "answer": answer(prediction), "verdict": prediction.verdict,
            "report": server.keep(page)}


def upload_page(model: FinishedModel, most_bytes: int) -> tuple[str, str]:
    """The page to drop a scan on, and its security policy."""
    made = assets(TEMPLATES, SERVE)
    policy = f"{made['policy']}; connect-src 'self'; frame-src 'self'; frame-ancestors 'none'"
    page = template_environment(SERVE, TEMPLATES).get_template("serve.html.j2").render(
        model=model, caveats=caveats(model), contract=contract_words(model.config.contract), methods=METHODS,
        most_bytes=most_bytes, style=made["style"], script=made["script"])
    return page, str(policy)
