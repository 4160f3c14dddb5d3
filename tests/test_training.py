"""The loop: it learns, stops on validation, resumes to the bit after any kill, and is the same in two processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbones import build_model
from headstart.brains.volumes import VOLUMES, template
from headstart.errors import HeadstartError
from headstart.training import Classification, Preempted, Regression, TrainingPlan, fit, predict
from headstart.training.batches import Batch, epoch_batches, prefetched
from headstart.training.checkpoint import NAME
from headstart.training.optimisation import build_optimizer, rate_factor

sys.path.insert(0, str(Path(__file__).parent))
import training_job
from training_job import PLAN, SPLIT, Blobs, tiny_net

JOB = Path(__file__).parent / "training_job.py"
NOTHING = np.array([], dtype=int)


def run_fit(folder: Path | None = None, *, net=None, examples=None, split=SPLIT, objective=None, **changes):
    net = net or tiny_net()
    plan = PLAN.model_copy(update=changes)
    history = fit(net, objective or Regression(), examples or Blobs(), *split, plan, seed=3, folder=folder)
    return net, history


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


# ---------------------------------------------------------------- learning


def test_learns_and_predicts_in_years() -> None:
    net, history = run_fit(max_epochs=60, learning_rate=1e-2, patience=60)
    assert history.epochs[-1].train_loss < 0.3 * history.epochs[0].train_loss
    error = predict(net, Blobs(), SPLIT[1])[:, 0] - Blobs().targets[SPLIT[1]]
    assert np.abs(error).mean() < 15
    assert history.scans_per_second > 0


def test_bfloat16_products_leave_float32_weights_and_nearly_the_same_losses(monkeypatch) -> None:
    monkeypatch.setattr("headstart.training.loop.bfloat16_is_fast", lambda: True)
    exact, (rough, history) = run_fit()[1], run_fit(precision="bfloat16")
    assert all(value.dtype == torch.float32 for value in rough.state_dict().values())
    found, wanted = ([epoch.train_loss for epoch in one.epochs] for one in (history, exact))
    assert found != wanted
    np.testing.assert_allclose(found, wanted, rtol=0.05)


def test_a_processor_that_would_have_to_imitate_bfloat16_uses_float32(monkeypatch) -> None:
    monkeypatch.setattr("headstart.training.loop.bfloat16_is_fast", lambda: False)
    exact, asked = run_fit()[0], run_fit(precision="bfloat16")[0]
    for name, value in exact.state_dict().items():
        torch.testing.assert_close(asked.state_dict()[name], value, rtol=0, atol=0)


def test_ends_with_the_weights_of_the_best_validation_loss() -> None:
    net, history = run_fit(max_epochs=12, learning_rate=3e-2, patience=12)
    losses = [epoch.validation_loss for epoch in history.epochs]
    assert history.best_epoch == int(np.argmin(losses))
    targets = torch.tensor(Blobs().targets[SPLIT[1]])[:, None]
    terms = Regression()(net.eval(), Batch(Blobs().volumes(SPLIT[1]), targets, SPLIT[1].astype(np.uint64)))
    assert terms.loss.mean().item() == pytest.approx(min(losses), rel=1e-4)


def test_stops_when_validation_stops_improving() -> None:
    shuffled = Blobs()
    shuffled.targets = np.where(np.arange(30) >= 22, 100 - shuffled.targets, shuffled.targets)  # training misleads
    _, history = run_fit(examples=shuffled, max_epochs=50, patience=2, learning_rate=3e-2)
    assert len(history.epochs) == history.best_epoch + 3 < 50


def test_without_validation_runs_all_epochs_and_keeps_the_last() -> None:
    _, history = run_fit(split=(np.arange(30), NOTHING))
    assert len(history.epochs) == 5
    assert history.best_epoch == 4
    assert history.epochs[0].validation_loss is None


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    batches = epoch_batches(np.arange(100, 133), 16, seed=1, epoch=4)
    assert [len(batch) for batch in batches] == [11, 11, 11]
    assert sorted(np.concatenate(batches)) == list(range(100, 133))
    again, other = (epoch_batches(np.arange(100, 133), 16, seed=1, epoch=epoch) for epoch in (4, 5))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again))
    assert not all(np.array_equal(a, b) for a, b in zip(batches, other))


def test_prefetching_keeps_order_and_passes_errors_on() -> None:
    assert list(prefetched(lambda x: x * x, range(5))) == [0, 1, 4, 9, 16]
    with pytest.raises(ZeroDivisionError):
        list(prefetched(lambda x: 1 // x, [1, 0]))


def test_schedule_warms_up_then_falls_to_zero() -> None:
    factors = [rate_factor(step, 100, 0.1) for step in range(101)]
    assert np.all(np.diff(factors[:11]) > 0)
    assert np.all(np.diff(factors[10:]) < 0)
    assert factors[10] == pytest.approx(1)
    assert factors[100] == pytest.approx(0)


def test_layer_decay_and_weight_decay_reach_the_right_parameters() -> None:
    model = build_model("vit-mini", VOLUMES["4mm"], 1)
    optimizer = build_optimizer(model, TrainingPlan(layer_decay=0.5, weight_decay=0.1))
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(of) == len(list(model.parameters()))
    scales = {name: of[id(p)]["scale"] for name, p in model.named_parameters()}
    assert scales["head.weight"] == 1
    assert scales["backbone.norm.weight"] == 0.5
    assert scales["backbone.blocks.5.mlp.fc1.weight"] == 0.25
    assert scales["backbone.pos_embed"] == 0.5**8
    decayed = {name for name, p in model.named_parameters() if of[id(p)]["weight_decay"]}
    assert {"backbone.patch_embed.proj.weight", "head.weight"} <= decayed
    assert not {"backbone.pos_embed", "backbone.cls_token", "head.bias", "backbone.norm.weight"} & decayed


# ---------------------------------------------------------------- objectives


def test_missing_targets_do_not_count() -> None:
    net = tiny_net().eval()
    volumes = Blobs().volumes(np.arange(3))
    terms = Regression()(net, Batch(volumes, torch.tensor([[1.0], [float("nan")], [3.0]]), np.arange(3)))
    assert terms.weight.tolist() == [1, 0, 1]
    assert torch.isfinite(terms.loss).all()


def test_regression_standardises_its_targets() -> None:
    net, targets = tiny_net(), np.array([[10.0], [np.nan], [30.0]])
    Regression().prepare(net, targets)
    assert (net.target_mean.item(), net.target_scale.item()) == (20, 10)
    with pytest.raises(HeadstartError, match="unknown for every"):
        Regression().prepare(net, np.full((3, 1), np.nan))


def test_balanced_classes_weigh_the_same() -> None:
    objective = Classification(2)
    objective.prepare(tiny_net(), np.array([[0.0]] * 9 + [[1.0]] * 3 + [[np.nan]]))
    assert (objective.class_weight * torch.tensor([9, 3])).tolist() == pytest.approx([6, 6])
    with pytest.raises(HeadstartError, match="1 of 2 classes"):
        objective.prepare(tiny_net(), np.zeros((4, 1)))


def test_classification_learns_two_classes() -> None:
    examples = Blobs()
    truth = (examples.targets > 50).astype(float)
    examples.targets = truth
    order = np.random.default_rng(0).permutation(30)
    net = tiny_net(0.0)
    net.head = torch.nn.Linear(8, 2)
    net.register_buffer("target_mean", torch.zeros(2))
    net.register_buffer("target_scale", torch.ones(2))
    run_fit(net=net, examples=examples, split=(order[:22], order[22:]), objective=Classification(2), max_epochs=60,
            learning_rate=3e-2, patience=60)
    assert (predict(net, examples, order[:22]).argmax(1) == truth[order[:22]]).mean() > 0.9


def test_a_loss_that_is_not_finite_says_what_to_do() -> None:
    class Broken(Blobs):
        def volumes(self, indices):
            return super().volumes(indices) * float("nan")

    with pytest.raises(HeadstartError, match=r"diverged.*learning rate"):
        run_fit(examples=Broken())


# ---------------------------------------------------------------- resuming


def job(folder: Path, result: Path, *arguments: str, several: bool = False) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if several else []
    return [sys.executable, *launcher, str(JOB), str(folder), str(result), *arguments]


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def start(command: list[str], **more: str) -> subprocess.Popen:
    return subprocess.Popen(command, env=environment(**more), stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < ends, f"{path} did not appear"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def quick_start() -> multiprocessing.context.ForkServerContext:
    """Processes that begin with everything imported, and the template in the cache."""
    template("4mm")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_job"])
    return context


def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path: Path, quick_start, long: bool) -> None:
    wanted, moments, kills, runs = (100 if long else 4), random.Random(0), 0, 0
    while kills < wanted:
        folder, result = tmp_path / f"killed-{runs}", tmp_path / "killed.json"
        kills += kill_until_done(quick_start, folder, result, moments)
        runs += 1
        assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == [NAME]
        if runs == 1:
            whole = tmp_path / "whole.json"
            finish(quick_start, tmp_path / "whole", whole)
        assert same(torch.load(f"{whole}.pt"), torch.load(f"{result}.pt"))
        assert json.loads(whole.read_text()) == json.loads(result.read_text())
        result.unlink()


def kill_until_done(context, folder: Path, result: Path, moments: random.Random) -> int:
    """Kill the job after a random time, again and again, until it gets through; how often it was killed."""
    for kills in range(1000):
        process = context.Process(target=training_job.main, args=(str(folder), str(result), "0.04", "1"))
        process.start()
        process.join(moments.uniform(0.3, 1.2) * 1.2**kills)  # longer each time: a busy machine gets through as well
        if process.exitcode == 0:
            return kills
        assert process.exitcode is None
        process.kill()
        process.join()
    raise AssertionError("never got through")


def finish(context, folder: Path, result: Path) -> None:
    process = context.Process(target=training_job.main, args=(str(folder), str(result), "0", "1"))
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_stop_signals_save_and_stop_and_the_run_continues(tmp_path: Path, number: signal.Signals) -> None:
    class Signalling(Blobs):
        reads = 0

        def volumes(self, indices):
            self.reads += 1
            if self.reads == 6:  # in the middle of the second epoch
                os.kill(os.getpid(), number)
            return super().volumes(indices)

    before = signal.getsignal(number)
    with pytest.raises(Preempted, match=f"{number.name}.*same command"):
        run_fit(tmp_path, examples=Signalling())
    assert signal.getsignal(number) is before
    state = torch.load(tmp_path / NAME, weights_only=True)
    assert state["progress"]["epoch"] in (0, 1)
    assert state["progress"]["step"] > 0
    resumed, _ = run_fit(tmp_path)
    whole, _ = run_fit()
    assert same(resumed.state_dict(), whole.state_dict())


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    class Unreadable(Blobs):
        def volumes(self, indices):
            raise AssertionError("read again")

    net, history = run_fit(tmp_path)
    again, repeated = run_fit(tmp_path, examples=Unreadable())
    assert same(net.state_dict(), again.state_dict())
    assert history == repeated


def test_a_folder_of_another_run_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    run_fit(tmp_path)
    with pytest.raises(HeadstartError, match="other settings"):
        run_fit(tmp_path, learning_rate=2e-3)
    content = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(content[: len(content) // 2])
    with pytest.raises(HeadstartError, match="damaged"):
        run_fit(tmp_path)


# ---------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of the job in two processes, undisturbed."""
    folder = tmp_path_factory.mktemp("two")
    subprocess.run(job(folder, folder / "two.json", several=True), env=environment(), check=True, timeout=120)
    return folder / "two.json"


