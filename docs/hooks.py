"""What mkdocs does besides: the page of all commands is written from the command line itself, at every build."""

from __future__ import annotations

import re
import subprocess
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

COMMANDS = "reference/commands.md"
HIDDEN = "headstart benchmark", "cell"  # what jobs on a cluster run; typer lists it all the same
INTRODUCTION = """# Commands

Written from the program's own help. Each command says at its end what it left and where; a message that begins with
`headstart:` names the file, what is wrong, and what to do.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the input or the request is wrong; the message says what to do |
| 2 | an unknown option (any command), or some cells of a benchmark failed |
| 10 + n | n scans (at most 90) were set aside by `prepare`, or got no prediction from `predict` |
| 75 | stopped by SIGTERM, SIGUSR1 or SIGUSR2 with everything saved: the same command goes on |
| 130 | Ctrl-C |

| variable | meaning |
| --- | --- |
| `HEADSTART_CACHE` | folder for prepared scans, rendered pools and fetched weights; default: the user's cache folder |
| `HEADSTART_OFFLINE=1` | nothing is fetched; `--offline` before any command and `HF_HUB_OFFLINE=1` do the same |

"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of all commands."""
    files.append(File.generated(config, COMMANDS, content=INTRODUCTION + commands()))
    return files


def commands() -> str:
    """Help of every command as Markdown, one section each; typer writes it from the app."""
    done = subprocess.run([sys.executable, "-m", "typer", "headstart.cli", "utils", "docs", "--name", "headstart"],
                          check=True, capture_output=True, text=True)
    group, command = HIDDEN
    listed = re.sub(rf"^\* `{command}`: .*\n", "", done.stdout, flags=re.MULTILINE)
    _, *sections = re.split(r"^(?=###? `)", listed, flags=re.MULTILINE)
    shown = [section for section in sections if not section.startswith(f"### `{group} {command}`")]
    return "".join(shown).replace("```console\n$ ", "```text\n")
