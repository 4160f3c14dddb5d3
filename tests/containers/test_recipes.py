"""The container recipes, as far as they run without one: what they copy installs, and then needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from headstart.brains.volumes import VOLUMES
from headstart.tasks import DECLARED
from tiny_model import scan_path, write_model, write_scans
from tiny_study import HEADSTART

ROOT = Path(__file__).parents[2]
DOCKER = (ROOT / "containers" / "Dockerfile").read_text()
APPTAINER = (ROOT / "containers" / "headstart.def").read_text()
SOURCE = "/opt/headstart/source"


def copied_by_docker() -> dict[str, str]:
    """Where each path of the repository comes to lie in the image."""
    found = {}
    for line in re.findall(r"^COPY (.+)$", DOCKER, re.MULTILINE):
        *sources, target = line.split()
        found |= {source: target + source if target.endswith("/") else target for source in sources}
    return found


def copied_by_apptainer() -> dict[str, str]:
    section = APPTAINER.split("%files")[1].split("%post")[0]
    return dict(line.split() for line in section.strip().splitlines())


def test_both_copy_what_the_package_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", "src", "containers", project["project"]["readme"], *project["project"]["license-files"]}
    assert copied_by_docker() == copied_by_apptainer() == {path: f"{SOURCE}/{path}" for path in needed}
    assert all((ROOT / path).exists() for path in needed)


def test_both_install_alike_and_run_offline_as_a_bids_app() -> None:
    install = f"{SOURCE}/containers/install {SOURCE}"
    assert re.search(rf"^RUN {install}$", DOCKER, re.MULTILINE)
    assert re.search(rf"^    {install}$", APPTAINER, re.MULTILINE)
    for recipe in (DOCKER, APPTAINER):
        assert "HEADSTART_CACHE=/opt/headstart/cache HEADSTART_OFFLINE=1" in recipe
    assert 'ENTRYPOINT ["headstart", "predict"]' in DOCKER
    assert 'exec headstart predict "$@"' in APPTAINER
    assert os.access(ROOT / "containers" / "install", os.X_OK)


def test_the_python_of_the_images_is_new_enough() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    for recipe in (DOCKER, APPTAINER):
        (image,) = re.findall(r"^(?:FROM|From:) python:([\d.]+)-slim$", recipe, re.MULTILINE)
        assert tuple(map(int, image.split("."))) >= wanted


def test_a_prediction_adds_nothing_to_the_cache_of_the_image(tmp_path: Path, long: bool) -> None:
    if not long:
        pytest.skip("computes the template on the finest grid; in make test-long")
    cache = tmp_path / "cache"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run([ROOT / "containers" / "fill-cache", cache], check=True, env={**os.environ, "PATH": path})
    filled = {file: file.stat().st_mtime_ns for file in cache.rglob("*")}
    assert {file.stem.rsplit("-", 1)[1] for file in filled} == set(VOLUMES)
    model, bids = write_model(tmp_path / "model", DECLARED["brain-age"], 1), write_scans(tmp_path / "bids", 1)
    scan = scan_path(bids, "sub-00")
    done = subprocess.run([*HEADSTART, "predict", scan, "--model", model], capture_output=True, text=True,
                          env={**os.environ, "HEADSTART_CACHE": str(cache), "HEADSTART_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert {file: file.stat().st_mtime_ns for file in cache.rglob("*")} == filled


def test_what_is_copied_installs(tmp_path: Path, long: bool) -> None:
    """As a wheel from these files alone; the libraries are those of this environment."""
    if not long:
        pytest.skip("builds a wheel, which fetches the build tool; in make test-long")
    source = tmp_path / "source"
    source.mkdir()
    for path in copied_by_docker():
        subprocess.run(["cp", "-r", ROOT / path, source / path], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path / "site", source],
                   check=True)
    done = subprocess.run([sys.executable, "-m", "headstart.cli", "--offline", "predict", "none.nii", "--model",
                           "brain-age-synthetic"], capture_output=True, text=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(tmp_path / "site")})
    assert "brain-age-synthetic: brain-age, cnn-small" in done.stdout
    assert "none.nii: cannot be read" in done.stderr
