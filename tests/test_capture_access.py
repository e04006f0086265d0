"""Nobody gets in: keys, scopes, limits, origins, binds, and what must never be said."""

import json
import os
import re
import subprocess
import sys
import time

import httpx2
import pytest

from keeptake.capture import limits
from keeptake.capture.access import Keys, Principal
from keeptake.capture.app import PREFIX
from keeptake.capture.limits import CallLimits, SharedCounters
from keeptake.capture.problems import Problem
from keeptake.capture.server import serve
from keeptake.errors import ConfigurationError
from keeptake.ledger.keys import SCOPES, create_key, list_keys, revoke_key, split_key
from keeptake.settings import settings

# Each operation with a call that succeeds under its scope alone. A new operation without a row fails the first test.
CALLS = {
    ("post", PREFIX): ("metadata:write", {"json": "a take"}, 200),
    ("post", PREFIX + "/batch"): ("metadata:write", {"content": "{}", "headers": {"Content-Type": "application/x-ndjson"}}, 200),
    ("post", PREFIX + "/expected"): ("metadata:write", {"json": {"provider": "suno", "generationIds": []}}, 200),
    ("put", PREFIX + "/{generation_id}/feedback"): ("feedback:write", {"json": {"liked": True}}, 200),
    ("patch", PREFIX + "/{generation_id}/feedback"): ("feedback:write", {"json": {"liked": True}}, 200),
    ("get", PREFIX): ("metadata:read", {}, 200),
    ("get", PREFIX + "/{generation_id}"): ("metadata:read", {}, 200),
    ("put", PREFIX + "/{generation_id}/audio"): ("metadata:write", {"content": b"not audio"}, 422),
    ("get", PREFIX + "/{generation_id}/audio"): ("metadata:read", {}, 404),
    ("get", PREFIX + "/{generation_id}/similar"): ("ml:read", {}, 409),
    ("get", PREFIX + "/export/jsonl"): ("export:read", {}, 200),
    ("get", PREFIX + "/export/csv"): ("export:read", {}, 200),
    ("get", PREFIX + "/export/parquet"): ("export:read", {}, 200),
    ("get", PREFIX + "/statistics/overview"): ("stats:read", {}, 200),
    ("get", "/api/datasets"): ("export:read", {}, 200),
    ("get", "/api/datasets/{name}"): ("export:read", {}, 404),
    ("get", "/api/datasets/{name}/{version}"): ("export:read", {}, 404),
    ("get", "/api/datasets/{name}/{version}/diff"): ("export:read", {"params": {"to": "v2-0123456789ab"}}, 404),
    ("get", "/api/datasets/{name}/{version}/files/{file}"): ("export:read", {}, 404),
    ("get", "/metrics"): ("metrics:read", {}, 200),
    ("get", "/healthz"): (None, {}, 200),
    ("get", "/readyz"): (None, {}, 200),
}


def test_every_operation_is_in_the_matrix_under_its_scope(service):
    document = httpx2.get(service.base_url + "/openapi.json").json()
    described = {(method, path): operation for path, item in document["paths"].items() for method, operation in item.items()}
    assert {call: operation.get("x-scope") for call, operation in described.items()} == {
        call: scope for call, (scope, _, _) in CALLS.items()
    }


def test_every_operation_refuses_everybody_but_the_right_key(service, capture_service):
    assert wrong_answers(service, capture_service.take) == []


def test_control_a_guard_that_only_looks_whether_there_is_a_key_lets_people_in(service, capture_service, monkeypatch):
    async def nod(keys, request):
        if not (key := request.headers.get("authorization")):
            raise Problem(401, "unauthorized", "a key is required")
        return Principal(key, frozenset(SCOPES))

    monkeypatch.setattr(Keys, "principal", nod)
    wrong = wrong_answers(service, capture_service.take)
    let_in = {(method, path) for method, path, *_ in wrong}
    assert let_in == {call for call, (scope, _, _) in CALLS.items() if scope}
    assert {name for _, _, name, _ in wrong} == {"garbage", "another secret", "unknown", "revoked", "expired", "other scopes"}


