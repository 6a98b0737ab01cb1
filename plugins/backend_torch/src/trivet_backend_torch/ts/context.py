"""``ts.context``: what a handler is told about its model and about the requests of a batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any


class Metrics:
    """What handlers count. Here it goes to the model's log, at level DEBUG."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("add_"):
            raise AttributeError(name)
        return lambda *arguments, **keywords: self._logger.debug("metric %s %s %s", name, arguments, keywords)


class Context:
    """One per instance; ``request_ids`` and headers change with each batch."""

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
        self.request_ids: dict[int, str] = {}
        self._headers: Sequence[Mapping[str, str]] = ()

    @property
    def system_properties(self) -> dict[str, Any]:
        """``model_dir``, ``gpu_id`` (``None`` on the CPU), ``batch_size`` and others."""
        return self._system_properties

    def begin_batch(self, request_ids: Sequence[str], headers: Sequence[Mapping[str, str]]) -> None:
        """Trivet's: name the requests that ``handle`` is about to get, one for each row."""
        self.request_ids = dict(enumerate(request_ids))
        self._headers = headers

    def get_request_id(self, idx: int = 0) -> str | None:
        """The id that a client gave its request."""
        return self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> str | None:
        """A parameter of the request: what is left of its headers behind all protocols."""
        return self.get_all_request_header(idx).get(key)

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        """All parameters of one request, as text."""
        return dict(self._headers[idx]) if idx < len(self._headers) else {}

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Accepted; a tensor has no content type."""

    def get_response_content_type(self, idx: int) -> str | None:
        """None is kept."""
        return None

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Accepted; raise an exception to fail a request."""

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Accepted; raise an exception to fail a request."""

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Accepted; an answer has no headers of its own."""
