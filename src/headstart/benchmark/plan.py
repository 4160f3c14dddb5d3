"""The resolved plan of a benchmark: its tasks, rows, sizes and seeds, and the cells that follow from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from headstart.errors import HeadstartError
from headstart.files import digest_json, read_json, write_json
from headstart.tasks import Task
from headstart.training.plan import Precision

FILE, VERSION = "plan.json", 1
SCRATCH = "scratch"
TrainSize = PositiveInt | Literal["full"]
CellMode = Literal["full", "frozen", "lora", "probe", "knn"]


class Value(BaseModel):
    """An immutable record whose fields are all known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Training(Value):
    """How every cell of a benchmark is trained; scratch is treated like the others.

    Attributes:
        mode: what learns, unless a row says otherwise (see ``TrainingPlan``).
        epochs: at most; the validation loss ends training earlier.
        learning_rates: tried in every cell; its validation part chooses.
    """

    mode: CellMode = "full"
    epochs: PositiveInt = 60
    patience: NonNegativeInt = 15
    batch_size: PositiveInt = 16
    layer_decay: float = Field(1.0, gt=0, le=1)
    precision: Precision = "float32"
    learning_rates: tuple[PositiveFloat, ...] = Field((1e-3, 3e-4), min_length=1)


class PlannedTask(Value):
    """A task on its data.

    Attributes:
        name: unique in the plan; the task's own name, or with the site that is left out.
        kind, column, classes, unit: as in ``Task``; positive: the class that counts as positive, None for a number.
        simulate: the design of a simulated cohort and its size ``n``; None where the scans are real.
        store: a prepared store; bids: folders of the scans otherwise.
        scans: digest of who and what is in their tables; of simulated people, the version of what draws them.
        inside_sites: trained on, and tested inside; outside_sites: held out whole.
        people_inside, people_outside: with a scan; as the configuration expects where the data are not here.
    """

    name: str
    task: str
    kind: Literal["regression", "classification"]
    column: str
    classes: tuple[str, ...] = ()
    positive: str | None = None
    unit: str = ""
    simulated: bool
    simulate: dict[str, Any] | None = None
    store: str | None = None
    bids: tuple[str, ...] = ()
    scans: str = ""
    inside_sites: tuple[str, ...]
    outside_sites: tuple[str, ...]
    people_inside: int
    people_outside: int

    @property
    def sites(self) -> tuple[str, ...]:
        return (*self.inside_sites, *self.outside_sites)

    @property
    def as_task(self) -> Task:
        return Task(self.task, self.kind, self.column, self.classes, self.unit)


class Row(Value):
    """One start in one backbone.

    Attributes:
        upstream: a name in the catalogue, or what tables call the weights in ``start``.
        weights: what stands for the content of their file.
        start: a model folder; None for a name in the catalogue.
    """

    backbone: str
    upstream: str
    mode: CellMode
    weights: str
    start: str | None = None

    @property
    def source(self) -> str:
        """What ``load_into`` takes."""
        return self.start or self.upstream


class Cell(Value):
    """One model to train: a row on a task, from so many labelled people, with a seed. Its digest names its folder."""

    task: str
    backbone: str
    upstream: str
    train_size: TrainSize
    seed: int
    mode: CellMode
    digest: str

    def __str__(self) -> str:
        return f"{self.task}, {self.backbone} from {self.upstream}, {self.train_size} scans, seed {self.seed}"


