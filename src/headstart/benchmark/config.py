"""What a benchmark's YAML file says: a preset's, or a user's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from headstart.benchmark.plan import SCRATCH, CellMode, Training, TrainSize, Value
from headstart.errors import HeadstartError

PRESETS = Path(__file__).parent / "presets"
FILE_NAME = r"^([\w@+-][\w .@+-]{0,79})?$"  # names become folders, and are printed where brackets mean colours
FEWEST = 4  # people to learn from: of each of two classes one who is learned from and one who validates
Text = str  # of a path, in which $VARIABLES and ~ are expanded


class Simulated(Value):
    """A simulated cohort; see ``headstart simulate``."""

    cohort: str
    n: int = Field(ge=8)
    seed: int = Field(0, ge=0)
    sites: int = Field(3, ge=1)
    difficulty: str = "default"
    generator: str = "anatomy"
    labelmaps: Text | None = None


class TaskEntry(Value):
    """A task and its data: simulated, a store, or folders of scans.

    Attributes:
        name: as tables call it; the task's own name by default.
        store: a prepared store; or
        bids: folders to train on and to test inside, prepared when needed; outside_bids: folders held out whole.
        outside_sites: sites held out whole.
        leave_out: make one such task for every site, that site held out.
        people, people_outside: expected, for a dry run without the data.
    """

    task: str
    name: str = Field("", pattern=FILE_NAME)
    simulate: Simulated | None = None
    store: Text | None = None
    bids: tuple[Text, ...] = ()
    outside_bids: tuple[Text, ...] = ()
    outside_sites: tuple[str, ...] = ()
    leave_out: bool = False
    people: int | None = Field(None, ge=1)
    people_outside: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        """Of two sources one would be left out without a word."""
        given = [name for name in ("simulate", "store", "bids") if getattr(self, name)]
        if self.simulate and self.outside_bids:
            given.append("outside_bids")
        if len(given) > 1:
            raise ValueError(f"has `{given[0]}:` and `{given[1]}:`, and a task has one source of scans; leave one out")
        return self


class RowEntry(Value):
    """A start in a backbone.

    Attributes:
        upstream: a name in the catalogue, or with ``start`` what tables call it.
        start: a folder that pretrain, finetune or weights import wrote.
        mode: what learns, where it is not the benchmark's.
    """

    backbone: str
    upstream: str
    start: Text | None = None
    mode: CellMode | None = None

    @model_validator(mode="after")
    def _scratch_is_scratch(self) -> Self:
        """All gains are counted from the row of this name."""
        if self.upstream == SCRATCH and self.start:
            raise ValueError("`scratch` starts from random weights; give what `start:` loads another name")
        return self


class Slurm(Value):
    """How cells run on a cluster.

    Attributes:
        minutes: time limit of a job; one that runs out goes on in a new job, ``restarts`` times at most.
        cells_per_job: done one after another by one job.
        at_once: jobs of the array that run at a time.
        python: what starts Python in the job, for containers: ``apptainer exec --nv image.sif python``.
        options: any option of sbatch by its long name: ``{gres: "gpu:1", constraint: a100}``.
        setup: lines of shell before it, such as ``module load``.
    """

    partition: str | None = None
    account: str | None = None
    minutes: int = Field(240, ge=1)
    warn_seconds: int = Field(120, ge=1)
    restarts: int = Field(20, ge=0)
    cells_per_job: int = Field(1, ge=1)
    at_once: int = Field(50, ge=1)
    cpus: int = Field(4, ge=1)
    memory_gb: float | None = Field(None, gt=0)
    python: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    setup: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _warned_in_time(self) -> Self:
        if self.warn_seconds >= 60 * self.minutes:
            raise ValueError(f"a job of {self.minutes} minutes cannot be warned {self.warn_seconds} seconds before its "
                             "end; set a smaller `warn_seconds:` or more `minutes:`")
        return self


class Hardware(Value):
    """What a dry run assumes of the machine that trains: sustained, forward and backward together."""

    gigaflops: float = Field(gt=0)
    note: str


class Config(Value):
    """A benchmark as it is asked for."""

    name: str = Field(pattern=FILE_NAME, min_length=1)
    about: str = ""
    volume: str = "4mm"
    tasks: tuple[TaskEntry, ...] = Field(min_length=1)
    rows: tuple[RowEntry, ...] = Field(min_length=1)
    train_sizes: tuple[TrainSize, ...] = Field(("full",), min_length=1)
    seeds: int = Field(3, ge=1)
    test_parts: int = Field(4, ge=2)
    training: Training = Training()
    accept_licence: bool = False
    slurm: Slurm = Slurm()
    hardware: Hardware | None = None

    @field_validator("train_sizes")
    @classmethod
    def _usable(cls, sizes: tuple[TrainSize, ...]) -> tuple[TrainSize, ...]:
        """Large enough; and a size that is said twice would count twice among the comparisons."""
        small = [size for size in sizes if size != "full" and size < FEWEST]
        if small:
            raise ValueError(f"from {small[0]} people nothing can be learned and validated; the fewest are {FEWEST}: "
                             "two of each class, of whom one validates")
        return tuple(dict.fromkeys(sizes))


def presets() -> tuple[str, ...]:
    """Names of the presets that come with the package."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.yaml")))