def wrong_answers(service, take):
    """Operations and callers that were answered with another status than they should be."""
    service.post(take("g1"))
    expired = service.key_for(*SCOPES, expires_days=1e-9)
    revoked = service.key_for(*SCOPES)
    assert revoke_key(service.ledger, split_key(revoked)[0])
    right_id = split_key(service.key)[0]
    wrong = []
    for (method, path), (scope, given, success) in CALLS.items():
        if given.get("json") == "a take":
            given = {"json": take("g2")}
        without = service.key_for(*(other for other in SCOPES if other != scope))
        outcomes = {
            "no key": (None, 401),
            "garbage": ("garbage", 401),
            "another secret": (f"kt_{right_id}_{'0' * 64}", 401),
            "unknown": (f"kt_{'0' * 16}_{'0' * 64}", 401),
            "revoked": (revoked, 401),
            "expired": (expired, 401),
            "other scopes": (without, 403),
            "the right one": (service.key_for(scope) if scope else None, success),
        }
        for name, (key, status) in outcomes.items():
            if scope is None and name != "the right one":
                continue
            answered = answer_to(service, method, path, given, key)
            if answered != status:
                wrong.append((method, path, name, answered))
    return wrong


def answer_to(service, method, path, given, key):
    with service.new_client(key) as client:
        named = path.format(generation_id="g1", name="nothing", version="v1-0123456789ab", file="MANIFEST.json")
        answer = client.request(method.upper(), named, **given)
    if answer.status_code >= 400 and path != "/readyz":
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
    return answer.status_code


def test_a_key_is_kept_as_a_hash_and_its_use_noted(service):
    key = service.key_for("stats:read", note="a robot")
    name, secret = split_key(key)
    (kept,) = service.query("SELECT encode(secret_sha256, 'hex'), scopes, note FROM api_keys WHERE id = %s", name)
    assert secret not in str(kept)
    assert kept[1:] == (["stats:read"], "a robot")
    with service.new_client() as client:
        assert client.get(PREFIX + "/statistics/overview", headers={"X-API-Key": key}).status_code == 200
    listed = {key.id: key for key in list_keys(service.ledger)}
    assert listed[name].scopes == ["stats:read"]
    assert "secret" not in str(listed[name])


def test_a_key_without_or_with_unknown_scopes_is_not_made(ledger):
    for scopes, days in (([], None), (["everything"], None), (["stats:read"], 0)):
        with pytest.raises(ConfigurationError):
            create_key(ledger, scopes, days)


def test_a_revoked_key_is_refused_within_seconds_while_the_service_runs(service):
    key = service.key_for("stats:read")
    with service.new_client(key) as client:
        assert client.get(PREFIX + "/statistics/overview").status_code == 200
        revoke_key(service.ledger, split_key(key)[0])
        ends = time.monotonic() + 5
        while client.get(PREFIX + "/statistics/overview").status_code != 401:
            assert time.monotonic() < ends, "the revoked key still works"
            time.sleep(0.2)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])  # noqa: S104 -- what has to be refused
def test_no_access_control_beyond_this_machine_does_not_start(host, tmp_path):
    environment = os.environ | {"KEEPTAKE_AUTH": "none", "KEEPTAKE_HOME": str(tmp_path)}
    program = f"from keeptake.capture.server import serve; serve({host!r}, 0, database_url='postgresql:///nowhere')"
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "bind to 127.0.0.1" in ended.stderr


def test_a_limit_that_cannot_be_read_refuses_to_serve_with_its_name(monkeypatch):
    """Each worker process died of it with a traceback, and the command ended as if something were away."""
    monkeypatch.setenv("KEEPTAKE_RATE_LIMIT_WRITE", "many")
    settings.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match="KEEPTAKE_RATE_LIMIT_WRITE reads like 600/minute, got 'many'"):
            serve("127.0.0.1", 0, database_url="postgresql:///nowhere")
    finally:
        settings.cache_clear()


def test_without_access_control_this_machine_needs_no_key(ledger, tmp_path, capture_service):
    with capture_service.running(ledger, tmp_path, auth="none") as service, service.new_client() as client:
        assert client.post(PREFIX, json=capture_service.take("g1")).status_code == 200


