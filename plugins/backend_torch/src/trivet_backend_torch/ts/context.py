"""``ts.context``: what a handler is told about its model and the requests of a batch, and what it says of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_SEQUENCE_ID = "ts_request_sequence_id"


class RequestProcessor:
    """One row's request headers, and the status and headers that the handler wants its answer to have."""

    def __init__(self, request_header: dict[str, Any]) -> None:
        self._request_header = request_header
        self._status_code = 200
        self._reason_phrase: str | None = None
        self._response_header: dict[str, str] = {}

    def get_request_property(self, key: str) -> Any:
        """One header of the request; ``None`` where it has none of that name.

        Headers that a protocol forwards have their names in lower case, whatever a client wrote.
        """
        return self._request_header.get(key, self._request_header.get(key.lower()))

    def get_request_properties(self) -> dict[str, Any]:
        """All headers of the request."""
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Have the row answered with an HTTP status."""
        self._status_code, self._reason_phrase = code, reason_phrase

    def get_response_status_code(self) -> int:
        """200, unless the handler said otherwise."""
        return self._status_code

    def get_response_status_phrase(self) -> str | None:
        """What the handler said with the status."""
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Give the answer a header."""
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        """The headers that the handler gave the answer."""
        return self._response_header

    def get_response_header(self, key: str) -> str | None:
        """One of :meth:`get_response_headers`."""
        return self._response_header.get(key)


class Context:
    """One per instance; ``request_ids`` and ``request_processor`` change with each batch."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any],
        batch_size: int,
        gpu: int | None,
        mms_version: str,
        limit_max_image_pixels: bool = True,
        metrics: Any = None,
        model_yaml_config: dict[str, Any] | None = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self._system_properties = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "trivet",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.metrics = metrics
        self.model_yaml_config = model_yaml_config or {}
        self.model_code: Any = None
        """Trivet's: how the archive's Python files are imported, and taken out again."""
        self.send_intermediate: Callable[[Sequence[Any], Mapping[int, str]], None] | None = None
        """Trivet's: answers the requests of the batch in part, where the model is decoupled."""
        self.request_ids: dict[int, str] = {}
        self._request_processor: Sequence[RequestProcessor] = ()

    @property
    def system_properties(self) -> dict[str, Any]:
        """``model_dir``, ``gpu_id`` (``None`` on the CPU), ``batch_size`` and others."""
        return self._system_properties

    @property
    def request_processor(self) -> Sequence[RequestProcessor]:
        """One for each row of the batch."""
        return self._request_processor

    def begin_batch(self, request_ids: Sequence[str], headers: Sequence[dict[str, Any]]) -> None:
        """Trivet's: name the requests that ``handle`` is about to get, one for each row."""
        self.request_ids = dict(enumerate(request_ids))
        self._request_processor = [RequestProcessor(header) for header in headers]
        if self.metrics is not None:
            self.metrics.request_ids = self.request_ids

    def get_request_id(self, idx: int = 0) -> str | None:
        """The id of a row's request: the client's, made unique among those of the batch."""
        return self.request_ids.get(idx)

    def get_sequence_id(self, idx: int) -> str | None:
        """The sequence that a row's request belongs to."""
        value = self.get_request_header(idx, _SEQUENCE_ID)
        return None if value is None else str(value)

    def get_request_header(self, idx: int, key: str) -> Any:
        """A parameter of the request, as text: what is left of its headers behind all protocols.

        ``None`` where there is none of that name, and while the handler is initialized.
        """
        processors = self._request_processor
        return processors[idx].get_request_property(key) if idx < len(processors) else None

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """All parameters of one request, as text."""
        processors = self._request_processor
        return processors[idx].get_request_properties() if idx < len(processors) else {}

    def set_response_content_type(self, idx: int, value: str) -> None:
        """The header ``content-type`` of :meth:`set_response_header`."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """What was set."""
        return self.get_response_headers(idx).get("content-type")

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """With a code of 400 or more, the row's request fails, and its answer is the message of the error."""
        if idx < len(self._request_processor):
            self._request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """:meth:`set_response_status` for all rows."""
        for processor in self._request_processor:
            processor.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        """Code and phrase that a row's answer has by now."""
        processor = self._request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """A parameter of the row's response."""
        self._request_processor[idx].add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """What was set."""
        return self._request_processor[idx].get_response_headers()
