"""Models of tables: rows of features in, a prediction per row out.

The file's name says which library reads it. Formats that can only hold data are read as they are; a skops file may name
no type but those that skops trusts; a joblib file is a pickle, which runs code when it is read, so the operator allows
it for single models: ``--backend-config=tabular,allow-pickle=MODEL[;MODEL]``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trivet.backend import (
    ArrayInstance,
    Backend,
    BackendInstance,
    BackendModel,
    InstanceContext,
    ModelContext,
    OutputValue,
)
from trivet.datatypes import BYTES, FP32, DataType, from_numpy
from trivet.errors import InvalidArgumentError, TrivetError, UnavailableError
from trivet.tensor import Tensor, object_array

Table = NDArray[Any]


class Predictor(ABC):
    """A loaded model. ``outputs`` are datatype and dimensions by name, without the batch."""

    features: int
    outputs: dict[str, tuple[DataType, list[int]]]

    @abstractmethod
    def predict(self, x: Table, outputs: Sequence[str]) -> dict[str, Table]:
        """Those outputs for ``x``, FP32 of shape [rows, features]."""


class SklearnPredictor(Predictor):
    """``label``, and ``probabilities`` where the estimator has them."""

    def __init__(self, estimator: Any) -> None:
        if not hasattr(estimator, "predict"):
            raise InvalidArgumentError(f"a {type(estimator).__name__} predicts nothing")
        self._estimator = estimator
        self.features = int(estimator.n_features_in_)
        classes = getattr(estimator, "classes_", None)
        if classes is None:
            self.outputs = {"value": (FP32, [width_of(estimator.predict, self.features)])}
            return
        text = classes.dtype.kind in "UO"
        self.outputs = {"label": (BYTES if text else from_numpy(classes.dtype), [1])}
        if hasattr(estimator, "predict_proba"):
            self.outputs["probabilities"] = FP32, [len(classes)]

    def predict(self, x: Table, outputs: Sequence[str]) -> dict[str, Table]:
        found: dict[str, Table] = {}
        if "probabilities" in outputs:
            found["probabilities"] = self._estimator.predict_proba(x).astype(np.float32)
        if "label" in outputs:
            labels = self._estimator.predict(x)
            if self.outputs["label"][0] is BYTES:
                labels = object_array([str(label).encode() for label in labels], (len(labels),))
            found["label"] = labels.reshape(-1, 1)
        if "value" in outputs:
            found["value"] = self._estimator.predict(x).astype(np.float32).reshape(len(x), -1)
        return found


class BoosterPredictor(Predictor):
    """Boosted trees: ``value``, one number per row or per row and class."""

    def __init__(self, features: int, predict: Callable[[Table], Table]) -> None:
        self._predict = predict
        self.features = features
        self.outputs = {"value": (FP32, [width_of(predict, features)])}

    def predict(self, x: Table, outputs: Sequence[str]) -> dict[str, Table]:
        return {"value": self._predict(x).astype(np.float32).reshape(len(x), -1)}


def width_of(predict: Callable[[Table], Table], features: int) -> int:
    """How many numbers a row gets: several from a regression with several targets, or for several classes."""
    return int(predict(np.zeros((1, features), np.float32)).size)


def read_skops(path: Path) -> Predictor:
    from skops.io import get_untrusted_types, load

    if unknown := get_untrusted_types(file=path):
        raise InvalidArgumentError(f"'{path}' needs types that skops does not trust: {', '.join(unknown)}")
    return SklearnPredictor(load(path, trusted=[]))


def read_joblib(path: Path) -> Predictor:
    import joblib

    return SklearnPredictor(joblib.load(path))


def read_lightgbm(path: Path) -> Predictor:
    import lightgbm

    booster = lightgbm.Booster(model_file=path)
    return BoosterPredictor(booster.num_feature(), lambda x: np.asarray(booster.predict(x, num_threads=1)))


def read_xgboost(path: Path) -> Predictor:
    import xgboost

    booster = xgboost.Booster({"nthread": 1}, model_file=path)
    return BoosterPredictor(booster.num_features(), lambda x: np.asarray(booster.inplace_predict(x)))


# The ending of a model's file: who reads it, and what to install for that.
READERS: dict[str, tuple[Callable[[Path], Predictor], str]] = {
    ".skops": (read_skops, "sklearn"),
    ".joblib": (read_joblib, "sklearn"),
    ".lgb": (read_lightgbm, "lightgbm"),
    ".ubj": (read_xgboost, "xgboost"),
    ".json": (read_xgboost, "xgboost"),
}


class TabularBackend(Backend):
    def auto_complete(self, context: ModelContext) -> None:
        """Inputs, outputs and batching are the model's; what the configuration says stays."""
        config = context.config
        if config.input and config.output:
            return
        predictor = read(context)
        if not config.input:
            config.max_batch_size = config.max_batch_size or 1024
            config.input.add(name="x", data_type=FP32.config_value, dims=[predictor.features])
        if not config.output:
            for name, (datatype, dims) in predictor.outputs.items():
                config.output.add(name=name, data_type=datatype.config_value, dims=dims)

    def load(self, context: ModelContext) -> BackendModel:
        predictor = read(context)
        if len(context.config.input) != 1 or context.config.max_batch_size < 1:
            raise InvalidArgumentError(f"model '{context.name}': expected one input, and max_batch_size of at least 1")
        if unknown := {output.name for output in context.config.output} - predictor.outputs.keys():
            raise InvalidArgumentError(
                f"model '{context.name}' has no output {sorted(unknown)}; it has {sorted(predictor.outputs)}"
            )
        return TabularModel(predictor, context.config.input[0].name)


class TabularModel(BackendModel):
    def __init__(self, predictor: Predictor, input: str) -> None:
        self.predictor = predictor
        self.input = input

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        return TabularInstance(self)


class TabularInstance(ArrayInstance):
    def __init__(self, model: TabularModel) -> None:
        self._model = model

    def execute(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Mapping[str, OutputValue]:
        try:
            return self._model.predictor.predict(inputs[self._model.input].numpy(), outputs)
        except ValueError as error:  # such as NaN, which many estimators refuse
            raise InvalidArgumentError(str(error).partition("\n")[0]) from error


def read(context: ModelContext) -> Predictor:
    """The model's file, by its name. Raises :class:`~trivet.errors.TrivetError` with what can be done."""
    path = context.version_path / context.default_model_filename
    if not path.is_file():
        # A configuration that names no file has the first of `model_filenames` here.
        path = next((one for one in sorted(context.version_path.glob("model.*")) if one.suffix in READERS), path)
    if path.suffix not in READERS:
        raise InvalidArgumentError(f"'{path}': expected a file that ends with one of {', '.join(READERS)}")
    if not path.is_file():
        raise InvalidArgumentError(f"'{path}' does not exist")
    allowed = context.backend_options.get("allow-pickle", "").split(";")
    if path.suffix == ".joblib" and context.name not in allowed:
        raise InvalidArgumentError(
            f"'{path}' is a pickle, which runs code when it is read; if you trust it, start the server with"
            f" --backend-config=tabular,allow-pickle={context.name}, or store the model with skops.io.dump"
        )
    reader, extra = READERS[path.suffix]
    try:
        return reader(path)
    except TrivetError:
        raise
    except ImportError as error:
        raise UnavailableError(f"{error}; pip install 'trivet-backend-tabular[{extra}]'") from error
    except Exception as error:
        reason, _, _ = str(error).partition("\n")
        raise InvalidArgumentError(f"'{path}' cannot be read: {reason or type(error).__name__}") from error
