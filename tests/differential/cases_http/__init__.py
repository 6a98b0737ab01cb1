"""The requests that both servers are sent, as data."""

from . import (
    bad_json,
    binary_tensors,
    codings,
    generate,
    json_tensors,
    log_settings,
    model_control,
    outputs,
    parameters,
    paths,
    trace_settings,
)
from .case import Case

CASES: list[Case] = [
    *bad_json.CASES,
    *json_tensors.CASES,
    *binary_tensors.CASES,
    *outputs.CASES,
    *parameters.CASES,
    *codings.CASES,
    *generate.CASES,
    *paths.CASES,
    *log_settings.CASES,
    *trace_settings.CASES,
    *model_control.CASES,
]
