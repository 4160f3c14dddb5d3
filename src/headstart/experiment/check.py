"""What can be refused before a scan is prepared: unknown names, sites and columns, unfit weights, too few people."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.backbones import build_backbone
from headstart.backbones.model import BrainModel
from headstart.brains.cohort import Scan
from headstart.brains.volumes import volume_spec
from headstart.experiment.data import split_of, usable
from headstart.experiment.value import Request
from headstart.training.freezing import learning_part
from headstart.upstreams import default_start, load_into


def check(request: Request, scans: Sequence[Scan], volume: str) -> None:
    """Do for the folders' tables what ``run`` will do for the store: hours of preparation may lie between.

    Args:
        request: what is asked.
        scans: of the tables.
        volume: the grid on which they will be prepared.

    Raises:
        HeadstartError: as ``run`` would; names come first, and then what these scans do not allow.
    """
    spec, backbone = volume_spec(volume), request.backbone
    network = build_backbone(backbone, spec)
    start = request.upstream or default_start(backbone, volume)
    load_into(start, network, backbone, spec, accept_licence=request.accept_licence)
    with learning_part(BrainModel(network, 1), request.mode, seed=0):
        pass  # the backbone has what this mode changes
    task, rows, targets, _ = usable(scans, request)
    split_of(request, [scans[row] for row in rows], targets, task)
