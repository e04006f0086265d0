"""The Python client against a running service."""

import pytest

from keeptake.client import ApiError, Client
from keeptake.errors import UnavailableError


@pytest.fixture
def client(service):
    with Client(service.base_url, service.key) as opened:
        yield opened


def test_a_take_from_save_to_export(client, capture_service):
    saved = client.save(capture_service.take("g1"))
    assert client.save(capture_service.take("g1")) == saved | {"replayed": True}
    assert client.give_feedback("g1", liked=True, rating=4)["userFeedback"] == {"liked": True, "rating": 4}
    assert client.give_feedback("g1", rating=None)["userFeedback"] == {"liked": True}
    assert client.save_many(capture_service.take(f"b{index}") for index in range(3))["saved"] == 3
    assert client.announce("suno", ["g1", "gone"])["missing"] == 1
    assert client.record("g1")["userFeedback"] == {"liked": True}
    assert {record["generationId"] for record in client.records(provider="suno")} == {"g1", "b0", "b1", "b2"}
    assert [line["metadata"]["generation_id"] for line in client.export_lines()] == ["g1", "b0", "b1", "b2"]
    assert b"".join(client.export_csv()).count(b"\n") == 5
    assert client.statistics()["totalGenerations"] == 4


def test_a_prompt_with_line_separators_of_unicode_is_one_line(client, capture_service):
    """U+2028 in one prompt made the whole export unreadable from there on."""
    prompt = "line\u2028sep\u0085nel"
    client.save(capture_service.take("g1", aiEnhancedPrompt=prompt))
    assert [line["prompt"] for line in client.export_lines()] == [prompt]


def test_a_refusal_carries_the_problem(service, client, capture_service):
    with pytest.raises(ApiError, match="Missing provider") as refused:
        client.save(capture_service.take("g1", provider=None))
    assert (refused.value.status, refused.value.code) == (422, "missing-provider")
    assert refused.value.errors == [{"pointer": "/provider", "detail": "Missing provider"}]
    with Client(service.base_url, "kt_wrong") as stranger, pytest.raises(ApiError, match="401"):
        stranger.statistics()


def test_a_limit_is_waited_for(ledger, tmp_path, capture_service):
    with (
        capture_service.running(ledger, tmp_path, rate_limit_write="2/1 second") as service,
        Client(service.base_url, service.key) as client,
    ):
        assert [client.save(capture_service.take(f"g{index}"))["replayed"] for index in range(5)] == [False] * 5


def test_a_service_that_is_away_is_named(capture_service):
    away = f"http://127.0.0.1:{capture_service.free_port()}"
    with Client(away, attempts=2) as client, pytest.raises(UnavailableError, match="does not answer"):
        client.statistics()
