"""NIfTI files, read at nearly the speed of the inflate itself, and checked before memory is taken for them.

The header is nibabel's; the voxels go from isal's inflate straight into one array, are reoriented as views, and
never become float64.
"""

from __future__ import annotations

import io
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip, igzip_lib
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from headstart.brains.image import Image
from headstart.errors import HeadstartError
from headstart.files import atomic_write

DAMAGE = (EOFError, zlib.error, igzip_lib.IsalError, igzip.BadGzipFile)
MAX_BYTES = 2**31  # a T1w scan at 0.5 mm in float32 is 0.4 GB
MAX_EXTENSION_BYTES = 2**24
MAX_INFLATION = 1100  # deflate cannot do better than 1032:1
MAX_EXTENT_MM = 1000.0
MAX_NONFINITE = 0.001  # share of voxels that may be NaN or infinite; they are set to 0
MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # xyzt_units: metres, micrometres; everything else is mm
RECONVERT = "Convert the scan to NIfTI again (for example with dcm2niix)."
CONVERT = "Convert the scan to NIfTI: dcm2niix does so from DICOM, mri_convert from FreeSurfer's .mgz."
COPY_AGAIN = "Copy or download the file again."
ONE_VOLUME = "Give one 3D T1-weighted volume."


def read_nifti(path: str | Path) -> Image:
    """Read a 3D NIfTI-1 or NIfTI-2 file, gzipped (also in several members) or not, as the closest RAS+ image.

    Trailing dimensions of length 1 are dropped. Up to 0.1 % NaN or infinite voxels are set to 0, with a note.

    Raises:
        HeadstartError: the file cannot be read, is no NIfTI, is damaged, or cannot be a brain scan: not 3D, no usable
            orientation or voxel size, RGB or complex values, constant, larger than 2 GiB.
    """
    path = Path(path)
    try:
        with _open(path) as (file, limit):
            layout = _Layout.read(file, limit)
            voxels = _read_voxels(file, layout)
        return _image(voxels, layout)
    except HeadstartError as error:
        raise HeadstartError(error.problem, path=path, fix=error.fix) from error
    except DAMAGE as error:  # type: ignore[misc]  # isal comes without types
        raise HeadstartError(f"is damaged or cut short ({error})", path=path, fix=COPY_AGAIN) from error
    except OSError as error:
        raise HeadstartError(f"cannot be read ({error.strerror or error})", path=path,
                             fix="Check that the file exists and that you may read it.") from error


