"""scikit-learn estimators on brains: clone, grid search, cross-validation and pipelines work as with any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from headstart.backbones import build_model
from headstart.brains.contract import Contract
from headstart.brains.scan import prepare_scan
from headstart.brains.store import Store, pack, unpack
from headstart.brains.volumes import VolumeSpec, volume_spec
from headstart.calibration.uncertainty import Calibration, classification_calibration, conformal_quantile, tempered
from headstart.errors import HeadstartError
from headstart.experiment.readout import fit_aimed
from headstart.files import atomic_write, cache_dir, sha256_file
from headstart.training import Classification, Objective, Regression, TrainingPlan, predict
from headstart.upstreams import load_into, readout_of

SCANS = "Give paths of T1w scans, volumes (n, X, Y, Z) on the grid, or with store=FOLDER the numbers of its rows."


@dataclass(eq=False)
class _Examples:
    """Scans in memory, or rows of a store that are read when needed."""

    source: Store | torch.Tensor
    rows: np.ndarray
    targets: np.ndarray

    def volumes(self, indices: np.ndarray) -> torch.Tensor:
        rows = self.rows[indices]
        if isinstance(self.source, Store):
            return self.source.volumes(rows)
        return self.source[torch.from_numpy(rows)].float()


class _BrainEstimator(BaseEstimator):
    """What both estimators share; see ``BrainAgeRegressor`` for the parameters."""

    def __init__(self, backbone: str = "cnn-small", upstream: str = "scratch", *, volume: str = "4mm",
                 store: str | Path | None = None, mode: str = "full", epochs: int = 60, learning_rate: float = 1e-3,
                 batch_size: int = 16, validation_fraction: float = 0.2, accept_licence: bool = False,
                 random_state: int = 0) -> None:
        self.backbone = backbone
        self.upstream = upstream
        self.volume = volume
        self.store = store
        self.mode = mode
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.accept_licence = accept_licence
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        tags.input_tags.three_d_array = True
        return tags

    def _train(self, X: Any, targets: np.ndarray, objective: Objective, num_outputs: int,
               label: str | None) -> np.ndarray:
        """Fit ``network_``, from what the start says of ``label``; the indices held out to stop at the right time."""
        examples = self._examples(X, targets)
        train, validation = self._parts(targets)
        spec = self._spec()
        self.network_ = build_model(self.backbone, spec, num_outputs, seed=self.random_state)
        load_into(self.upstream, self.network_.backbone, self.backbone, spec, accept_licence=self.accept_licence)
        plan = TrainingPlan(mode=self.mode, learning_rate=self.learning_rate, max_epochs=self.epochs,  # type: ignore
                            batch_size=min(self.batch_size, len(train)))
        readout = None if label is None else readout_of(self.upstream, self.backbone, spec, label)
        self.history_ = fit_aimed(self.network_, readout, objective, examples, train, validation, plan,
                                  seed=self.random_state, flip=True)
        return validation

    def _parts(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng(self.random_state).permutation(len(targets))
        held = round(self.validation_fraction * len(targets))
        if len(targets) - held < 2:
            raise HeadstartError(f"{len(targets)} scans are too few to learn from", fix="Give more scans.")
        return np.sort(order[held:]), np.sort(order[:held])

    def _outputs(self, X: Any) -> np.ndarray:
        """(n, outputs), in the target's unit or as logits."""
        check_is_fitted(self, "network_")
        examples = self._examples(X, None)
        return predict(self.network_, examples, np.arange(len(examples.rows)))

    def _spec(self) -> VolumeSpec:
        return Store.open(self.store).spec if self.store is not None else volume_spec(self.volume)

    def _examples(self, X: Any, targets: np.ndarray | None) -> _Examples:
        if not hasattr(X, "__len__") or not len(X):
            raise HeadstartError("there are no scans", fix=SCANS)
        targets = np.zeros(len(X)) if targets is None else targets
        if len(targets) != len(X):
            raise HeadstartError(f"{len(X)} scans have {len(targets)} targets", fix="Give one target a scan.")
        if self.store is not None:
            return _Examples(Store.open(self.store), _row_numbers(X), targets)
        return _Examples(_volumes(X, self._spec()), np.arange(len(X)), targets)


