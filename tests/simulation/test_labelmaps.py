"""Brains from real label maps: volumes are set, labels true, and a subject is the same whoever is beside them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from headstart.brains.volumes import template, volume_spec
from headstart.errors import HeadstartError
from headstart.simulation import anatomies, freesurfer, labelmaps
from headstart.simulation.base import TISSUES, draw_subject, measure
from headstart.simulation.cohort import Design, write_store
from headstart.simulation.generate import generate
from headstart.simulation.labelmaps import LabelMapGenerator, _anatomy, target_ml
from headstart.simulation.morph import ENTORHINAL_ML

SPEC = volume_spec("4mm")


@pytest.fixture(scope="module")
def generator(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelMapGenerator:
    """One real anatomy: aligning it to the template takes half a minute, once."""
    folder = tmp_path_factory.mktemp("maps")
    (folder / "one.nii.gz").symlink_to(real_data / "synthseg_label_maps" / "training_seg_03.nii.gz")
    return LabelMapGenerator(folder)


@pytest.fixture(scope="module")
def brains(generator: LabelMapGenerator):
    return generate(generator, 0, range(12), SPEC)


def test_a_subject_does_not_depend_on_the_batch(generator: LabelMapGenerator, brains) -> None:
    again = generate(generator, 0, [7, 3], SPEC)
    assert torch.equal(again.volumes, brains.volumes[[7, 3]])
    assert again.labels["hippocampus_rel"].tolist() == brains.labels["hippocampus_rel"][[7, 3]].tolist()


@pytest.mark.parametrize(("structure", "tolerance"),
                         [("grey", 0.01), ("white", 0.02), ("lateral_ventricles", 0.15), ("hippocampus", 0.03),
                          ("entorhinal", 0.03), ("putamen", 0.03)])
def test_volumes_are_those_that_were_asked_for(brains, structure: str, tolerance: float) -> None:
    wanted = np.array([target_ml(draw_subject(0, i), structure) for i in range(12)])
    error = np.abs(brains.labels[f"{structure}_rel"] / wanted - 1)
    assert np.median(error) < tolerance
    assert np.sort(error)[-3] < 3 * tolerance


@pytest.mark.parametrize("age", [18.0, 25.0, 50.0, 85.0])
def test_cortex_is_as_asked_for_in_the_young_and_in_the_old_whatever_a_region_loses(
        generator: LabelMapGenerator, age: float) -> None:
    """Young cortex fills sulci of an older anatomy; where it cannot, nothing else gives way."""
    for index, lost in product(range(4), (-0.1, 0.0, 0.1)):
        person = draw_subject(1, index, ages=(age, age + 1))
        shape = generator.shape(replace(person, losses={"temporo_parietal": lost, "nigra": 0.3}), SPEC)
        assert measure(shape, SPEC)["grey"] == pytest.approx(target_ml(person, "grey"), rel=0.02)
        assert measure(shape, SPEC)["entorhinal"] == pytest.approx(
            min(target_ml(person, "entorhinal"), ENTORHINAL_ML), rel=0.03)


def test_what_a_disease_takes_of_regions_without_a_volume_is_gone_there_and_nowhere_else(
        generator: LabelMapGenerator, brains, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {}
    mixed = labelmaps._mixed
    monkeypatch.setattr(labelmaps, "_mixed", lambda c, *rest: columns.update(now=c.clone()) or mixed(c, *rest))
    for index, ages in product(range(2), ((18.0, 25.0), (40.0, 60.0), (80.0, 90.0))):
        person = draw_subject(0, index, ages=ages)
        whole, ill = (generator.shape(replace(person, losses={"temporo_parietal": share, "nigra": 3 * share}), SPEC)
                      for share in (0.0, 0.1))
        region = columns["now"][labelmaps.COLUMNS.index("temporo_parietal")]
        cortex, nigra = ([shape.tissues[TISSUES.index(name)] for shape in (whole, ill)] for name in ("cortex", "nigra"))
        assert float((cortex[1] * region).sum() / (cortex[0] * region).sum()) == pytest.approx(0.9, abs=0.02)
        assert 0.99 < float((cortex[1] * (1 - region)).sum() / (cortex[0] * (1 - region)).sum()) < 1.05
        assert float(nigra[1].sum() / nigra[0].sum()) == pytest.approx(0.7, abs=1e-3)
        volumes = [measure(shape, SPEC) for shape in (whole, ill)]
        assert volumes[1]["grey"] == pytest.approx(volumes[0]["grey"], rel=0.01)
        assert volumes[1]["white"] == pytest.approx(volumes[0]["white"], rel=0.005)
        for shape in (whole, ill):
            assert float(shape.tissues.min()) >= 0
            assert torch.allclose(shape.tissues.sum(0), torch.ones(1), atol=2e-3)


@pytest.mark.parametrize(("shape", "words"), [((12, 12, 12), "is an image, not a label map"),
                                              ((12, 12, 12, 2), "has 4 dimensions")])
def test_an_8_bit_image_and_a_series_are_no_label_map(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "m.nii")
    with pytest.raises(HeadstartError, match=rf"m\.nii: {words}"):
        freesurfer.read_labels(tmp_path / "m.nii", anatomies.PUSHES)


def test_parcels_of_cortex_and_white_matter_count_as_what_they_are_parcels_of() -> None:
    aparc = np.array([0, 2, 17, 251, 1000, 1035, 2034, 3007, 4021, 5001, 5002, 11101, 12175, 13112, 14150, 600, -1])
    plain = [0, 2, 17, 251, 3, 3, 42, 2, 41, 2, 41, 3, 42, 2, 41, 0, 0]
    assert freesurfer.without_parcels(aparc).tolist() == plain


def test_a_subjects_dir_of_recon_all_is_a_folder_of_label_maps(tmp_path: Path) -> None:
    for name in ("bert", "ernie"):
        (tmp_path / name / "mri").mkdir(parents=True)
        small_map(tmp_path / name / "mri" / "aseg.mgz", 3, 4, 14, 17, 18, 10, 12, 11)
    for name in ("fsaverage", "fsaverage5", "lh.EC_average", "bert.long.base"):
        (tmp_path / name / "mri").mkdir(parents=True)
        small_map(tmp_path / name / "mri" / "aseg.mgz", 3)
    small_map(tmp_path / "sample-001.mgz", 3)
    found = LabelMapGenerator(tmp_path)
    assert [path.parts[-3] for path in found.paths] == ["bert", "ernie"]
    labels = freesurfer.read_labels(found.paths[0], anatomies.PUSHES)[0]
    assert np.isin((3, 17), labels).all()


def test_images_look_prepared(brains) -> None:
    for volume in brains.volumes[:, 0]:
        inside = volume[volume != 0]
        assert 24_000 < len(inside) < 39_000
        assert -0.5 <= inside.min() <= inside.max() <= 2
        assert 0.3 < inside.median() < 0.9  # between grey matter at 0.5 and white matter at 1


def test_ventricles_of_the_image_follow_their_label(brains) -> None:
    x, y, z = (slice(15, 25), slice(18, 34), slice(18, 26))  # around the lateral ventricles
    dark = (brains.volumes[:, 0, x, y, z] < 0.25).flatten(1).sum(1).numpy()
    assert np.corrcoef(dark, brains.labels["lateral_ventricles_rel"])[0, 1] > 0.8


def test_a_folder_without_label_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match=r"holds no label maps.*FreeSurfer or SynthSeg"):
        LabelMapGenerator(tmp_path)


def test_an_image_is_not_a_label_map(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = next((real_data / "ixi10").rglob("*_T1w.nii.gz"))
    (tmp_path / "scan.nii.gz").symlink_to(scan)
    with pytest.raises(HeadstartError, match="is an image, not a label map"):
        generate(LabelMapGenerator(tmp_path), 0, [0], SPEC)
    assert "building the anatomy of" in capsys.readouterr().err


def test_all_files_that_are_no_label_maps_are_named_before_anybody_is_simulated(
        generator: LabelMapGenerator, brains, real_data: Path, tmp_path: Path) -> None:
    maps, scans = tmp_path / "maps", sorted((real_data / "ixi10").rglob("*_T1w.nii.gz"))
    maps.mkdir()
    (maps / "good.nii.gz").symlink_to(generator.paths[0].resolve())  # its anatomy is in the cache
    (maps / "scan.nii.gz").symlink_to(scans[0])
    (maps / "torn.nii.gz").write_bytes(scans[1].read_bytes()[:5000])
    with pytest.raises(HeadstartError, match="2 of 3 label maps cannot be used") as refused:
        write_store(tmp_path / "store", n=4, generator="labelmaps", labelmaps=maps, volume="4mm", progress=False)
    assert all(name in str(refused.value) for name in ("scan.nii.gz", "torn.nii.gz"))
    assert not (tmp_path / "store").exists()
    (maps / "torn.nii.gz").unlink()
    with pytest.raises(HeadstartError, match=r"scan\.nii\.gz.*is an image"):
        LabelMapGenerator(maps).build(SPEC, progress=False)


def test_an_anatomy_near_to_what_is_wanted_is_likelier_and_none_is_out_of_reach(
        generator: LabelMapGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.nii.gz").symlink_to(generator.paths[0].resolve())
    several, rest = LabelMapGenerator(tmp_path), _anatomy(generator.paths[0], SPEC)
    bigger = {path: replace(rest, response=replace(rest.response, rest_ml=rest.response.rest_ml * factor))
              for path, factor in zip(several.paths, (1.0, 1.3, 10.0))}
    monkeypatch.setattr("headstart.simulation.labelmaps._anatomy", lambda path, spec: bigger[path])
    rng = np.random.default_rng(0)
    drawn = [several._likely(rng, rest.response.rest_ml, SPEC) for _ in range(300)]
    near, mid, far = (sum(one is anatomy for one in drawn) for anatomy in bigger.values())
    assert near > mid > far
    assert near + mid + far == 300
    wanted = 10 * rest.response.rest_ml
    assert sum(several._likely(rng, wanted, SPEC) is bigger[several.paths[2]] for _ in range(100)) > 95


def small_map(path: Path, *ids: int) -> Path:
    """A cube that holds these ids."""
    labels = np.zeros((12, 12, 12), np.int16)
    labels[2:10, 2:10, 2:10] = 2
    labels[3, 3, 3:3 + len(ids)] = ids
    nib.save((nib.MGHImage if path.suffix == ".mgz" else nib.Nifti1Image)(labels, np.eye(4)), path)
    return path


def test_a_missing_structure_is_named_before_the_alignment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anatomies, "_register", lambda *_: pytest.fail("a minute is lost"))
    small_map(tmp_path / "m.nii.gz", 3, 4, 14, 18, 10, 12, 11)
    with pytest.raises(HeadstartError, match=r"m\.nii\.gz: holds no hippocampus \(ids 17 53\)\."):
        anatomies.load_anatomy(tmp_path / "m.nii.gz", SPEC)


def test_what_is_lost_in_the_alignment_and_what_a_worker_cannot_name_is_named(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_map(tmp_path / "m.nii.gz", 3, 4, 14, 17, 18, 10, 12, 11)
    monkeypatch.setattr(anatomies, "_register", lambda *_: np.diag([1.0, 1, 1, 1]) + 1000 * np.eye(4, k=3))
    with pytest.raises(HeadstartError, match=r"m\.nii\.gz: holds no .*hippocampus.* once it is aligned"):
        anatomies.load_anatomy(path, SPEC)
    assert str(anatomies._named(IndexError("list index out of range"), path)).startswith(f"{path}: cannot be made")


def test_a_folder_called_like_a_label_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.nii.gz").mkdir()
    with pytest.raises(HeadstartError, match=r"m\.nii\.gz: is called like a label map and is no file"):
        LabelMapGenerator(tmp_path)


def test_the_description_knows_what_label_maps_hold(tmp_path: Path) -> None:
    said = []
    for name, ids in (("a", (3,)), ("b", (3,)), ("c", (3, 4))):
        (tmp_path / name).mkdir()
        small_map(tmp_path / name / "m.nii", *ids)
        said.append(Design(generator="labelmaps", labelmaps=tmp_path / name).describe())
    assert said[0] == said[1] != said[2]


def test_an_anatomy_that_was_cut_off_in_the_cache_is_made_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    monkeypatch.setattr(anatomies, "_build", lambda *_: (np.ones((1000, 24), np.float16),) * 2)
    path = small_map(tmp_path / "m.nii", 3)
    anatomies.load_anatomy(path, SPEC)
    for file in (tmp_path / "anatomies").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:5000])
        assert anatomies.load_anatomy(path, SPEC).bank.shape == (1000, 24)
        assert file.stat().st_size > 5000


def test_a_map_is_aligned_alike_every_time() -> None:
    """Else equal seeds would make other brains on another machine."""
    target = template("2mm")
    turned = np.roll(np.where(target.brain, target.t1, 0), (3, -2, 1), (0, 1, 2)).astype(np.float32)
    one, two = (anatomies._register(turned, target.spec.affine) for _ in range(2))
    assert np.array_equal(one, two)
    assert np.allclose(one[:3, 3], [6, -4, 2], atol=0.5)
