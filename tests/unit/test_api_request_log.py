"""The line that ``--debug`` logs for each request."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.fakes.api_client import ApiClient
from tests.fakes.fake_service import FakeBench, make_bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeBench]:
    made = make_bench(tmp_path_factory.mktemp("log"))
    yield made
    made.service.store.close()


def test_a_request_is_one_line_without_secrets(
    bench: FakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """Method, path and status are there; token and query are not."""
    with caplog.at_level(logging.DEBUG, logger="lunport.api"):
        api = ApiClient(bench, token="secret-user:secret-project")
        api.get("/volumes", "name=secret-name")
        api.get("/nowhere")
    answered = [r.getMessage() for r in caplog.records if r.getMessage().startswith("answered")]
    assert len(answered) == 2
    assert "method=GET" in answered[0]
    assert "/volumes'" in answered[0]
    assert "status=200" in answered[0]
    assert "status=404" in answered[1]
    assert "secret" not in "".join(answered)


def test_nothing_is_logged_unless_wanted(
    bench: FakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """At the usual level a request costs no line."""
    with caplog.at_level(logging.INFO, logger="lunport.api"):
        ApiClient(bench).get("/volumes")
    assert caplog.records == []