def test_limits_refuse_the_next_call_and_say_when_to_come_back(ledger, tmp_path, capture_service):
    with capture_service.running(ledger, tmp_path, rate_limit_write="5/2 second") as service:
        answers = [service.post(capture_service.take(f"g{index}")) for index in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0"]
        refused = answers[-1]
        assert refused.headers["ratelimit-limit"] == "5"
        with service.new_client(service.key_for("metadata:write")) as other:
            assert service.post(capture_service.take("other"), other).status_code == 200
        assert service.get("").status_code == 200  # another class of calls
        assert service.post(capture_service.take("g5")).status_code == 429  # the control: who does not wait is not let in
        time.sleep(int(refused.headers["retry-after"]))
        assert service.post(capture_service.take("g5")).status_code == 200


def test_limits_hold_across_worker_processes(ledger, tmp_path, capture_service):
    key = create_key(ledger, SCOPES)
    limit = {"KEEPTAKE_RATE_LIMIT_READ": "20/minute"}
    with capture_service.Process(ledger.url, tmp_path, workers=2, **limit) as process:
        process.start()
        statuses = []
        for _ in range(30):  # a connection each, so that both workers answer
            url = process.base_url + PREFIX
            statuses.append(httpx2.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=20, verify=False).status_code)
        assert statuses == [200] * 20 + [429] * 10
        metrics = create_key(ledger, ["metrics:read"])
        shown = httpx2.get(process.base_url + "/metrics", headers={"X-API-Key": metrics}, timeout=20).text
        counted = re.findall(r'keeptake_requests_total\{method="GET",route="list_generations",status="(\d+)"\} ([\d.]+)', shown)
        assert {status: float(count) for status, count in counted} == {"200": 20.0, "429": 10.0}  # of both workers


def test_control_counters_of_their_own_let_each_process_have_the_whole_limit(tmp_path):
    shared = [CallLimits(tmp_path / "one", {"read": "10/minute"}) for _ in range(2)]
    apart = [CallLimits(tmp_path / f"of-{index}", {"read": "10/minute"}) for index in range(2)]
    passed = {
        name: sum(each[call % 2].count("read", "key").is_allowed for call in range(30))
        for name, each in (("shared", shared), ("apart", apart))
    }
    for counted in (*shared, *apart):
        counted.close()
    assert passed == {"shared": 10, "apart": 20}


def test_keys_whose_slots_collide_still_count_right(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "SLOTS", 128)
    counters = SharedCounters(tmp_path / "counters")
    for round_number in (1, 2):
        assert {counters.count(f"key-{index}", 60)[0] for index in range(100)} == {round_number}
    counters.close()


def test_where_every_slot_is_taken_the_window_that_ends_first_gives_way(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "SLOTS", 4)
    counters = SharedCounters(tmp_path / "counters")
    for name, window_s in (("a", 60), ("b", 10), ("c", 60), ("d", 60), ("e", 60)):
        assert counters.count(name, window_s)[0] == 1
    assert {name: counters.count(name, 60)[0] for name in "acde"} == dict.fromkeys("acde", 2)
    counters.close()


def test_two_exports_of_a_key_run_at_once_and_no_third(service, capture_service):
    from keeptake.errors import BusyError
    from keeptake.ledger.exports import CopyReader, jsonl_queries
    from keeptake.ledger.serving import connect_arguments

    arguments = connect_arguments(service.ledger.url)
    service.post(capture_service.take("g1"))
    running = [CopyReader(arguments, jsonl_queries(), owner=split_key(service.key)[0]) for _ in range(2)]
    with pytest.raises(BusyError):
        CopyReader(arguments, jsonl_queries(), owner=split_key(service.key)[0])
    refused = service.get("/export/jsonl")
    assert (refused.status_code, refused.json()["code"]) == (429, "too-many-exports")
    assert int(refused.headers["retry-after"]) > 0
    for reader in running:
        reader.close()
    ends = time.monotonic() + 2
    while (answer := service.get("/export/jsonl")).status_code != 200:
        assert time.monotonic() < ends
    assert len(answer.text.splitlines()) == 1


