"""The documentation builds without a warning and without a network, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Any use of the network ends the build.
OFFLINE = """
import socket, sys
def refused(*_): raise OSError("the documentation must build without a network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
from mkdocs.__main__ import cli
cli(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does; a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-c", OFFLINE, "build", "--strict", "--site-dir", str(out)], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_it_builds_strictly_and_names_every_command(site: Path) -> None:
    from headstart.cli import app

    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    names |= {group.name for group in app.registered_groups}
    missing = {name for name in names if f"<code>headstart {name}</code>" not in page}
    assert not missing


def test_nothing_is_fetched_when_a_page_opens(site: Path) -> None:
    wanted = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?(?:https?:)?//[^\s>\"]+")
    for page in site.rglob("*.html"):
        assert not wanted.findall(page.read_text(encoding="utf-8")), page


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    import headstart

    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    missing = [name for name in headstart.__all__ if not re.search(rf"id=\"?headstart\.[\w.]+\.{name}\b", page)]
    assert not missing
