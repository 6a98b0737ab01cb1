"""The calls that both servers are sent over gRPC, as data."""

from . import control, parameters, streams, tensors, trace_settings
from .case import Case

CASES: list[Case] = [
    *tensors.CASES,
    *parameters.CASES,
    *streams.CASES,
    *trace_settings.CASES,
    *control.CASES,
]