def write_nifti(path: str | Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write ``data`` (X, Y, Z) as NIfTI-1, gzipped if the name ends in ``.gz``; atomic, the same bytes every time.

    Raises:
        HeadstartError: the folder cannot be written.
    """
    narrow = {"bool": np.uint8, "float64": np.float32, "int64": np.int32, "float16": np.float32}
    image = nib.Nifti1Image(np.asarray(data, narrow.get(data.dtype.name, data.dtype)), affine)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    with atomic_write(path, "wb") as file:
        file.write(igzip.compress(content, mtime=0) if str(path).endswith(".gz") else content)


class _open:
    """The file's inflated bytes, and how many of them there can be at most."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> tuple[io.BufferedIOBase, int]:
        status = self.path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise HeadstartError("is not a file", fix=ONE_VOLUME)
        if status.st_size == 0:
            raise HeadstartError("is empty", fix=COPY_AGAIN)
        self.raw = open(self.path, "rb")
        zipped = self.raw.read(2) == b"\x1f\x8b"
        self.raw.seek(0)
        file = igzip.IGzipFile(fileobj=self.raw) if zipped else self.raw
        return file, status.st_size * (MAX_INFLATION if zipped else 1)

    def __exit__(self, *_: object) -> None:
        self.raw.close()


@dataclass(frozen=True)
class _Layout:
    """What the header says, checked."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    slope: float
    inter: float
    affine: np.ndarray

    @classmethod
    def read(cls, file: io.BufferedIOBase, limit: int) -> _Layout:
        header = _header(file)
        shape, dtype = _shape(header), _dtype(header)
        offset = _offset(header)
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        dims = "×".join(map(str, shape))
        if size > MAX_BYTES:
            raise HeadstartError(f"would take {size / 2**30:.1f} GiB ({dims} voxels), more than any brain scan",
                                 fix=f"The header may be damaged. {RECONVERT}")
        if offset + size > limit:
            raise HeadstartError(f"is cut short: {dims} voxels need {offset + size:,} bytes", fix=COPY_AGAIN)
        return cls(shape, dtype, offset, *_scaling(header), _affine(header, shape))


def _header(file: io.BufferedIOBase) -> nib.Nifti1Header:
    start = file.read(4)
    sizes = {int.from_bytes(start, order) for order in ("little", "big")} if len(start) == 4 else set()
    kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header
    if not sizes & {348, 540}:
        raise HeadstartError("is not a NIfTI file", fix=CONVERT)
    content = start + file.read(kind.sizeof_hdr - 4)
    if len(content) < kind.sizeof_hdr:
        raise HeadstartError("is cut short within its header", fix=COPY_AGAIN)
    header = kind.from_fileobj(io.BytesIO(content), check=False)
    magic = bytes(header["magic"].item())[:3]
    if magic in (b"ni1", b"ni2"):
        raise HeadstartError("is the header of a two-file NIfTI (.hdr and .img)", fix="Convert it to one .nii.gz file.")
    if magic not in (b"n+1", b"n+2"):
        raise HeadstartError("is not a NIfTI file (its header lacks the NIfTI mark; Analyze files do)", fix=RECONVERT)
    return header


def _shape(header: nib.Nifti1Header) -> tuple[int, int, int]:
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1:dims[0] + 1]):
        raise HeadstartError(f"has impossible dimensions {dims}", fix=RECONVERT)
    shape = dims[1:dims[0] + 1]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 3:
        raise HeadstartError(f"has {len(shape)} dimensions ({'×'.join(map(str, shape))}), expected 3", fix=ONE_VOLUME)
    if len(shape) < 3 or min(shape) == 1:
        raise HeadstartError(f"is not a volume but a slice ({'×'.join(map(str, shape))})", fix=ONE_VOLUME)
    return shape[0], shape[1], shape[2]


def _dtype(header: nib.Nifti1Header) -> np.dtype:
    code = int(header["datatype"])
    try:
        dtype = header.get_data_dtype()
    except KeyError:
        raise HeadstartError(f"has an unknown data type (code {code})", fix=RECONVERT) from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        name = "colours" if dtype.names else f"'{dtype.name}' values"
        raise HeadstartError(f"holds {name}, expected one real number per voxel", fix=ONE_VOLUME)
    return dtype


def _offset(header: nib.Nifti1Header) -> int:
    offset = float(header["vox_offset"])
    if not 0 <= offset <= MAX_EXTENSION_BYTES:  # also NaN
        raise HeadstartError(f"has an impossible data offset ({offset:g})", fix=RECONVERT)
    return max(int(offset), header.sizeof_hdr + 4)


def _scaling(header: nib.Nifti1Header) -> tuple[float, float]:
    """``scl_slope`` and ``scl_inter``; the standard reads a slope of 0 as 'not scaled'."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not np.isfinite([slope, inter]).all():
        raise HeadstartError(f"has an impossible intensity scale (slope {slope:g}, intercept {inter:g})", fix=RECONVERT)
    return slope, inter


def _affine(header: nib.Nifti1Header, shape: tuple[int, int, int]) -> np.ndarray:
    """The sform, else the qform, in mm. With neither, left and right are unknown: refused, not guessed."""
    sizes = header["pixdim"][1:4]
    if not np.isfinite(sizes).all() or (sizes == 0).any():
        raise HeadstartError(f"has an impossible voxel size ({_times(sizes)} mm)", fix=RECONVERT)
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        raise HeadstartError("does not say how it is oriented (sform_code and qform_code are 0), so left cannot be "
                             "told from right", fix=RECONVERT)
    try:
        affine = np.array(header.get_sform() if header["sform_code"] > 0 else header.get_qform(), float)
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        raise HeadstartError(f"has an unusable orientation ({error})", fix=RECONVERT) from None
    affine[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    _check_affine(affine, shape)
    return affine


def _check_affine(affine: np.ndarray, shape: tuple[int, int, int]) -> None:
    with np.errstate(over="ignore"):  # infinite is refused below
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (spacing > 1e-3).all():
        raise HeadstartError(f"has an impossible voxel size ({_times(spacing)} mm)", fix=RECONVERT)
    if (spacing * shape).max() > MAX_EXTENT_MM:
        raise HeadstartError(f"spans {_times(spacing * shape)} mm, more than any head", fix=RECONVERT)
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-2:
        raise HeadstartError("has an unusable orientation (two voxel axes point the same way)", fix=RECONVERT)


def _times(numbers: np.ndarray) -> str:
    return " × ".join(f"{float(number):g}" for number in numbers)


def _read_voxels(file: io.BufferedIOBase, layout: _Layout) -> np.ndarray:
    """The stored values as (X, Y, Z) in the file's own order, native byte order."""
    file.read(layout.offset - file.tell())
    values = np.empty(int(np.prod(layout.shape)), layout.dtype)
    buffer = memoryview(values.view(np.uint8))  # type: ignore[arg-type]
    got = 0
    while got < len(buffer) and (count := file.readinto(buffer[got:])):
        got += count
    if got < len(buffer):
        raise EOFError(f"{got:,} of {len(buffer):,} bytes of voxels")
    file.read(1)  # reaching the end makes the reader check the sum of a gzip member
    return values.astype(layout.dtype.newbyteorder("="), copy=False).reshape(layout.shape, order="F")


def _image(voxels: np.ndarray, layout: _Layout) -> Image:
    with np.errstate(over="ignore", invalid="ignore"):
        if (layout.slope, layout.inter) != (1.0, 0.0):
            voxels = voxels.astype(np.float32) * np.float32(layout.slope) + np.float32(layout.inter)
        voxels = voxels.astype(np.float32, copy=False) if voxels.dtype == np.float64 else voxels
    voxels, notes = _finite(voxels)
    low, high = voxels.min(), voxels.max()
    if low == high:
        raise HeadstartError("is empty: every voxel is 0" if low == 0 else f"is constant: every voxel is {low:g}",
                             fix="Look at the scan in a viewer and replace it.")
    orientation = io_orientation(layout.affine)
    affine = layout.affine @ inv_ornt_aff(orientation, layout.shape)
    return Image(apply_orientation(voxels, orientation), affine, notes)


def _finite(voxels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if voxels.dtype.kind != "f" or np.isfinite([voxels.min(), voxels.max()]).all():  # min and max pass NaN on
        return voxels, ()
    bad = ~np.isfinite(voxels)
    share = bad.mean()
    if share > MAX_NONFINITE:
        raise HeadstartError(f"has {share:.1%} NaN or infinite voxels", fix="Write the scan again without them.")
    return np.where(bad, np.float32(0), voxels), (f"{int(bad.sum())} NaN or infinite voxels were set to 0",)
