"""Which web pages a browser lets call the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from .infer_requests import INFER, double

PAGE = "https://page.example"


@pytest.fixture(scope="module")
def browser(serve: Callable[..., Any]) -> Iterator[httpx.Client]:
    """Talks to a server that lets :data:`PAGE` in."""
    with (
        serve(http_cors_allow_origin=[PAGE]) as server,
        httpx.Client(base_url=f"http://{server.http_url}") as connected,
    ):
        yield connected


def test_off_by_default(client: httpx.Client) -> None:
    response = client.get("/v2", headers={"origin": PAGE})
    assert "access-control-allow-origin" not in response.headers
    assert client.options("/v2", headers={"origin": PAGE}).status_code == 405


def test_answers_of_every_kind_carry_the_headers(browser: httpx.Client) -> None:
    origin = {"origin": PAGE}
    for response in (
        browser.get("/v2", headers=origin),
        browser.post(INFER, json=double(), headers={**origin, "accept-encoding": "identity"}),
        browser.post(INFER, json=double(), headers={**origin, "accept-encoding": "gzip"}),
        browser.get("/v2/models/nope", headers=origin),
    ):
        assert response.headers["access-control-allow-origin"] == PAGE
        assert response.headers["vary"] == "origin"


def test_other_pages_get_nothing(browser: httpx.Client) -> None:
    response = browser.get("/v2", headers={"origin": "https://other.example"})
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


def test_preflight(browser: httpx.Client) -> None:
    asked = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "a, b"}
    response = browser.options(INFER, headers=asked)
    assert response.status_code == 204
    assert response.headers["access-control-allow-methods"] == "POST"
    assert response.headers["access-control-allow-headers"] == "a, b"
    assert browser.options(INFER, headers={"origin": "https://other.example"}).status_code == 403


def test_any_origin(serve: Callable[..., Any]) -> None:
    with serve(http_cors_allow_origin=["*"]) as server:
        response = httpx.get(f"http://{server.http_url}/v2", headers={"origin": PAGE})
    assert response.headers["access-control-allow-origin"] == "*"
