"""Make published weights fit a 3D brain network: pure named steps, a receipt for every key, safe reading of files."""

from headstart.adaptation.batchnorm import reestimate_batchnorm
from headstart.adaptation.channels import GrayInput
from headstart.adaptation.checkpoint import read_checkpoint
from headstart.adaptation.fusing import FoldLayerScale, FuseQkv, JoinPrefixTokens, JoinQvBias, ZeroBias
from headstart.adaptation.inflation import Inflate
from headstart.adaptation.kernels import ResizeKernel
from headstart.adaptation.keymap import Drop, Rename
from headstart.adaptation.positions import AddSinusoidPositions, JoinSpaceTimePositions, ResizePositions
from headstart.adaptation.steps import State, Step, Target
from headstart.adaptation.transfer import TransferReport, transfer_weights

__all__ = [
    "AddSinusoidPositions",
    "Drop",
    "FoldLayerScale",
    "FuseQkv",
    "GrayInput",
    "Inflate",
    "JoinPrefixTokens",
    "JoinQvBias",
    "JoinSpaceTimePositions",
    "Rename",
    "ResizeKernel",
    "ResizePositions",
    "State",
    "Step",
    "Target",
    "TransferReport",
    "ZeroBias",
    "read_checkpoint",
    "reestimate_batchnorm",
    "transfer_weights",
]
