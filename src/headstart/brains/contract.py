"""The preprocessing contract: what was done to a scan before a network saw it. It travels with store and weights."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from headstart.brains.volumes import SPACE, VolumeSpec, volume_spec
from headstart.files import digest_json


class Contract(BaseModel):
    """Everything that must be equal between the scans a model was trained on and those it is asked about.

    Two contracts are interchangeable exactly if their ``digest`` agrees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    volume: str = "4mm"
    space: str = SPACE
    orientation: Literal["RAS"] = "RAS"
    brain_extraction: Literal["deepbet-1.0.2"] = "deepbet-1.0.2"  # where the scan still has its skull
    bias_correction: Literal["n4", "none"] = "n4"
    registration: Literal["affine", "rigid"] = "affine"
    intensity: str = "brain-robust-1"  # defined in brains/intensity.py

    @property
    def spec(self) -> VolumeSpec:
        return volume_spec(self.volume)

    @property
    def digest(self) -> str:
        return digest_json(self.model_dump())