def test_two_processes_see_the_loss_of_one(tmp_path: Path, two_processes: Path) -> None:
    one = tmp_path / "one.json"
    subprocess.run(job(tmp_path / "1", one), env=environment(SAME_AS_SEVERAL="1"), check=True)
    np.testing.assert_allclose(json.loads(one.read_text()), json.loads(two_processes.read_text()), rtol=1e-4)
    weights = [torch.load(f"{path}.pt") for path in (one, two_processes)]
    for key in weights[0]:
        torch.testing.assert_close(weights[0][key], weights[1][key], atol=1e-4, rtol=1e-3)


def test_a_killed_rank_ends_the_job_in_words_and_it_resumes(tmp_path: Path, two_processes: Path) -> None:
    folder, result = tmp_path / "two", tmp_path / "two.json"
    process = start(job(folder, result, "0.3", several=True))
    wait_for(folder / NAME)
    os.kill(youngest_child(process.pid), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "another process of this run has ended" in said
    assert "Run the same command again" in said
    subprocess.run(job(folder, result, several=True), env=environment(), check=True, timeout=120)
    assert same(torch.load(f"{result}.pt"), torch.load(f"{two_processes}.pt"))


def youngest_child(pid: int) -> int:
    """The second of the two worker processes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return max(int(child) for child in children)


