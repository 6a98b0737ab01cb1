"""The OpenAPI document: valid, complete, and the same in docs/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from trivet_protocol_kserve_v2.http.endpoints import ENDPOINTS
from trivet_protocol_kserve_v2.http.openapi import OPERATIONS, document
from trivet_protocol_kserve_v2.restrictions import PARTS

PUBLISHED = Path(__file__).parents[4] / "docs" / "reference" / "openapi.json"


def test_it_is_valid() -> None:
    OpenAPIV31SpecValidator(document()).validate()


def test_every_endpoint_is_described() -> None:
    paths = document()["paths"]
    assert {(e.method.lower(), e.path) for e in ENDPOINTS} == {(m, p) for p, methods in paths.items() for m in methods}
    assert {endpoint.operation for endpoint in ENDPOINTS} == set(OPERATIONS)
    assert {endpoint.api for endpoint in ENDPOINTS} <= set(PARTS)


@pytest.mark.skipif(not PUBLISHED.parent.exists(), reason="the package is tested outside of the repository")
def test_the_published_document_is_this_one() -> None:
    command = "python -m trivet_protocol_kserve_v2.http.openapi > docs/reference/openapi.json"
    assert json.loads(PUBLISHED.read_text()) == document(), f"out of date; run: {command}"
