"""A million rows: memory, first byte and statistics of the service. Minutes: `pytest -m soak tests/test_capture_soak.py`."""

import http.client
import time

import httpx2
import psutil
import pytest

from keeptake.capture.app import PREFIX
from keeptake.ledger.keys import SCOPES, create_key

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

ROWS = 1_000_000
MOST_GROWTH_MB = 64
FIRST_BYTE_S = 1.0
WARM_S = 0.05

FILL = (
    "INSERT INTO audio (sha256, storage_key, size_bytes, format, codec, duration_s, sample_rate_hz, channels)"
    " SELECT encode(sha256(n::text::bytea), 'hex'), n::text, 1, 'mp3', 'mp3', 29.5, 44100, 2"
    " FROM generate_series(2, {rows}, 2) n",
    "INSERT INTO features (audio_sha256, versions, tempo_bpm, key, has_vocals, loudness_lufs)"
    " SELECT sha256, 'x=1', 140.25, 'F minor', true, -9.25 FROM audio",
    "INSERT INTO generations (generation_id, identity_sha256, user_id, user_prompt, generation_params, audio_url, duration_s,"
    " provider, model_used, source, captured_on, created_at, liked, rating, used, quality_score, audio_sha256, audio_status)"
    " SELECT 'gen_' || n, '', 'user' || n %% 1000, 'dark trap beat number ' || n, "
    """ '{{"genre": "trap", "bpm": 140, "duration": 30}}', 'https://cdn.example.com/' || n || '.mp3', 30,"""
    " 'provider' || n %% 3, 'v5', 'api', current_date, now(), n %% 2 = 0, 1 + n %% 5, n %% 4 = 0,"
    " CASE WHEN n %% 2 = 0 THEN (n %% 100) / 100.0 END,"
    " CASE WHEN n %% 2 = 0 THEN encode(sha256(n::text::bytea), 'hex') END,"
    " CASE WHEN n %% 2 = 0 THEN 'stored' ELSE 'pending' END FROM generate_series(1, {rows}) n",
)


def memory_mb(process):
    return psutil.Process(process.process.pid).memory_info().rss / 2**20


def export(process, key, path):
    """Lines, seconds to the first byte of the body, and the most memory that the service had meanwhile."""
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=300)
    started_s = time.monotonic()
    connection.request("GET", PREFIX + path, headers={"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    assert answer.status == 200
    piece = answer.read(1)
    first_byte_s = time.monotonic() - started_s
    lines, most_mb, read = 0, 0.0, 0
    while piece:
        lines += piece.count(b"\n")
        read += 1
        if read % 50 == 0:
            most_mb = max(most_mb, memory_mb(process))
        piece = answer.read(1 << 18)
    connection.close()
    return lines, first_byte_s, most_mb


COUNT_EACH_TIME = """
from keeptake.capture import statistics
statistics.FRESH_S = statistics.STALE_S = -1.0
"""


def measure(ledger, folder, capture_service, first=""):
    """A service over a million rows: for JSONL and CSV, seconds to the first byte and megabytes grown; seconds of statistics."""
    key = create_key(ledger, SCOPES)
    exports = []
    with capture_service.Process(ledger.url, folder, program=first + capture_service.RUN) as process:
        process.start()
        headers = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=process.base_url, headers=headers, timeout=120, verify=False) as client:
            assert client.get(f"{PREFIX}/export/jsonl?provider=nobody").status_code == 200  # the code is loaded
            idle_mb = memory_mb(process)
            for path, wanted in (("/export/jsonl", ROWS), ("/export/csv", ROWS + 1)):
                lines, first_byte_s, most_mb = export(process, key, path)
                assert lines == wanted
                exports.append((first_byte_s, most_mb - idle_mb))
            ends = time.monotonic() + 60
            while client.get(f"{PREFIX}/statistics/overview").status_code != 200:  # the first count may outlast a request
                assert time.monotonic() < ends
                time.sleep(0.5)
            started_s = time.perf_counter()
            shown = client.get(f"{PREFIX}/statistics/overview")
            warm_s = time.perf_counter() - started_s
            if not first:
                assert shown.json()["statistics"]["totalGenerations"] == ROWS
                again = client.get(f"{PREFIX}/statistics/overview", headers={"If-None-Match": shown.headers["etag"]})
                assert again.status_code == 304
    print(f"{'control' if first else 'service'}: first byte s and memory MB {exports}, statistics {warm_s * 1000:.1f} ms")
    return exports, warm_s


def test_a_million_rows(ledger, tmp_path, capture_service):
    """Measured twice: the control reads an export whole before it answers, and counts the statistics for each call."""
    with ledger.begin() as connection:
        for statement in FILL:
            connection.exec_driver_sql(statement.format(rows=ROWS))
    with ledger.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE generations, audio, features")
    exports, warm_s = measure(ledger, tmp_path, capture_service)
    assert max(first_byte_s for first_byte_s, _ in exports) <= FIRST_BYTE_S
    assert max(grown_mb for _, grown_mb in exports) <= MOST_GROWTH_MB
    assert warm_s <= WARM_S
    exports, warm_s = measure(ledger, tmp_path, capture_service, capture_service.READ_WHOLE + COUNT_EACH_TIME)
    assert min(first_byte_s for first_byte_s, _ in exports) > FIRST_BYTE_S
    assert max(grown_mb for _, grown_mb in exports) > MOST_GROWTH_MB
    assert warm_s > WARM_S
