"""Generations that a provider announced and nobody saved: in metrics, in a standing check, and once in an alert."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest

from assets.raw_generations import raw_generations
from dagster_project.failures import announced_generations_are_saved, missing_metadata
from keeptake.capture import missing
from keeptake.capture.app import PREFIX
from keeptake.capture.missing import alert_missing
from keeptake.ledger import expected
from keeptake.ledger.expected import missing_by_provider
from resources.ledger import LedgerResource
from resources.notifier import NotifierResource

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise imports it


@pytest.fixture
def take(capture_service):
    return capture_service.take


@contextmanager
def alert_sink():
    """Address of a local server, and what Apprise sent to it."""
    alerts = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self):
            alerts.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}/", alerts
    server.shutdown()
    server.server_close()
    thread.join()


def announce(service, *names):
    told = service.client.post(f"{PREFIX}/expected", json={"provider": "suno", "generationIds": names})
    assert told.status_code == 200, told.text
    return told.json()


def test_the_same_announced_at_once_in_other_orders_waits_for_no_other(service):
    """Two such calls waited for each other in eight of nine rounds, and one was told that the ledger is away."""
    names = [f"g{number}" for number in range(2_000)]
    for round_ in range(4):
        ids = [f"{round_}-{name}" for name in names]
        with ThreadPoolExecutor(4) as pool:
            told = list(pool.map(lambda order: announce(service, *order), (ids, ids[::-1], ids, ids[::-1])))
        assert sum(each["announced"] for each in told) == len(ids)


def test_missing_generations_show_in_metrics_until_they_come(service, take):
    service.post(take("here"))
    assert announce(service, "here", "gone") == {"success": True, "announced": 2, "missing": 1}
    assert 'keeptake_missing_metadata{provider="suno"} 1' in service.client.get("/metrics").text
    assert missing_by_provider(service.ledger) == {"suno": 1}
    service.post(take("gone"))
    assert 'keeptake_missing_metadata{provider="suno"}' not in service.client.get("/metrics").text


def look_three_times(service, take, sink):
    """Generations that each of three looks told people about; one of two comes between the first and the second."""
    announce(service, "gone", "late")
    told = [alert_missing(service.ledger, [sink])]
    service.post(take("late"))
    told += [alert_missing(service.ledger, [sink]) for _ in range(2)]
    return [[item.generation_id for item in items] for items in told]


def test_people_are_told_once_of_what_is_missing_at_two_looks(service, take):
    with alert_sink() as (address, alerts):
        assert look_three_times(service, take, address) == [[], ["gone"], []]
    assert len(alerts) == 1
    assert "suno: 1" in alerts[0] and "gone" in alerts[0]


def test_control_at_the_first_look_what_is_on_its_way_would_count_as_missing(service, take, monkeypatch):
    monkeypatch.setattr(expected, "TICKS_TO_ALERT", 1)
    with alert_sink() as (address, _):
        assert look_three_times(service, take, address) == [["gone", "late"], [], []]


def test_control_without_a_mark_people_are_told_again_and_again(service, take, monkeypatch):
    monkeypatch.setattr(missing, "mark_alerted", lambda ledger, items: None)
    with alert_sink() as (address, alerts):
        assert look_three_times(service, take, address) == [[], ["gone"], ["gone"]]
    assert len(alerts) == 2


def test_an_alert_that_nobody_took_is_sent_again(service, take):
    with alert_sink() as (address, _):
        pass  # nobody listens there any more
    assert look_three_times(service, take, address) == [[], [], []]
    with alert_sink() as (address, alerts):
        assert [item.generation_id for item in alert_missing(service.ledger, [address])] == ["gone"]
    assert len(alerts) == 1


def standing_check(ledger):
    """What the check of the Dagster UI finds, run by Dagster itself."""
    definitions = dg.Definitions(
        assets=[raw_generations],
        asset_checks=[announced_generations_are_saved],
        jobs=[
            dg.define_asset_job(
                "look", dg.AssetSelection.checks(announced_generations_are_saved), executor_def=dg.in_process_executor
            )
        ],
        resources={"ledger": LedgerResource(url=ledger.url)},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        done = definitions.resolve_job_def("look").execute_in_process(instance=instance)
    (found,) = done.get_asset_check_evaluations()
    return found


def test_the_standing_check_warns_of_them_and_passes_once_they_are_there(service, take):
    announce(service, "gone")
    warned = standing_check(service.ledger)
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "suno" in str(warned.metadata["missing"].value)
    service.post(take("gone"))
    assert standing_check(service.ledger).passed


def test_the_sensor_tells_whom_its_resource_names(service):
    """It read the setting past the resource: who had given the resource an address of its own was told of nothing."""
    announce(service, "gone")
    with alert_sink() as (address, alerts):
        resources = {"ledger": LedgerResource(url=service.ledger.url), "notifier": NotifierResource(urls=address)}
        for _ in range(2):
            with dg.build_sensor_context(resources=resources) as context:
                missing_metadata(context)
    assert len(alerts) == 1 and "gone" in alerts[0]
