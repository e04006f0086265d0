"""Published datasets over HTTP: versions, descriptions, differences, and files by range, for keys that may export."""

import hashlib
import json

import polars as pl
import pytest

from keeptake.curation.versions import ROW, row_hash
from keeptake.formats import manifest

V1, V2 = "v1-000000000001", "v2-000000000002"


@pytest.fixture
def published(service, tmp_path):
    """Two versions of a dataset: one row less, one more in the second."""
    home = tmp_path / "home" / "datasets" / "demo"
    for version, names, rate_hz in ((V1, ["a", "b"], 32_000), (V2, ["b", "c"], 44_100)):
        folder = home / version
        (folder / "lineage").mkdir(parents=True)
        found = [{**dict.fromkeys(ROW), "id": name, "generation_id": f"gen_{name}", "split": "train"} for name in names]
        rows = [row | {"row_sha256": row_hash(row)} for row in found]
        pl.DataFrame(rows, schema={**ROW, "row_sha256": pl.String}).write_parquet(folder / "lineage" / "rows.parquet")
        made = {"policy": {"name": "demo", "audio": {"sample_rate_hz": rate_hz}}, "formats": {"clips": "1"}}
        lineage = {**made, "location": str(folder), "gone": {"gen_a": "low-score"}}
        (folder / "lineage" / "lineage.json").write_text(json.dumps(lineage))
        (folder / "clip.flac").write_bytes(bytes(range(256)))
        (folder / "empty.txt").write_bytes(b"")
        manifest.write(folder, about={"name": "demo", "version": version, "rows": {"train": 2}}, row_hashes={})
    (home / "secret.txt").write_text("beside the versions")
    return service.client


def test_versions_are_listed_and_described(published, tmp_path):
    listed = published.get("/api/datasets").json()["items"]
    assert listed == published.get("/api/datasets/demo").json()["items"]
    assert listed == [{"name": "demo", "version": version, "rows": {"train": 2}} for version in (V1, V2)]
    answer = published.get(f"/api/datasets/demo/{V1}")
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.json()["files"]["clip.flac"]["size_bytes"] == 256
    assert str(tmp_path) not in answer.text


def test_differences_carry_their_reasons(published):
    first, *items = published.get(f"/api/datasets/demo/{V1}/diff?to={V2}").json()["items"]
    made = {"id": None, "generation_id": None, "change": "made-otherwise"}
    assert first == made | {"columns": ["policy.audio.sample_rate_hz"], "reason": "32000 → 44100"}
    assert [(row["id"], row["change"], row["reason"]) for row in items] == [
        ("a", "removed", "low-score"),
        ("c", "added", "passes"),
    ]


def test_files_are_sent_whole_by_range_and_not_again(published):
    url = f"/api/datasets/demo/{V1}/files/clip.flac"
    whole = published.get(url)
    assert whole.content == bytes(range(256)) and whole.headers["content-type"] == "audio/flac"
    assert whole.headers["etag"] == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    part = published.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, bytes(range(10, 20)), "bytes 10-19/256")
    assert published.get(url, headers={"Range": "bytes=300-"}).status_code == 416
    assert published.get(url, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert published.get(f"/api/datasets/demo/{V1}/files/empty.txt").content == b""


@pytest.mark.parametrize(
    "path",
    [
        "/demo/v9-000000000009",
        "/nobody",
        f"/nobody/{V1}",
        f"/demo/{V1}/files/../secret.txt",
        f"/demo/{V1}/files/..%2Fsecret.txt",
        f"/demo/{V1}/files/%2Fetc%2Fpasswd",
        f"/demo/{V1}/files/MANIFEST.jsonx",
    ],
)
def test_what_is_not_listed_is_not_found(published, tmp_path, path):
    answer = published.get(f"/api/datasets{path}")
    assert answer.status_code in (404, 422) and "beside the versions" not in answer.text and "root:" not in answer.text
    assert str(tmp_path) not in answer.text  # the sentence for the command line names the folder of the datasets


def test_only_keys_that_may_export_read_datasets(published, service):
    with service.new_client(service.key_for("metadata:read")) as other, service.new_client() as nobody:
        for path in ("", "/demo", f"/demo/{V1}", f"/demo/{V1}/files/clip.flac", f"/demo/{V1}/diff?to={V2}"):
            assert other.get(f"/api/datasets{path}").status_code == 403
            assert nobody.get(f"/api/datasets{path}").status_code == 401
