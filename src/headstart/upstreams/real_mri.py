"""Real MRI: published 3D medical networks. What each has seen decides which test cohorts it may be judged on."""

from __future__ import annotations

from headstart.upstreams.base import Hub, Manual, Package, Source, Upstream, Url
from headstart.upstreams.recipes import RECIPES, monai_vit
from headstart.upstreams.synthetic_mri import shipped

DEEPBET_SHA256 = "de8ee7c69654d0dd3935dc4a5d84571d8ecf4637a6bfc01df399c4c2bc86e0fd"
SFCN_FILE = "https://github.com/ha-ha-ha-han/UKBiobank_deep_pretrain/raw/master/brain_age/run_20190719_00_epoch_best_mae.p"


def _record(name: str, backbone: str, source: Source, recipe: str, licence: str, paper: str,
            seen: tuple[str, ...] | None, preprocessing: str, millions: float, note: str) -> Upstream:
    return Upstream(name, "real-mri", (backbone,), source, RECIPES[recipe], licence, True, paper, seen, preprocessing,
                    round(millions * 1e6), note)


def _medicalnet(depth: int, millions: float) -> Upstream:
    return _record(f"medicalnet-resnet{depth}", f"medicalnet-resnet{depth}",
                   Hub(f"TencentMedicalNet/MedicalNet-Resnet{depth}", f"resnet_{depth}_23dataset.pth"), "medicalnet",
                   "MIT", "arXiv 1904.00625", None, "CT and MR volumes, each to mean 0 and deviation 1",
                   millions, "Segmentation of 23 data sets, said to include MRBrainS18 and the Medical Segmentation "
                   "Decathlon; the list could not be checked here, so an overlap cannot be excluded.")


UPSTREAMS = (
    shipped("real-mri", "real-mri", None, "Trained on real scans; config.json lists the data sets."),
    _medicalnet(10, 14.4),
    _medicalnet(18, 33.0),
    _medicalnet(50, 46.2),
    _record("deepbet", "deepbet-encoder", Package("deepbet", "data/models/model.pt", DEEPBET_SHA256), "deepbet", "MIT",
            "arXiv 2308.07003", ("OpenNeuro",), "whole heads on a 256³ grid, clipped and standardised", 2.1,
            "Brain extraction, trained on T1w scans of 191 OpenNeuro data sets: an OpenNeuro test set may be among "
            "them. Comes with deepbet's wheel; TorchScript, whose tensors are read without running its code."),
    _record("ukb-sfcn", "sfcn", Url(SFCN_FILE), "sfcn", "MIT", "doi 10.1016/j.media.2020.101871", ("UK Biobank",),
            "1 mm MNI, 160×192×160, brain-extracted, each scan divided by its mean", 2.9,
            "Brain age, 12,949 scans. The authors publish code but no package: the key names are theirs, the outputs "
            "unverified. Re-estimate BatchNorm: intensities are scaled otherwise here."),
    Upstream("openmind-resenc-large", "real-mri", ("resenc-large",),
             Hub("MIC-DKFZ/ResEncL-OpenMind-MAE", "checkpoint_final.pth"), RECIPES["resenc"],
             "could not be read here: see the publisher's page", None, "arXiv 2412.17041", ("OpenNeuro",),
             "1 mm, each crop to mean 0 and deviation 1", 90_300_000,
             "Masked autoencoder on head and neck MRI of OpenNeuro: an OpenNeuro test set may be among them. The file "
             "is said to hold training settings beside the tensors, and may have to be saved as safetensors first."),
    Upstream("brainsegfounder", "real-mri", ("swin-unetr",), Manual("https://github.com/lab-smile/BrainSegFounder"),
             RECIPES["swin-unetr"], "GPL-3.0", True, "arXiv 2406.10395", ("UK Biobank",),
             "1 mm, crops of 96³", 8_100_000,
             "Self-supervised on UK Biobank; later stages also on BraTS or ATLAS. Only files for one channel fit."),
    Upstream("3dino-vit-large", "real-mri", ("vit-large",), Manual("https://huggingface.co/AICONSlab/3DINO-ViT"),
             RECIPES["3dino"], "CC BY-NC-ND 4.0", False, "arXiv 2501.11755", None,
             "112³, one channel", 303_000_000,
             "About 100,000 MR and CT volumes of many organs; the list could not be checked here, so an overlap cannot "
             "be excluded. Its code is no package: the outputs are unverified. The page asks for an account. Large: a "
             "GPU."),
    Upstream("brainiac-vit-base", "real-mri", ("vit-base-patches",), Manual("https://github.com/AIM-KannLab/BrainIAC"),
             monai_vit("brainiac", (6, 6, 6), None), "non-commercial academic research (Mass General Brigham)", False,
             "doi 10.1038/s41593-026-02202-6", None, "96³, brain-extracted, standardised inside the brain", 88_400_000,
             "The publisher gives no list of cohorts that could be checked here: an overlap with a test cohort cannot "
             "be excluded."),
)
