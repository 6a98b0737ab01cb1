"""The contract of backends, with a model of each library; and what may be unpickled."""

from pathlib import Path
from typing import Any

import anyio
import joblib
import lightgbm
import numpy as np
import pytest
import skops.io
import xgboost
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler
from trivet.errors import InvalidArgumentError
from trivet.testing import running_engine
from trivet.testing.conformance import BackendConformance
from trivet.testing.conformance.requests import Arrays, infer, request

FLOWERS = load_iris()


class Tables(BackendConformance):
    """Rows of a table that comes with scikit-learn."""

    backend = "tabular"
    table: NDArray[Any]

    def inputs(self, rows: int, seed: int) -> Arrays:
        return {"x": np.random.default_rng(seed).choice(self.table, rows).astype(np.float32)}


class TestSklearn(Tables):
    table = FLOWERS.data
    model = LogisticRegression(max_iter=1000).fit(FLOWERS.data, FLOWERS.target_names[FLOWERS.target])

    def write_model(self, folder: Path) -> None:
        skops.io.dump(self.model, folder / "model.skops")

    def expected(self, inputs: Arrays) -> Arrays:
        labels = [[label.encode()] for label in self.model.predict(inputs["x"])]
        return {
            "label": np.array(labels, np.object_),
            "probabilities": self.model.predict_proba(inputs["x"]).astype(np.float32),
        }


class TestSklearnWithSeveralTargets(Tables):
    table = load_diabetes().data
    model = LinearRegression().fit(table, np.stack([load_diabetes().target, table[:, 0]], axis=1))

    def write_model(self, folder: Path) -> None:
        skops.io.dump(self.model, folder / "model.skops")

    def expected(self, inputs: Arrays) -> Arrays:
        return {"value": self.model.predict(inputs["x"]).astype(np.float32)}


class TestLightgbm(Tables):
    table = load_diabetes().data
    model = lightgbm.train(
        {"objective": "regression", "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(*load_diabetes(return_X_y=True)),
        10,
    )

    def write_model(self, folder: Path) -> None:
        self.model.save_model(folder / "model.lgb")

    def expected(self, inputs: Arrays) -> Arrays:
        return {"value": np.asarray(self.model.predict(inputs["x"])).astype(np.float32).reshape(-1, 1)}


class TestXgboost(Tables):
    table = load_wine().data
    model = xgboost.train(
        {"objective": "multi:softprob", "num_class": 3, "nthread": 1}, xgboost.DMatrix(*load_wine(return_X_y=True)), 10
    )

    def write_model(self, folder: Path) -> None:
        self.model.save_model(folder / "model.ubj")

    def expected(self, inputs: Arrays) -> Arrays:
        return {"value": np.asarray(self.model.inplace_predict(inputs["x"]))}


def test_a_pickle_is_read_only_where_the_operator_names_the_model(tmp_path: Path) -> None:
    for name in ("allowed", "other"):
        (tmp_path / name / "1").mkdir(parents=True)
        joblib.dump(TestSklearn.model, tmp_path / name / "1" / "model.joblib")
    options = {"tabular": {"allow-pickle": "allowed"}}

    async def check() -> None:
        async with running_engine(tmp_path, allow_failures=True, backend_config=options) as engine:
            assert [model.name for model in engine.ready_models()] == ["allowed"]
            answer = await infer(engine, request("allowed", {"x": FLOWERS.data[:1].astype(np.float32)}))
            assert answer["label"].tolist() == [[b"setosa"]]
            reasons = {entry.name: entry.reason for entry in await engine.repository_index()}
            assert "runs code when it is read" in reasons["other"]
            assert "allow-pickle=other" in reasons["other"]

    anyio.run(check)


def test_rows_that_the_estimator_refuses_are_the_callers_fault(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    skops.io.dump(TestSklearn.model, tmp_path / "m" / "1" / "model.skops")

    async def check() -> None:
        async with running_engine(tmp_path) as engine:
            await infer(engine, request("m", {"x": np.full((1, 4), np.nan, np.float32)}))

    with pytest.raises(InvalidArgumentError, match="Input X contains NaN"):
        anyio.run(check)


def test_a_file_without_a_predictor_says_so(tmp_path: Path) -> None:
    for name in ("empty", "scaler"):
        (tmp_path / name / "1").mkdir(parents=True)
    (tmp_path / "empty" / "1" / "model.joblib").write_bytes(b"")
    skops.io.dump(StandardScaler().fit(FLOWERS.data), tmp_path / "scaler" / "1" / "model.skops")

    async def check() -> None:
        options = {"tabular": {"allow-pickle": "empty"}}
        async with running_engine(tmp_path, allow_failures=True, backend_config=options) as engine:
            reasons = {entry.name: entry.reason for entry in await engine.repository_index()}
            assert "cannot be read: EOFError" in reasons["empty"]
            assert "a StandardScaler predicts nothing" in reasons["scaler"]

    anyio.run(check)


class Stranger(LogisticRegression):
    """A type that skops has never heard of."""


def test_a_skops_file_with_an_unknown_type_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    model = Stranger(max_iter=1000).fit(FLOWERS.data, FLOWERS.target)
    skops.io.dump(model, tmp_path / "m" / "1" / "model.skops")

    async def check() -> None:
        async with running_engine(tmp_path):
            pass

    with pytest.raises(RuntimeError, match=r"types that skops does not trust: .*Stranger"):
        anyio.run(check)
