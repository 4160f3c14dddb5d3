"""Every preset is a configuration that can be planned; the paper's needs no data for a dry run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from tiny_benchmark import TINY, write_config, write_start

from headstart.benchmark.config import load_config, narrowed, presets
from headstart.benchmark.estimate import estimate, forward
from headstart.benchmark.plan import read_plan
from headstart.benchmark.resolve import make_plan
from headstart.benchmark_commands import Preset
from headstart.cli import app
from headstart.errors import HeadstartError
from headstart.simulation.cohort import write_cohort
from headstart.upstreams import find

ROOT = Path(__file__).resolve().parents[2]
DOMAINS = {"natural-images", "video", "real-mri"}


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADNI_BIDS", "UKB_BIDS", "PPMI_BIDS", "LDM100K_VIT"):
        monkeypatch.delenv(name, raising=False)


def test_the_command_line_names_the_presets_that_there_are() -> None:
    assert sorted(preset.value for preset in Preset) == list(presets())


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_planned_without_data(name: str) -> None:
    config = load_config(name)
    plan = make_plan(config, dry=True)
    expected = estimate(plan, config)
    assert expected.cells == len(plan.cells) == len(plan.tasks) * len(plan.rows) * len(plan.train_sizes) * config.seeds
    assert 0 < expected.training_hours < 100_000
    assert (ROOT / "configs" / f"{name}.yaml").resolve() == (
        ROOT / "src" / "headstart" / "benchmark" / "presets" / f"{name}.yaml")


def test_the_test_on_real_scans_is_a_plan_that_loads() -> None:
    config = load_config(ROOT / "configs" / "real-transfer.yaml")
    assert [entry.task for entry in config.tasks] == ["brain-age", "brain-age", "sex", "sex"]
    assert config.seeds == 5


@pytest.mark.parametrize("name", presets())
def test_every_backbone_has_its_own_scratch_and_fits_its_starts(name: str) -> None:
    rows = load_config(name).rows
    for row in rows:
        assert any(other.upstream == "scratch" and other.backbone == row.backbone for other in rows), row
        if row.start is None:
            fits = find(row.upstream).backbones
            assert not fits or row.backbone in fits, row


def test_the_papers_matrix_is_there() -> None:
    """ViT and CNN, each from natural images, video, medical images and synthetic MRI; AD, PD and brain age."""
    config = load_config("paper")
    assert [entry.task for entry in config.tasks] == ["ad", "pd", "brain-age"]
    for is_vit in (True, False):
        rows = [row for row in config.rows if row.backbone.startswith("vit") == is_vit]
        named = {find(row.upstream).domain for row in rows if row.start is None}
        assert named >= DOMAINS
        assert any(row.upstream == "ldm100k" for row in rows)


def dry_run(*words: str) -> str:
    result = CliRunner().invoke(app, ["benchmark", "--preset", "paper", "--dry-run", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_dry_run_prints_cells_hours_and_disk_and_does_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    free, all_licences = dry_run(), dry_run("--accept-licence")
    for word in ("1200 cells", "20 rows", "hours", "GB of disk", "imagenet-mae-base in vit-base is left out",
                 "--accept-licence adds it", "ldm100k in vit-base is not here yet (counted here"):
        assert word in free
    assert "1380 cells" in all_licences
    assert "licence" not in all_licences
    assert "brainiac-vit-base' cannot be fetched by a program" in all_licences
    assert not list(tmp_path.iterdir())


def test_on_slurm_one_job_prepares_the_scans() -> None:
    few, many = dry_run("--executor", "slurm"), dry_run("--executor", "slurm", "--workers", "100")
    assert "on 32 workers" in few
    assert "on 100 workers" in many
    said = [text.split("preparing scans ")[1].split(" (assumed")[0] for text in (few, many)]
    assert said[0] == said[1] == "5 hours by one job on 8 CPUs"


def test_a_store_needs_no_preparation(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path / "tiny.yaml"))
    assert estimate(make_plan(config), config).preparation_hours == 0


def test_a_preset_and_a_configuration_are_not_given_together(tmp_path: Path) -> None:
    config = write_config(tmp_path / "tiny.yaml")
    result = CliRunner().invoke(app, ["benchmark", "--preset", "quick", "--config", str(config), "--dry-run"])
    assert "--preset quick and --config" in str(result.exception)


def test_operations_are_counted_without_computing() -> None:
    flops, parameters = forward("cnn-small", "4mm")
    assert parameters == 623_680
    voxels, channels = 40 * 48 * 40, 32
    assert flops > 2 * 27 * channels * voxels / 8  # the first convolution alone, at stride 2


def test_data_go_to_tasks_without_any(tmp_path: Path) -> None:
    config = narrowed(load_config("real-open"), data=[tmp_path])
    assert all(entry.bids == (str(tmp_path),) for entry in config.tasks)
    with pytest.raises(HeadstartError, match="no task to go to"):
        narrowed(load_config("quick"), data=[tmp_path])
    with pytest.raises(HeadstartError, match=r"has no data. Give --data"):
        make_plan(load_config("real-open"))


def test_a_store_at_another_volume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="holds scans at 4mm, and the benchmark is at 2mm"):
        make_plan(load_config(write_config(tmp_path / "wrong.yaml", volume="2mm")))


def test_each_site_is_left_out_in_turn(tmp_path: Path) -> None:
    plan = make_plan(load_config(write_config(tmp_path / "tiny.yaml", tasks=[
        {"task": "brain-age", "store": "$TINY_STORE", "leave_out": True}])))
    assert [task.name for task in plan.tasks] == ["brain-age@a", "brain-age@b", "brain-age@c"]
    assert [task.outside_sites for task in plan.tasks] == [("a",), ("b",), ("c",)]
    assert all(task.people_inside + task.people_outside == 32 for task in plan.tasks)


def test_a_size_said_twice_is_done_once(tmp_path: Path) -> None:
    assert load_config(write_config(tmp_path / "twice.yaml", train_sizes=[4, 4, "full"])).train_sizes == (4, "full")


def test_licences_may_be_accepted_later(tmp_path: Path) -> None:
    plan = make_plan(load_config(write_config(tmp_path / "tiny.yaml")))
    plan.claim(tmp_path)
    later = plan.model_copy(update={"accept_licence": True})
    later.claim(tmp_path)
    assert later.cells == plan.cells
    assert read_plan(tmp_path).accept_licence


def test_two_studies_with_one_name_for_their_sites_are_not_mixed(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_cohort(tmp_path / name, n=8, cohort="ageing", sites=2, seed=len(name), volume="4mm", progress=False)
    config = load_config(write_config(tmp_path / "two.yaml", tasks=[
        {"task": "brain-age", "bids": [str(tmp_path / "first")], "outside_bids": [str(tmp_path / "second")]}]))
    with pytest.raises(HeadstartError, match="site 'sim-a' is in `bids` and `outside_bids`"):
        make_plan(config)


def test_upstreams_and_tasks_are_narrowed_but_scratch_stays() -> None:
    config = narrowed(load_config("quick"), upstreams=["synthetic-mri"], tasks=["pd"])
    assert [entry.task for entry in config.tasks] == ["pd"]
    assert {(row.backbone, row.upstream) for row in config.rows} == {
        (backbone, upstream) for backbone in ("vit-mini", "cnn-small") for upstream in ("scratch", "synthetic-mri")}
    with pytest.raises(HeadstartError, match="no upstream 'magic'"):
        narrowed(load_config("quick"), upstreams=["magic"])


@pytest.mark.parametrize(("change", "problem"), [
    ({"rows": []}, "rows"), ({"seeds": 0}, "seeds"), ({"colour": "blue"}, "colour"),
    ({"tasks": [{"task": "brain-age", "simulate": {"cohort": "ageing"}}]}, "simulate.n"),
    ({"slurm": {"minutes": 0}}, "slurm.minutes"), ({"train_sizes": ["most"]}, "train_sizes"),
    ({"train_sizes": []}, "train_sizes"), ({"train_sizes": [0, "full"]}, "train_sizes"),
    ({"name": "../elsewhere"}, "name"), ({"name": "a[/b]"}, "name"), ({"name": ""}, "name"),
    ({"tasks": [TINY["tasks"][0] | {"name": "/tmp/elsewhere"}]}, "tasks.0.name"),
    ({"training": {"epochs": 0}}, "training.epochs"), ({"training": {"batch_size": 0}}, "training.batch_size"),
    ({"training": {"patience": -3}}, "training.patience"), ({"training": {"layer_decay": -1}}, "training.layer_decay"),
    ({"training": {"learning_rates": []}}, "training.learning_rates"),
    ({"training": {"learning_rates": [0]}}, "training.learning_rates.0"),
    ({"training": {"learning_rates": [float("inf")]}}, "training.learning_rates.0"),
    ({"tasks": [TINY["tasks"][0] | {"people": -5}]}, "tasks.0.people"),
    ({"tasks": [TINY["tasks"][0] | {"people_outside": -5}]}, "tasks.0.people_outside"),
    ({"tasks": [{"task": "brain-age", "simulate": {"cohort": "ageing", "n": 18, "sites": 0}}]}, "simulate.sites"),
    ({"tasks": [{"task": "brain-age", "simulate": {"cohort": "ageing", "n": 18, "seed": -1}}]}, "simulate.seed"),
    ({"tasks": [TINY["tasks"][0] | {"simulate": {"cohort": "ageing", "n": 18}}]}, "has `simulate:` and `store:`"),
    ({"tasks": [TINY["tasks"][0] | {"bids": ["here"]}]}, "has `store:` and `bids:`"),
    ({"slurm": {"minutes": 1, "warn_seconds": 600}}, "job of 1 minutes cannot be warned 600 seconds before"),
    ({"slurm": {"memory_gb": -1}}, "slurm.memory_gb"), ({"train_sizes": [3]}, "from 3 people nothing can be learned"),
    ({"rows": [{"backbone": "cnn-small", "upstream": "scratch", "start": "here"}]}, "another name")])
def test_a_wrong_field_is_named(tmp_path: Path, change: dict, problem: str) -> None:
    with pytest.raises(HeadstartError, match=problem):
        load_config(write_config(tmp_path / "wrong.yaml", **change))


@pytest.mark.parametrize(("change", "problem"), [
    ({"tasks": [{"task": "astrology", "simulate": {"cohort": "ageing", "n": 18}}]}, "unknown task"),
    ({"tasks": [TINY["tasks"][0] | {"outside_sites": ["z"]}]}, "no usable scan of site 'z'"),
    ({"tasks": [TINY["tasks"][0] | {"outside_sites": ["a", "b", "c"]}]}, "holds out every site"),
    ({"volume": "7mm"}, "7mm"),
    ({"rows": [{"backbone": "vit-mini", "upstream": "magic"}]}, "none of the starts is here"),
    ({"rows": [{"backbone": "nobackbone", "upstream": "scratch"}]}, "unknown backbone 'nobackbone'"),
    ({"rows": [TINY["rows"][0], TINY["rows"][0] | {"mode": "knn"}]}, "the start 'scratch in cnn-small' 2 times"),
    ({"tasks": [TINY["tasks"][0], TINY["tasks"][0] | {"outside_sites": ["a"]}]}, "the task 'brain-age' 2 times"),
    ({"train_sizes": [1000]}, "fewer than any of train_sizes"),
    ({"tasks": [{"task": "brain-age", "simulate": {"cohort": "ageing", "n": 18}, "leave_out": True}]}, "leave_out"),
    ({"tasks": [{"task": "pd", "simulate": {"cohort": "ad", "n": 18}}]}, "at the training sites has diagnosis PD"),
    ({"tasks": [{"task": "ad", "simulate": {"cohort": "ageing", "n": 18}}]}, "has diagnosis AD"),
    ({"tasks": [{"task": "pd", "store": "$TINY_STORE"}]}, "has diagnosis PD"),
    ({"rows": [{"backbone": "vit-mini", "upstream": "imagenet-vit-base"}]}, "does not fit the backbone 'vit-mini'"),
    ({"rows": [{"backbone": "cnn-small", "upstream": "mine", "start": "/etc/passwd"}]}, "/etc/passwd"),
    ({"rows": [{"backbone": "cnn-small", "upstream": "mine", "start": "/etc"}]}, "is not a headstart model")])
def test_what_cannot_be_planned_is_refused(tmp_path: Path, change: dict, problem: str) -> None:
    with pytest.raises(HeadstartError, match=problem):
        make_plan(load_config(write_config(tmp_path / "wrong.yaml", **change)))


def test_a_start_is_looked_at_before_anything_is_planned(tmp_path: Path) -> None:
    folder = write_start(tmp_path) / "synthetic-mri" / "cnn-small-4mm"

    def planned(backbone: str, start: Path) -> tuple[str, ...]:
        row = {"backbone": backbone, "upstream": "mine", "start": str(start)}
        return make_plan(load_config(write_config(tmp_path / "a.yaml", rows=[TINY["rows"][0], row]))).upstreams

    assert planned("cnn-small", folder) == ("scratch", "mine")
    with pytest.raises(HeadstartError, match="holds a 'cnn-small', not a 'vit-mini'"):
        planned("vit-mini", folder)
    weights = folder / "model.safetensors"
    with pytest.raises(HeadstartError, match="is a file, and a row starts from the folder of a model"):
        planned("cnn-small", weights)
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(HeadstartError, match=r"model\.safetensors"):
        planned("cnn-small", folder)


@pytest.mark.parametrize(("rows", "note"), [
    ([("cnn-small", "scratch", "full"), ("cnn-small", "synthetic-mri", "full")], None),
    ([("cnn-small", "scratch", "full"), ("cnn-small", "synthetic-mri", "probe")],
     "scratch in cnn-small learns in mode full, unlike synthetic-mri (probe)"),
    ([("cnn-small", "synthetic-mri", "full"), ("vit-mini", "scratch", "full")],
     "cnn-small has no scratch row to compare with: no gains can be given for synthetic-mri (full)")])
def test_a_start_without_its_like_in_scratch_is_noted(tmp_path: Path, rows: list[tuple[str, ...]],
                                                      note: str | None) -> None:
    found = make_plan(load_config(write_config(tmp_path / "a.yaml", rows=[
        dict(zip(("backbone", "upstream", "mode"), row, strict=True)) for row in rows]))).notes
    assert len(found) == bool(note)
    assert note is None or found[0].startswith(note)


@pytest.mark.parametrize("text", ["{", "- 1", ""])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(HeadstartError, match=r"wrong\.yaml"):
        load_config(path)
    with pytest.raises(HeadstartError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
