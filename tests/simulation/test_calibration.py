"""The measuring stick itself, and the population against it."""

import numpy as np
import pytest

from headstart.brains.volumes import template, volume_spec
from headstart.errors import HeadstartError
from headstart.simulation.ageing import INTRACRANIAL, REFERENCE_YEARS, STRUCTURES, TRAJECTORIES
from headstart.simulation.anatomy import AnatomyGenerator
from headstart.simulation.base import draw_subject
from headstart.simulation.calibration import calibrate, fractions_in_images, measure_line, to_markdown
from headstart.simulation.generate import generate
from headstart.simulation.regions import LATERAL_VENTRICLE, label_regions, radius
from headstart.simulation.segment import tissue_ml


def test_a_known_line_is_read_back():
    rng = np.random.default_rng(0)
    ages, male = rng.uniform(40, 86, 4000), rng.random(4000) < 0.5
    volumes = 200 * (1 - 0.004 * (ages - 60) + 0.05 * rng.standard_normal(4000) + 0.03 * (male - 0.5))
    line = measure_line("thalamus", volumes, ages, male)
    assert line.mean_60 == pytest.approx(200, rel=0.01)
    assert (line.slope, line.late_slope) == pytest.approx((-4.0, -4.0), abs=0.4)
    assert line.residual_cv == pytest.approx(5.2, abs=0.3)
    assert line.male == pytest.approx(3.0, abs=0.5)
    assert line.agrees(TRAJECTORIES["thalamus"])
    assert [line.close(figure, TRAJECTORIES["thalamus"]) for figure in ("slope", "male")] == [True, False]
    assert not measure_line("thalamus", 2 * volumes[0] - volumes, ages, male).agrees(TRAJECTORIES["thalamus"])


def test_the_population_ages_as_the_reference_does():
    people = [draw_subject(3, index, ages=REFERENCE_YEARS) for index in range(6000)]
    ages, male = np.array([p.age for p in people]), np.array([p.sex == "M" for p in people])
    for place, name in enumerate(STRUCTURES):
        real = TRAJECTORIES[name]
        line = measure_line(name, np.array([p.relative[place] for p in people]), ages, male)
        assert line.agrees(real), name
        assert line.slope == pytest.approx(real.slope, rel=0.08, abs=0.4), name
        assert line.late_slope == pytest.approx(real.late_slope, rel=0.12, abs=0.8), name
        assert line.residual_cv == pytest.approx(real.residual_cv, rel=0.12), name
        assert line.male == pytest.approx(real.male, abs=2.5), name
    heads = measure_line("intracranial", np.array([p.head_ml for p in people]), ages, male)
    assert (heads.mean_60, heads.male) == pytest.approx((INTRACRANIAL.mean_ml, INTRACRANIAL.male), rel=0.05)
    assert heads.residual_cv == pytest.approx(INTRACRANIAL.residual_cv, rel=0.05)


@pytest.fixture(scope="module")
def brains():
    return generate(AnatomyGenerator(), 3, range(60), volume_spec("4mm"), ages=REFERENCE_YEARS, strength=0.0)


def test_painted_brains_age_as_the_reference_does(brains):
    lines = {line.structure: line for line in calibrate(brains.labels)}
    assert lines["grey"].agrees(TRAJECTORIES["grey"])
    assert lines["lateral_ventricles"].slope > 10
    assert "| grey | -" in to_markdown(list(lines.values()))


def test_the_images_show_what_the_labels_say(brains):
    """Counting dark voxels about the ventricles, without any parameter of the simulation, puts people in order."""
    spec = volume_spec("4mm")
    about = radius(LATERAL_VENTRICLE, spec.affine, spec.shape) < 1.3
    fluid = 1 - brains.volumes[:, 0].numpy()[:, about].clip(0, 0.5).mean(1) * 2
    assert np.corrcoef(np.log(fluid), np.log(brains.labels["lateral_ventricles_rel"]))[0, 1] > 0.8


def test_segmented_volumes_are_those_of_a_known_image():
    """Half grey and half fluid in every voxel of one place, white elsewhere: what was put there is counted."""
    spec, target = volume_spec("4mm"), template("4mm")
    regions = label_regions(target)
    core, thalamus = regions["lateral_ventricles"], regions["thalamus"]
    image = np.where(target.brain, 1.0, 0.0)
    image[core], image[thalamus] = -0.1, 0.2
    found, ml = tissue_ml(image, spec), spec.spacing_mm**3 / 1000
    assert found["csf"] == pytest.approx((core.sum() + thalamus.sum() / 2) * ml)
    assert found["grey"] == pytest.approx(thalamus.sum() / 2 * ml)
    assert found["csf"] + found["grey"] + found["white"] < target.brain.sum() * ml
    assert core.sum() * ml <= found["lateral_ventricles"] <= found["csf"]


def test_segmented_volumes_age_with_the_people(brains):
    rows = [tissue_ml(volume, volume_spec("4mm")) for volume in brains.volumes[:, 0].numpy()]
    ventricles = np.array([row["lateral_ventricles"] for row in rows])
    assert np.corrcoef(ventricles, brains.labels["lateral_ventricles_rel"])[0, 1] > 0.9
    assert np.corrcoef([row["grey"] for row in rows], brains.labels["age"])[0, 1] < -0.3


def test_an_intensity_mixture_gives_shares_of_the_whole(brains):
    shares = fractions_in_images(brains.volumes[:5, 0].numpy())
    assert np.sum(list(shares.values()), axis=0) == pytest.approx(np.ones(5))
    assert shares["grey"].mean() > shares["csf"].mean()


def test_too_few_people_are_refused():
    with pytest.raises(HeadstartError, match="too few"):
        measure_line("grey", np.ones(5), np.arange(5), np.ones(5, bool))


def test_where_nobody_is_60_the_late_slope_is_left_open():
    rng = np.random.default_rng(0)
    ages, male = rng.uniform(40, 59, 400), rng.random(400) < 0.5
    line = measure_line("thalamus", 200 * (1 - 0.004 * (ages - 60) + 0.01 * rng.standard_normal(400)), ages, male)
    assert np.isnan(line.late_slope)
    assert line.agrees(TRAJECTORIES["thalamus"])
