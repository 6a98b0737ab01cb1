"""What this package offers to Trivet."""

from collections.abc import Sequence

from trivet.hookspecs import BackendPlugin, hookimpl

TRIVET_API_VERSION = 1


@hookimpl
def trivet_backends() -> Sequence[BackendPlugin]:
    return (
        BackendPlugin(
            name="tabular",
            factory="trivet_backend_tabular.backend:TabularBackend",
            description="scikit-learn (skops, joblib), LightGBM (text) and XGBoost (UBJSON, JSON)",
            model_filenames=("model.skops", "model.lgb", "model.ubj", "model.xgb.json", "model.joblib"),
        ),
    )
