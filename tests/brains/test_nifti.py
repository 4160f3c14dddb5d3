"""Reading and resampling against nibabel and scipy, on files of every shape that the standard allows."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from scipy.ndimage import affine_transform, gaussian_filter

from headstart.brains.image import Image, resample, resample_to_grid, scale_intensity
from headstart.brains.nifti import read_nifti, write_nifti
from headstart.brains.volumes import VOLUMES
from headstart.errors import HeadstartError

AFFINE = np.array([[-1.0, 0, 0, 9], [0, 2, 0, -7], [0, 0, 1.5, -3], [0, 0, 0, 1]])


def numbers(shape=(6, 7, 8), dtype=np.int16, seed=0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(0, 30, shape) + 100).astype(dtype)


def smooth(shape=(40, 44, 36), seed=0) -> np.ndarray:
    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4).astype(np.float32) * 100


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<f4", ">f8", "<i4", "<u2"])
@pytest.mark.parametrize("codes", ["RAS", "LPI", "PSR", "AIL"])
def test_equals_nibabel_in_the_closest_ras_order(tmp_path, suffix, kind, dtype, codes):
    header = kind.header_class(endianness=">" if dtype.startswith(">") else "<")
    image = kind(numbers(dtype=dtype), AFFINE, header, dtype=np.dtype(dtype))
    image = image.as_reoriented(ornt_transform(axcodes2ornt("LAS"), axcodes2ornt(codes)))
    path = tmp_path / f"scan{suffix}"
    nib.save(image, path)
    read, expected = read_nifti(path), nib.as_closest_canonical(nib.load(path))
    assert np.array_equal(read.data, expected.get_fdata(dtype=np.float32))
    assert np.allclose(read.affine, expected.affine)
    assert nib.aff2axcodes(read.affine) == ("R", "A", "S")
    assert read.notes == ()


def test_scaled_values_are_float32_and_those_of_nibabel(tmp_path):
    image = nib.Nifti1Image(numbers(), AFFINE)
    image.header.set_slope_inter(0.25, -3)
    nib.save(image, tmp_path / "scan.nii.gz")
    read = read_nifti(tmp_path / "scan.nii.gz")
    assert read.data.dtype == np.float32
    assert np.allclose(read.data, nib.as_closest_canonical(nib.load(tmp_path / "scan.nii.gz")).get_fdata())


def test_gzip_in_several_members_and_an_uncompressed_file_called_gz(tmp_path):
    content = nib.Nifti1Image(numbers(), AFFINE).to_bytes()
    (tmp_path / "members.nii.gz").write_bytes(b"".join(gzip.compress(part) for part in (content[:400], content[400:])))
    (tmp_path / "plain.nii.gz").write_bytes(content)
    members, plain = (read_nifti(tmp_path / f"{name}.nii.gz").data for name in ("members", "plain"))
    assert np.array_equal(members, plain)


def test_qform_metres_and_trailing_dimensions(tmp_path):
    image = nib.Nifti1Image(numbers()[..., None, None], None)
    image.set_qform(np.diag([0.001, 0.002, 0.001, 1]), code=1)
    image.set_sform(None, code=0)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "scan.nii")
    read = read_nifti(tmp_path / "scan.nii")
    assert read.data.shape == (6, 7, 8)
    assert np.allclose(read.spacing_mm, [1, 2, 1], atol=1e-5)


def test_few_nan_become_zero_with_a_note(tmp_path):
    data = numbers((12, 12, 12), np.float32)
    data[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "scan.nii")
    read = read_nifti(tmp_path / "scan.nii")
    assert read.data[0, 0, 0] == 0
    assert read.notes == ("1 NaN or infinite voxels were set to 0",)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64, bool])
def test_written_files_come_back_and_are_the_same_bytes_twice(tmp_path, dtype):
    data = numbers() > 100 if dtype is bool else numbers(dtype=dtype)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, data, np.diag([1, 2, 3, 1]))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert np.array_equal(read_nifti(tmp_path / "a.nii.gz").data, data.astype(np.float32))
    assert np.array_equal(nib.load(tmp_path / "a.nii.gz").affine, np.diag([1, 2, 3, 1]))


def test_a_bomb_inflates_no_further_than_its_header_says(tmp_path):
    content = nib.Nifti1Image(numbers(), np.eye(4)).to_bytes() + bytes(2**28)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(content, 1))
    assert read_nifti(tmp_path / "bomb.nii.gz").data.shape == (6, 7, 8)


@pytest.mark.parametrize("position", [0.3, 0.6, 0.95])
def test_a_flipped_byte_in_the_gzip_is_found(tmp_path, position):
    path = tmp_path / "scan.nii.gz"
    write_nifti(path, numbers((30, 30, 30)), np.eye(4))
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(HeadstartError, match=r"scan\.nii\.gz: is damaged or cut short"):
        read_nifti(path)


def oblique(angle=0.2, scale=1.0) -> np.ndarray:
    affine = np.diag([scale, scale, scale, 1.0])
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine[:3, :3] = rotation * scale
    affine[:3, 3] = [6, -2, 3.3]
    return affine


def test_oblique_resampling_equals_scipy():
    image = Image(smooth(), np.diag([-1.0, 1.1, 0.9, 1]))
    ours = resample(image, oblique(), (30, 28, 26))
    matrix = np.linalg.inv(image.affine) @ oblique()
    theirs = affine_transform(image.data, matrix[:3, :3], matrix[:3, 3], (30, 28, 26), order=1, mode="grid-constant")
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.0, 2.4, 4.0])
def test_parallel_grids_take_a_short_cut_to_the_same_numbers(scale):
    image = Image(smooth()[::-1].transpose(0, 2, 1), np.diag([1.0, 1, 1, 1]))
    straight, turned = (resample(image, oblique(angle, scale), (9, 8, 7)) for angle in (0.0, 0.004))
    assert np.abs(straight - turned).max() < 0.02 * np.abs(image.data).max()


def test_downsampling_does_not_alias():
    x = np.indices((64, 64, 64)).sum(0) % 2  # the finest checkerboard
    coarse = resample(Image(x.astype(np.int16), np.eye(4)), np.diag([4.0, 4, 4, 1]), (14, 14, 14))
    turned = resample(Image(x.astype(np.int16), np.eye(4)), oblique(0.1, 4.0), (6, 10, 10))
    assert np.allclose(coarse[1:-1, 1:-1, 1:-1], 0.5, atol=1e-6)
    assert np.allclose(turned[2:-1, 2:-1, 2:-1], 0.5, atol=1e-6)


def test_a_point_stays_where_it_is_in_the_world():
    data = np.zeros((60, 60, 60), np.float32)
    data[33, 21, 40] = 1
    image = Image(data, oblique(0.3))
    spec = VOLUMES["2mm"]
    world = image.affine @ [33, 21, 40, 1]
    target = spec.affine.copy()
    target[:3, 3] += world[:3]
    volume = resample(image, target, spec.shape)
    mean = (np.indices(spec.shape).reshape(3, -1) * volume.ravel()).sum(1) / volume.sum()
    assert np.allclose((target @ [*mean, 1])[:3], world[:3], atol=0.6)


def test_outside_the_field_of_view_is_zero():
    far = np.eye(4)
    far[:3, 3] = 500
    assert not resample(Image(smooth(), np.eye(4)), far, (5, 6, 7)).any()
    assert not resample(Image(smooth(), np.eye(4)), far @ oblique(), (5, 6, 7)).any()


def test_grid_around_the_centre_and_unit_range():
    volume = scale_intensity(resample_to_grid(Image(smooth((90, 100, 90)) + 50, np.eye(4)), VOLUMES["4mm"]))
    assert volume.shape == (40, 48, 40)
    assert volume.dtype == np.float32
    assert (volume.min(), volume.max()) == (0, 1)
    middle = np.argwhere(volume > 0).mean(0)
    assert np.allclose(middle, (np.array(volume.shape) - 1) / 2, atol=0.2)


def test_real_scans(real_data: Path):
    for name in ("ds002748/sub-01", "ds000011/sub-01", "ixi10/sub-IXI012"):
        path = next((real_data / name / "anat").glob("*.nii.gz"))
        read, expected = read_nifti(path), nib.as_closest_canonical(nib.load(path))
        assert np.array_equal(read.data, np.asanyarray(expected.dataobj))
        assert np.allclose(read.affine, expected.affine)
