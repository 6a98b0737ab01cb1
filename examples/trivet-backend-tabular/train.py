"""Train small models on the tables that come with scikit-learn, into a model repository: ``python train.py models``."""

import sys
from pathlib import Path

import lightgbm
import skops.io
import xgboost
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def train(repository: Path) -> None:
    """Write ``iris`` (scikit-learn), ``diabetes`` (LightGBM) and ``wine`` (XGBoost)."""
    flowers = load_iris()
    iris = make_pipeline(StandardScaler(), LogisticRegression())
    iris.fit(flowers.data, flowers.target_names[flowers.target])
    skops.io.dump(iris, version(repository, "iris") / "model.skops")

    patients = lightgbm.Dataset(*load_diabetes(return_X_y=True))
    diabetes = lightgbm.train({"objective": "regression", "verbosity": -1, "num_threads": 1}, patients, 50)
    diabetes.save_model(version(repository, "diabetes") / "model.lgb")

    bottles = xgboost.DMatrix(*load_wine(return_X_y=True))
    wine = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, bottles, 20)
    wine.save_model(version(repository, "wine") / "model.ubj")


def version(repository: Path, model: str) -> Path:
    """The folder of a model's first version, made."""
    folder = repository / model / "1"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    train(Path(sys.argv[1]))
