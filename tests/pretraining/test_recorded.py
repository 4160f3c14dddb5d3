"""Clips and pictures from files: real ones, the right way up, with their classes; damaged ones are set aside."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.brains.store import Store
from headstart.brains.volumes import template, volume_spec
from headstart.errors import HeadstartError
from headstart.pretraining.config import PretrainConfig
from headstart.pretraining.data import pool_of
from headstart.pretraining.pool import Label, Pool
from headstart.pretraining.recorded import write_pool
from headstart.pretraining.recorded.clips import read_clip
from headstart.pretraining.recorded.files import CLIPS, PICTURES, Recorded, find_files, some_of
from headstart.pretraining.recorded.pictures import _grey

SPEC = volume_spec("4mm")
FASHION = Path(os.environ.get("HEADSTART_FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))


def test_real_clips_become_a_pool(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = PretrainConfig(source="video", backbone="cnn-small", data=clips)
    path = pool_of(config, jobs=2)
    pool, store = Pool.open(path), Store.open(path)
    assert pool.labels == (Label("class", ("film", "phone")),)
    assert len(store) >= 4
    assert len({stored.scan.subject for stored in store.scans}) == 4
    volumes = store.volumes(range(len(store)))[:, 0].numpy()
    assert ((volumes != 0) == template("4mm").brain).all()
    assert volumes[volumes != 0].mean() == pytest.approx(0.5, abs=0.05)
    assert not any(stored.scan.simulated for stored in store.scans)
    assert "broken.mp4" in (path / "failed.tsv").read_text()
    capsys.readouterr()
    assert pool_of(config, jobs=1) == path
    assert "1 of 5 files could not be read and are left out" in capsys.readouterr().err  # said of a kept pool too
    assert len(Store.open(pool_of(config.model_copy(update={"pool": 3}), jobs=1))) >= 2
    assert "3 of the 5 files" in capsys.readouterr().err


def test_a_clip_is_the_right_way_up_and_time_runs_along_x(tmp_path: Path) -> None:
    """A light bar in the upper left corner of the picture that grows downwards."""
    import av

    path = tmp_path / "bar.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        for number in range(80):
            picture = np.zeros((80, 96, 3), np.uint8)
            picture[: 10 + number // 2, :24] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    pieces = read_clip(path, SPEC)
    assert pieces.shape == (1, 40, 48, 40)
    light = pieces[0] > 0.5
    assert light[0, :12, 36:].all()  # Y from the left, Z from above
    assert not light[:, 13:].any()
    heights = light[:, 6].sum(1)
    assert heights[0] == pytest.approx(5, abs=1)
    assert heights[-1] == pytest.approx(24, abs=1.5)
    assert (np.diff(heights) >= 0).all()


def test_photographs_become_a_pool(photographs: Path) -> None:
    config = PretrainConfig(source="natural-images", backbone="cnn-small", data=photographs)
    pool = Pool.open(pool_of(config, jobs=2))
    assert pool.labels == (Label("class", ("flower", "temple")),)
    assert pool.targets[:, 0].tolist() == [0.0] * 6 + [1.0] * 6
    assert pool.volumes(np.arange(12))[:, 0][:, template("4mm").brain].std(1).min() > 0.15


def test_fashion_mnist(tmp_path: Path) -> None:
    """A real labelled set: Debian's dataset-fashion-mnist, unpacked to pictures."""
    if not FASHION.is_dir():
        pytest.skip(f"no {FASHION} (apt-get install dataset-fashion-mnist, or set HEADSTART_FASHION_MNIST)")
    with gzip.open(FASHION / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 784 * 300)[16:], np.uint8).reshape(-1, 28, 28)
    with gzip.open(FASHION / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read()[8:], np.uint8)[:300]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / str(label) / f"{number}.png")
    config = PretrainConfig(source="natural-images", backbone="cnn-small", data=tmp_path, pool=100)
    pool = Pool.open(pool_of(config, jobs=2))
    assert len(pool.targets) == 100
    assert pool.labels[0].classes == tuple("0123456789")
    assert np.bincount(pool.targets[:, 0].astype(int)).tolist() == [10] * 10


def test_tables(clips: Path, tmp_path: Path) -> None:
    """The columns path and label; and Kinetics' own, where clips that are gone are skipped."""
    film = next((clips / "film").glob("bikes.mp4"))
    (tmp_path / "abc_000010_000020.mp4").symlink_to(film)
    for name, rows in {"plain.csv": [["path", "label"], ["abc_000010_000020.mp4", "ride"]],
                       "kinetics.csv": [["label", "youtube_id", "time_start", "time_end", "split"],
                                        ["ride", "abc", "10", "20", "train"], ["swim", "gone", "0", "10", "train"]],
                       "bad.csv": [["file"], ["a.mp4"]]}.items():
        with open(tmp_path / name, "w", newline="") as file:
            csv.writer(file).writerows(rows)
    expected = [Recorded(tmp_path / "abc_000010_000020.mp4", "ride")]
    assert find_files(tmp_path / "plain.csv", CLIPS) == expected
    assert find_files(tmp_path / "kinetics.csv", CLIPS) == expected
    with pytest.raises(HeadstartError, match="lacks the column path"):
        find_files(tmp_path / "bad.csv", CLIPS)


def test_rows_without_files_are_counted_and_files_listed_twice_are_one(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "list.csv").write_text("path\na.mp4\na.mp4\ngone.mp4\n")
    assert find_files(tmp_path / "list.csv", CLIPS) == [Recorded(tmp_path / "a.mp4", "")]
    assert "1 of 3 rows" in capsys.readouterr().err
    (tmp_path / "list.csv").write_text("path,label\na.mp4,one\na.mp4,two\n")
    with pytest.raises(HeadstartError, match="is listed as one and as two"):
        find_files(tmp_path / "list.csv", CLIPS)


def test_files_without_classes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"never opened")
    with pytest.raises(HeadstartError, match="says of no file which class it is"):
        pool_of(PretrainConfig(source="natural-images", backbone="cnn-small", data=tmp_path), jobs=1)


def test_a_picture_of_sixteen_bits_keeps_its_greys(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray((ramp // 257).astype(np.uint8)).save(tmp_path / "plain.png")
    deep, plain = (_grey(tmp_path / name) for name in ("deep.png", "plain.png"))
    assert np.abs(deep - plain).max() < 0.02
    assert plain.min() < 0.05 < 0.95 < plain.max()


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="does not exist"):
        find_files(tmp_path / "absent", CLIPS)
    with pytest.raises(HeadstartError, match=r"holds no files that end in \.png"):
        find_files(tmp_path, PICTURES)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(HeadstartError, match=r"none of the 1 files could be read.*broken.png"):
        write_pool(tmp_path / "pool", "natural-images", find_files(tmp_path, PICTURES), name="x", seed=0,
                   volume="4mm", progress=False)


def test_a_part_of_many_files_is_spread_over_the_classes() -> None:
    many = [Recorded(Path(f"{label}/{i}"), label) for label, count in (("a", 90), ("b", 10)) for i in range(count)]
    part = some_of(many, 20, seed=0)
    assert sorted(file.label for file in part) == ["a"] * 10 + ["b"] * 10
    assert part == [file for file in many if file in part]
    assert some_of(many, 100, seed=0) == many
