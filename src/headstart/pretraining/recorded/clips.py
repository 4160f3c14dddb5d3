"""Clips from video files: decoded by FFmpeg through PyAV, in grey, a frame for every sagittal plane.

Time runs along X, from left to right, as it does when the kernels of video networks are imported; a frame's width lies
along Y, its height along Z, the right way up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from headstart.brains.volumes import VolumeSpec
from headstart.errors import HeadstartError

STRIDE = 2  # every second frame, as Kinetics networks read them
PIECES = 4  # of a long clip, at most


def read_clip(path: Path, spec: VolumeSpec) -> np.ndarray:
    """The pieces of a clip that follow each other, each as many frames as the grid has sagittal planes.

    A clip that is too short for one piece is stretched over it.

    Returns:
        (pieces, X, Y, Z) float32 in [0, 1].

    Raises:
        HeadstartError: PyAV is not installed, or the file cannot be decoded.
    """
    length = spec.shape[0]
    frames = list(_frames(path, spec, PIECES * length * STRIDE))
    if len(frames) < 2:
        raise HeadstartError("has no moving picture", path=path, fix="Remove it, or give a clip of some frames.")
    pieces = len(frames) // (length * STRIDE)
    if not pieces:
        return np.stack(frames)[np.linspace(0, len(frames) - 1, length).round().astype(int)][None]
    return np.stack(frames[: pieces * length * STRIDE : STRIDE]).reshape(pieces, *spec.shape)


def _frames(path: Path, spec: VolumeSpec, most: int) -> Iterator[np.ndarray]:
    """Grey frames (Y, Z), float32."""
    try:
        import av
    except ImportError as error:
        raise HeadstartError("video files need PyAV", fix="pip install 'headstart[video]'") from error
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number >= most:
                    return
                yield _upright(frame, spec)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise HeadstartError(f"cannot be decoded ({error})", path=path, fix="Remove it, or convert it.") from error


def _upright(frame, spec: VolumeSpec) -> np.ndarray:
    """A frame cut to the plane's shape about its middle and scaled by FFmpeg, which averages over what it drops."""
    _, across, up = spec.shape
    scale = max(across / frame.width, up / frame.height)
    width, height = max(across, round(frame.width * scale)), max(up, round(frame.height * scale))
    grey = frame.reformat(width, height, format="gray", interpolation="AREA").to_ndarray()
    top, left = (height - up) // 2, (width - across) // 2
    return grey[top : top + up, left : left + across][::-1].T.astype(np.float32) / 255