def load_config(source: str | Path) -> Config:
    """A preset by name, or a YAML file.

    Raises:
        HeadstartError: there is none, it is not YAML, or a field is unknown or wrong; the message names it.
    """
    path = PRESETS / f"{source}.yaml" if str(source) in presets() else Path(source)
    try:
        return Config.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise HeadstartError(f"cannot be read ({error.strerror})", path=path,
                             fix=f"Give a YAML file, or one of the presets: {', '.join(presets())}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HeadstartError(f"is not YAML ({' '.join(str(error).split())})", path=path) from error
    except ValidationError as error:
        first = error.errors()[0]
        where, problem = ".".join(map(str, first["loc"])) or "the file", first["msg"].removeprefix("Value error, ")
        raise HeadstartError(f"{where}: {problem}", path=path,
                             fix="See configs/quick.yaml for how such a file looks.") from error


def narrowed(config: Config, upstreams: Sequence[str] = (), tasks: Sequence[str] = (), data: Sequence[Path] = (),
             *, accept_licence: bool = False) -> Config:
    """``config`` with these upstreams (and scratch, which they are compared with), tasks and data only.

    Raises:
        HeadstartError: it has no such upstream or task, or no place for data.
    """
    _all_known("upstream", upstreams, {row.upstream for row in config.rows})
    _all_known("task", tasks, {entry.name or entry.task for entry in config.tasks})
    wanted = {*upstreams, "scratch"}
    backbones = {row.backbone for row in config.rows if row.upstream in upstreams}
    rows = [row for row in config.rows
            if not upstreams or (row.upstream in wanted and row.backbone in backbones)]
    entries = [entry for entry in config.tasks if not tasks or (entry.name or entry.task) in tasks]
    return config.model_copy(update={
        "rows": tuple(rows) or config.rows, "tasks": tuple(_with_data(entries, [str(path) for path in data])),
        "accept_licence": config.accept_licence or accept_licence})


def _with_data(entries: Sequence[TaskEntry], data: Sequence[str]) -> list[TaskEntry]:
    """Folders go to the tasks that have no data of their own."""
    empty = [entry for entry in entries if not (entry.simulate or entry.store or entry.bids)]
    if data and not empty:
        raise HeadstartError("--data has no task to go to: all have data of their own", fix="Leave it out.")
    return [entry.model_copy(update={"bids": tuple(data)}) if entry in empty else entry for entry in entries]


def _all_known(what: str, names: Sequence[str], known: set[str]) -> None:
    unknown = sorted(set(names) - known)
    if unknown:
        raise HeadstartError(f"the benchmark has no {what} '{unknown[0]}'",
                             fix=f"It has: {', '.join(sorted(known))}.")


def expanded(text: Text) -> Path:
    """A path with its $VARIABLES and ~ expanded; one that is not set stays as it is, and will be named as missing."""
    return Path(os.path.expandvars(text)).expanduser()