def test_browsers_of_an_allowed_origin_may_send_feedback_and_no_others(ledger, tmp_path, capture_service):
    allowed, other = "https://studio.example.com", "https://evil.example.com"
    with capture_service.running(ledger, tmp_path, cors_origins=f"{allowed}, https://two.example.com") as service:
        service.post(capture_service.take("g1"))
        path = f"{PREFIX}/g1/feedback"
        asked = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,content-type"}
        with service.new_client(service.key_for("feedback:write")) as browser:
            preflight = browser.options(path, headers={"Origin": allowed, **asked})
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == allowed
            assert "PUT" in preflight.headers["access-control-allow-methods"]
            assert browser.options(path, headers={"Origin": other, **asked}).status_code == 400
            more = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-digest,if-range,range"}
            assert browser.options(path, headers={"Origin": allowed, **more}).status_code == 200  # players and uploads send them
            sent = browser.put(path, json={"liked": True}, headers={"Origin": allowed})
            assert sent.status_code == 200
            assert sent.headers["access-control-allow-origin"] == allowed
            refused = browser.put(path, json={"rating": 9}, headers={"Origin": allowed})
            assert refused.headers["access-control-allow-origin"] == allowed  # the page has to be able to read why
            foreign = browser.put(path, json={"liked": True}, headers={"Origin": other})
            assert "access-control-allow-origin" not in foreign.headers
            assert service.post(capture_service.take("g2"), browser).status_code == 403


SECRETS = ("PLANTED-PROMPT", "PLANTED-SIGNATURE", "PLANTED-WORDS", "PLANTED-USER")


def test_secrets_prompts_and_signed_urls_appear_in_no_log_metric_or_error(ledger, tmp_path, capture_service):
    """Uvicorn once logged the traceback of a failed INSERT, and Postgres quotes the whole row in its message."""
    everything, secret = everything_said(ledger, tmp_path, capture_service)
    assert "CheckViolation" in everything and "save_generation 500" in everything
    for hidden in (*SECRETS, secret):
        assert hidden not in everything, hidden


LOUD = """
import logging
from keeptake.capture import envelope
envelope.log_fault = lambda error: logging.getLogger("keeptake.capture").error("%s", error)
"""


def test_control_an_error_logged_with_its_message_tells_what_was_planted(ledger, tmp_path, capture_service):
    everything, _ = everything_said(ledger, tmp_path, capture_service, first=LOUD)
    assert "PLANTED-PROMPT" in everything and "PLANTED-SIGNATURE" in everything


def everything_said(ledger, folder, capture_service, first=""):
    """Errors, metrics and log of a service that was sent good and bad calls with secrets in them; and a key's own secret."""
    planted = {
        "userPrompt": "PLANTED-PROMPT",
        "userId": "PLANTED-USER",
        "audioUrl": "https://cdn.example.com/a.mp3?signature=PLANTED-SIGNATURE",
    }
    key = create_key(ledger, SCOPES)
    said = []
    good = capture_service.take("g1", **planted)
    with ledger.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE generations ADD CONSTRAINT odd CHECK (generation_id <> 'g2')")
    with capture_service.Process(ledger.url, folder, program=first + capture_service.RUN) as process:
        process.start()
        with httpx2.Client(base_url=process.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:

            def send(method, path, **given):
                answer = client.request(method, path, **given)
                if answer.status_code >= 400:
                    said.append(answer.text)
                return answer.status_code

            assert send("POST", PREFIX, json=good) == 200
            assert send("POST", PREFIX, json=good | {"provider": "PLANTED-PROMPT" * 4}) == 409
            assert send("POST", PREFIX, json=good | {"duration": -1}) == 422
            assert send("POST", PREFIX, content=json.dumps(good)[:-9], headers={"Content-Type": "application/json"}) == 400
            assert send("PUT", f"{PREFIX}/g1/feedback", json={"feedback": "PLANTED-WORDS", "rating": 9}) == 422
            assert send("PUT", f"{PREFIX}/g1/feedback", json={"feedback": "PLANTED-WORDS"}) == 200
            assert send("GET", f"{PREFIX}?userId=PLANTED-USER&limit=0") == 422
            assert send("POST", PREFIX, json=good | {"generationId": "g2"}) == 500  # an error whose text is the row
            shown = client.get("/metrics").text
        process.process.terminate()
        assert process.process.wait(20) == 0
        log = process.log.read_text()
    return "\n".join([*said, shown, log]), split_key(key)[1]