class Plan(Value):
    """All that determines a benchmark's results.

    Attributes:
        test_parts: one in so many people of the training sites is the inside test.
        accept_licence: licences that forbid commercial use are accepted.
        notes: what was left out, and why.
    """

    version: Literal[1] = 1
    name: str
    about: str = ""
    volume: str
    tasks: tuple[PlannedTask, ...]
    rows: tuple[Row, ...]
    train_sizes: tuple[TrainSize, ...]
    seeds: tuple[int, ...]
    training: Training
    test_parts: int = 4
    accept_licence: bool = False
    notes: tuple[str, ...] = ()

    @property
    def backbones(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.backbone for row in self.rows))

    @property
    def upstreams(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.upstream for row in self.rows))

    @property
    def mode(self) -> str:
        """The mode of all rows, or ``mixed``."""
        modes = {row.mode for row in self.rows}
        return modes.pop() if len(modes) == 1 else "mixed"

    def task(self, name: str) -> PlannedTask:
        """The task called ``name``."""
        return next(task for task in self.tasks if task.name == name)

    def sizes(self, task: PlannedTask) -> tuple[TrainSize, ...]:
        """The training sizes that ``task`` has the people for; a size of everyone is ``full``."""
        most = self.most_training(task)
        return tuple(size for size in self.train_sizes if size == "full" or size < most)

    def most_training(self, task: PlannedTask) -> int:
        """The people of the training sites who are not in the inside test."""
        return task.people_inside - -(-task.people_inside // self.test_parts)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell: seeds outermost, so that a benchmark that is stopped has whole comparisons."""
        return tuple(self._cells())

    def row(self, cell: Cell) -> Row:
        """The row that ``cell`` belongs to."""
        return next(row for row in self.rows if (row.backbone, row.upstream) == (cell.backbone, cell.upstream))

    def cell(self, digest: str) -> Cell:
        """The cell with this digest.

        Raises:
            HeadstartError: the plan has none.
        """
        for cell in self.cells:
            if cell.digest == digest:
                return cell
        raise HeadstartError(f"the benchmark has no cell '{digest}'", fix="See `headstart benchmark status DIR`.")

    def _cells(self) -> Iterator[Cell]:
        for seed in self.seeds:
            for task in self.tasks:
                for size in self.sizes(task):
                    for row in self.rows:
                        yield self._cell(task, row, size, seed)

    def _cell(self, task: PlannedTask, row: Row, size: TrainSize, seed: int) -> Cell:
        digest = digest_json([task.model_dump(mode="json"), row.model_dump(mode="json", exclude={"start"}), size, seed,
                              self.training.model_dump(mode="json"), self.volume, self.test_parts])
        return Cell(task=task.name, backbone=row.backbone, upstream=row.upstream, train_size=size, seed=seed,
                    mode=row.mode, digest=digest)

    def to_json(self) -> dict[str, Any]:
        """The plan with what follows from it: for readers that are not this program."""
        return {**self.model_dump(mode="json"), "backbones": list(self.backbones), "upstreams": list(self.upstreams),
                "mode": self.mode}

    def claim(self, folder: Path) -> None:
        """Make ``folder`` this benchmark's; rows may be added to or taken from one that is there, nothing else.

        Raises:
            HeadstartError: it holds another benchmark; the message names what differs.
        """
        path = folder / FILE
        if path.exists():
            mine, other = (plan.model_dump(mode="json", exclude={"rows", "notes", "about", "accept_licence"})
                           for plan in (self, read_plan(folder)))
            differing = sorted(key for key in mine if mine[key] != other[key])
            if differing:
                raise HeadstartError(f"holds another benchmark (other {', '.join(differing)})", path=folder,
                                     fix="Give another --out, or remove that folder.")
        if not path.exists() or read_json(path) != self.to_json():
            write_json(path, self.to_json())


def read_plan(folder: str | Path) -> Plan:
    """The plan of a benchmark's folder.

    Raises:
        HeadstartError: it holds none, or one of another version.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise HeadstartError("holds no benchmark (no plan.json)", path=folder,
                             fix="Give the --out of a `headstart benchmark`.")
    return _checked(read_json(path), path)


def _checked(value: Any, path: Path) -> Plan:
    fix = f"Give another --out, or remove {path.parent}: the same benchmark command does all of it again."
    version = value.get("version", VERSION) if isinstance(value, dict) else None
    if version is None:
        raise HeadstartError("is not a benchmark's plan", path=path, fix=fix)
    if version != VERSION:
        raise HeadstartError(f"is a plan of version {version}, and this headstart reads version {VERSION}", path=path,
                             fix=f"Use the headstart that made it; or g{fix[1:]}")
    try:
        return Plan.model_validate({key: value[key] for key in value if key in Plan.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        raise HeadstartError(f"is not a benchmark's plan ({'.'.join(map(str, first['loc']))}: {first['msg']})",
                             path=path, fix=fix) from error
