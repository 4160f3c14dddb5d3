"""The embedded generator: every brain its own, volumes as asked for, labels true of what is painted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from headstart.brains.volumes import volume_spec
from headstart.simulation.ageing import STRUCTURES
from headstart.simulation.anatomy import COLUMNS, AnatomyGenerator, placed_columns
from headstart.simulation.base import GREY, LOSSES, TISSUES, WHITE, draw_subject, labels_of, measure
from headstart.simulation.generate import generate
from headstart.simulation.morph import target_ml

SPEC = volume_spec("4mm")
SMALL = ("third_ventricle",)  # a voxel of 4 mm is as wide as it is


@pytest.fixture(scope="module")
def people():
    generator = AnatomyGenerator()
    subjects = [draw_subject(1, index) for index in range(30)]
    return [(subject, generator.shape(subject, SPEC)) for subject in subjects]


def test_tissue_fills_every_voxel_once(people):
    for _, shape in people:
        assert shape.tissues.min() >= 0
        torch.testing.assert_close(shape.tissues.sum(0), torch.ones(len(shape.depth_mm)), atol=0.02, rtol=0)


@pytest.mark.parametrize("structure", [name for name in STRUCTURES if name not in SMALL])
def test_volumes_are_set(people, structure):
    errors = [measure(shape, SPEC)[structure] / target_ml(subject, structure) - 1 for subject, shape in people]
    assert np.median(np.abs(errors)) < 0.02
    assert np.quantile(np.abs(errors), 0.9) < 0.08


def test_small_structures_follow_what_is_asked(people):
    got = [measure(shape, SPEC)["third_ventricle"] for _, shape in people]
    assert np.corrcoef(got, [target_ml(subject, "third_ventricle") for subject, _ in people])[0, 1] > 0.85


def test_labels_are_sums_over_the_painted_tissue(people):
    subject, shape = people[0]
    row = labels_of(subject, shape, SPEC)
    ml = dict(zip(TISSUES, (shape.tissues.sum(1) * SPEC.spacing_mm**3 / 1000).tolist()))
    assert row["grey_rel"] == pytest.approx(sum(ml[name] for name in GREY), rel=1e-4)
    assert row["white_rel"] == pytest.approx(sum(ml[name] for name in WHITE), rel=1e-4)
    assert row["hippocampus_ml"] == pytest.approx(ml["hippocampus"] * shape.head_scale, rel=1e-4)


def test_no_two_brains_fold_alike(people):
    cortex = torch.stack([shape.tissues[TISSUES.index("cortex")] for _, shape in people])
    alike = np.corrcoef(cortex.numpy())[np.triu_indices(len(people), 1)]
    assert 0.2 < alike.mean() < 0.8
    assert alike.max() < 0.9


def test_disease_outside_the_trajectories_reaches_the_tissue():
    generator, subject = AnatomyGenerator(), replace(draw_subject(1, 3), losses=dict.fromkeys(LOSSES, 0.0))
    healthy = measure(generator.shape(subject, SPEC), SPEC)
    nigra = TISSUES.index("nigra")
    ill = generator.shape(replace(subject, losses={"nigra": 0.5, "temporo_parietal": 0.2}), SPEC)
    before, after = (float(shape.tissues[nigra].sum()) for shape in (generator.shape(subject, SPEC), ill))
    assert after == pytest.approx(before / 2, rel=0.01)
    assert measure(ill, SPEC)["grey"] == pytest.approx(healthy["grey"], rel=0.01)  # cortex moves, grey matter is set


def test_the_share_of_cortex_lost_is_the_share_that_was_asked_for():
    region, changes = COLUMNS.index("temporo_parietal"), []
    for index in range(6):
        subject = draw_subject(3, index, ages=(55.0, 90.0))
        there = placed_columns(subject, SPEC)[region]
        kept = {lost: AnatomyGenerator().shape(replace(subject, losses={"nigra": 0.0, "temporo_parietal": lost}), SPEC)
                for lost in (-0.05, 0.0, 0.1)}
        ml = {lost: float((shape.tissues[TISSUES.index("cortex")] * there).sum()) for lost, shape in kept.items()}
        changes.append([ml[0.1] / ml[0.0] - 1, ml[-0.05] / ml[0.0] - 1])
    assert np.mean(changes, 0) == pytest.approx([-0.1, 0.05], abs=0.015)


def test_a_brain_is_a_function_of_seed_and_index_alone():
    together = generate(AnatomyGenerator(), 7, [4, 9, 2], SPEC)
    alone = generate(AnatomyGenerator(), 7, [9], SPEC)
    torch.testing.assert_close(together.volumes[1:2], alone.volumes, rtol=0, atol=0)
    assert {name: values[1] for name, values in together.labels.items()} == {
        name: values[0] for name, values in alone.labels.items()}
    other = generate(AnatomyGenerator(), 7, [9], SPEC, purpose="cohort")
    assert not torch.equal(other.volumes, alone.volumes)


def test_more_than_one_grid(long):
    if not long:
        pytest.skip("another bank takes some ten seconds: make test-long")
    fine = volume_spec("3mm")
    subject = draw_subject(2, 0)
    shape = AnatomyGenerator().shape(subject, fine)
    assert measure(shape, fine)["grey"] == pytest.approx(target_ml(subject, "grey"), rel=0.02)