class BrainAgeRegressor(RegressorMixin, _BrainEstimator):
    """Age, or another number, from T1w scans.

    An upstream that has learnt to say age, such as ``synthetic-mri``, is asked first: where what it says rises with
    ``y``, training begins there, and what is kept lies halfway between that beginning and the end of training.

    Args:
        backbone: as for ``headstart finetune``.
        upstream: where the weights begin, as for ``headstart finetune``; ``scratch`` unless one is given.
        volume: grid in template space.
        store: a prepared store, whose row numbers are then what ``fit`` and ``predict`` take as X.
        mode: what learns: ``full``, ``frozen``, ``lora`` or ``probe``.
        epochs: at most; training stops when the validation part gets no better.
        learning_rate: peak of the schedule.
        batch_size: scans a step, at most.
        accept_licence: of a start that is not for commercial use.
        validation_fraction: of the scans, held out to stop at the right time and to measure errors on.
        random_state: all that is random follows from it.

    Attributes:
        network_: the trained ``BrainModel``.
        calibration_: from the validation part; see ``predict_interval``.
    """

    def fit(self, X: Any, y: Any) -> BrainAgeRegressor:
        """Train on scans X (n paths, volumes or store rows) and numbers y (n,).

        Raises:
            HeadstartError: a scan cannot be used, or a target is not a finite number.
        """
        targets = np.asarray(y, np.float64)
        if targets.ndim != 1 or not np.isfinite(targets).all():
            raise HeadstartError("a target is not a finite number", fix="Leave out scans without a target.")
        held = self._train(X, targets, Regression(), 1, "age")
        errors = np.abs(self.predict([X[i] for i in held]) - targets[held]) if len(held) else np.empty(0)
        self.calibration_ = Calibration(errors=np.sort(errors).tolist(), half_width=conformal_quantile(errors))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """One number a scan, (n,) float64."""
        return self._outputs(X)[:, 0].astype(np.float64)

    def predict_interval(self, X: Any) -> np.ndarray:
        """90 % intervals (n, 2) by split conformal prediction on the validation part.

        Since that part also chose when to stop, they are a little too narrow; they hold at no new site.

        Raises:
            HeadstartError: fewer than nine scans were held out.
        """
        width = self.calibration_.half_width if hasattr(self, "calibration_") else None
        values = self.predict(X)
        if width is None:
            raise HeadstartError("too few scans were held out for an interval of 90 %",
                                 fix="Fit with more scans, or a larger validation_fraction.")
        return np.stack([values - width, values + width], 1)


class BrainClassifier(ClassifierMixin, _BrainEstimator):
    """Classes from T1w scans; parameters as ``BrainAgeRegressor``.

    Classes ``F`` and ``M`` begin with what the upstream says of sex, where it has learnt to.

    Attributes:
        classes_: in the order of ``predict_proba``'s columns.
        calibration_: a temperature from the validation part.
    """

    def fit(self, X: Any, y: Any) -> BrainClassifier:
        """Train on scans X (n paths, volumes or store rows) and classes y (n,).

        Raises:
            HeadstartError: a scan cannot be used, or there is one class only.
        """
        check_classification_targets(y)
        self.classes_, targets = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise HeadstartError(f"there is one class only: {self.classes_[0]}", fix="Give scans of two classes.")
        label = "sex" if self.classes_.tolist() == ["F", "M"] else None
        held = self._train(X, targets.astype(np.float64), Classification(len(self.classes_)), len(self.classes_), label)
        shares = tempered(_softmax(self._outputs([X[i] for i in held])), 1.0) if len(held) else np.empty((0, 2))
        self.calibration_ = classification_calibration((targets[held], shares), (targets[held], shares))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Calibrated probabilities, (n, classes)."""
        outputs = self._outputs(X)
        return _softmax(outputs / (self.calibration_.temperature or 1.0))

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each scan, (n,)."""
        return self.classes_[self.predict_proba(X).argmax(1)]


def _softmax(outputs: np.ndarray) -> np.ndarray:
    shares = np.exp(outputs - outputs.max(1, keepdims=True)).astype(np.float64)
    return shares / shares.sum(1, keepdims=True)


def _row_numbers(X: Any) -> np.ndarray:
    rows = np.asarray(X)
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise HeadstartError("with a store, X holds the numbers of its rows", fix=SCANS)
    return rows.astype(np.int64)


def _volumes(X: Any, spec: VolumeSpec) -> torch.Tensor:
    """(n, 1, X, Y, Z), half precision, from paths or from volumes on the grid."""
    if isinstance(X[0], str | Path):
        return _from_paths([Path(path) for path in X], spec)
    volumes = np.asarray(X)
    if volumes.ndim == 4:
        volumes = volumes[:, None]
    if volumes.shape[1:] != (1, *spec.shape) or volumes.dtype.kind not in "fiu":
        raise HeadstartError(f"X has the shape {np.shape(X)}, which is no volumes on the grid {spec.name} "
                             f"{spec.shape}", fix=SCANS)
    if not np.isfinite(volumes).all():
        raise HeadstartError("X holds NaN or infinite values", fix="Prepare the scans with headstart.")
    return torch.from_numpy(volumes.astype(np.float16))


def _from_paths(paths: Sequence[Path], spec: VolumeSpec) -> torch.Tensor:
    """Each scan prepared once; the cache keeps it for the next fold, fit or session."""
    contract = Contract(volume=spec.name)
    return unpack(torch.from_numpy(np.stack([_prepared(path, contract) for path in paths])), spec).half()


def _prepared(path: Path, contract: Contract) -> np.ndarray:
    """Kept voxels of a scan, (n_kept,) float16."""
    if not path.is_file():
        raise HeadstartError("does not exist", path=path, fix=SCANS)
    kept = cache_dir() / "prepared" / contract.digest / f"{sha256_file(path)}.npy"
    if not kept.is_file():
        row = pack(prepare_scan(path, contract).volume, contract.spec)
        with atomic_write(kept, "wb") as file:
            np.save(file, row)
    return np.load(kept, allow_pickle=False)
