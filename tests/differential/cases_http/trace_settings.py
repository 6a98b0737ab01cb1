"""The trace extension: settings of all models and of one, changed, taken back and refused."""

from __future__ import annotations

from typing import Any

from .case import Case, brief, get, one, post

_ALL = "/v2/trace/setting"
_MODEL = "/v2/models/double/trace/setting"
_NOTHING: dict[str, Any] = dict.fromkeys(("trace_level", "trace_rate", "trace_count", "log_frequency"))
_RESTORE = (post(_MODEL, _NOTHING), post(_ALL, _NOTHING))

_NUMBERS = (
    *("7", "0", "-1", "-2", " 7", "+7", "12x", "1.5", "", "x", "-", "2147483647", "2147483648", "4294967295"),
    *("-2147483648", "-2147483649", "99999999999999999999999", 7, 7.5, True, None, ["7"], [], {}),
)
_LEVELS = (
    *(["OFF"], ["TIMESTAMPS"], ["TENSORS"], ["TIMESTAMPS", "TENSORS"], ["OFF", "TIMESTAMPS"], ["TENSORS", "OFF"]),
    *(["OFF", "OFF"], ["MIN"], ["MAX"], ["timestamps"], ["x"], [""], [], [7], [None], "OFF", 7, {}, None),
)


def _changed(path: str, document: Any) -> Case:
    name = "trace settings of all" if path == _ALL else "trace settings of a model"
    return Case(f"{name}: {brief(document)}", (post(path, document), get(_ALL), get(_MODEL), *_RESTORE))


CASES: list[Case] = [
    one("trace settings", get(_ALL)),
    one("trace settings of a model", get(_MODEL)),
    one("trace settings of an unknown model", get("/v2/models/nope/trace/setting")),
    one("change trace settings of an unknown model", post("/v2/models/nope/trace/setting", {"trace_rate": "5"})),
    *(
        _changed(path, {name: value})
        for path in (_ALL, _MODEL)
        for name in ("trace_rate", "trace_count", "log_frequency")
        for value in _NUMBERS
    ),
    *(_changed(path, {"trace_level": value}) for path in (_ALL, _MODEL) for value in _LEVELS),
    *(_changed(_ALL, {"trace_file": value}) for value in ("/tmp/trace.json", "", None, 7)),
    *(_changed(_ALL, {"trace_mode": value}) for value in ("triton", "opentelemetry", "x", None, 7)),
    _changed(_ALL, {}),
    _changed(_ALL, {"x": "1"}),
    _changed(_ALL, {"trace_rate": "5", "trace_count": "x"}),
    _changed(_ALL, {"trace_rate": "5", "trace_level": ["TIMESTAMPS"]}),
    *(_changed(_ALL, body) for body in (b"", b"{", b"[]", b'"x"', b"7", b"null")),
    Case(
        "a model's trace settings follow those of all where they are not its own",
        (
            post(_MODEL, {"trace_rate": "3"}),
            post(_ALL, {"trace_rate": "8", "trace_count": "9"}),
            get(_MODEL),
            post(_MODEL, {"trace_count": "4", "log_frequency": "2"}),
            post(_ALL, {"trace_count": "11", "log_frequency": "12"}),
            get(_MODEL),
            post(_MODEL, {"trace_rate": None, "log_frequency": None}),
            get(_MODEL),
            post(_ALL, {"trace_rate": None}),
            get(_MODEL),
            *_RESTORE,
            get(_MODEL),
        ),
    ),
]
