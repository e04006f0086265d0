"""The graph as a written table: keys, groups, partitions, dependencies, checks, automation."""

from datetime import UTC, datetime

import dagster as dg

from assets.partitions import capture_day
from dagster_project.definitions import build_definitions

GRAPH = {
    # asset: (group, partitioned by, depends on)
    "raw_generations": ("capture", "day", set()),
    "audio_files": ("custody", "day", {"raw_generations"}),
    "analyzed_features": ("hearing", "day", {"audio_files"}),
    "embeddings": ("embedding", "day", {"analyzed_features"}),
    "fingerprints": ("hearing", "day", {"audio_files"}),
    "embedding_space": ("embedding", None, {"embeddings"}),
    "near_duplicates": ("quality", None, {"fingerprints", "embedding_space"}),
    "prompt_adherence": ("quality", None, {"analyzed_features", "embeddings"}),
    "quality_scores": ("quality", None, {"analyzed_features", "embeddings"}),
    "score_report": ("quality", None, {"quality_scores"}),
    "feature_snapshots": ("published", "day", {"quality_scores", "embeddings"}),
    "curated_dataset": ("published", "policy", {"quality_scores", "near_duplicates", "prompt_adherence"}),
    "training_jsonl": ("published", "policy", {"curated_dataset"}),
    "training_parquet": ("published", "policy", {"curated_dataset"}),
    "analysis_csv": ("published", "policy", {"curated_dataset"}),
    "dataset_manifest": ("published", "policy", {"training_jsonl", "training_parquet", "analysis_csv"}),
}
BLOCKING = {
    "stored_audio_is_there",
    "features_cover_the_stored_audio",
    "scores_lie_in_the_unit_interval",
    "nothing_leaks_between_splits",
    "readers_lose_no_row",
}


def partitioning(definition):
    match definition:
        case dg.DailyPartitionsDefinition():
            return "day"
        case dg.StaticPartitionsDefinition():
            return "policy"
    return None


def test_the_graph_is_as_written():
    graph = build_definitions().resolve_asset_graph()
    found = {
        key.to_user_string(): (
            graph.get(key).group_name,
            partitioning(graph.get(key).partitions_def),
            {parent.to_user_string() for parent in graph.get(key).parent_keys},
        )
        for key in graph.get_all_asset_keys()
    }
    assert found == GRAPH


def test_every_asset_says_what_it_is():
    graph = build_definitions().resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description.endswith("."), f"{key} has no sentence"
        assert node.owners, f"{key} has no owner"
        assert node.kinds, f"{key} has no kinds"


def test_whatever_runs_says_what_it_does():
    """The page of no sensor and no schedule said what it was for: Dagster takes a docstring for an asset's description alone."""
    repository = build_definitions().get_repository_def()
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    found = {each.name: each.description for each in [*repository.sensor_defs, *repository.schedule_defs, *jobs]}
    assert len(found) > 15
    assert {name for name, description in found.items() if not (description or "").endswith(".")} == set()


def test_every_check_says_what_it_looks_at():
    graph = build_definitions().resolve_asset_graph()
    described = {key.name: graph.get(key).description for key in graph.asset_check_keys}
    assert {name for name, description in described.items() if not (description or "").endswith(".")} == set()


def test_a_version_is_proved_for_its_own_policy():
    graph = build_definitions().resolve_asset_graph()
    proofs = [key for key in graph.asset_check_keys if key.asset_key == dg.AssetKey("dataset_manifest")]
    assert {"nothing_leaks_between_splits", "readers_lose_no_row"} <= {key.name for key in proofs}
    assert {partitioning(graph.get(key).partitions_def) for key in proofs} == {"policy"}


def test_what_a_run_tells_of_its_day_stands_for_that_day():
    """A warning of one day's run went under in the next day's pass."""
    graph = build_definitions().resolve_asset_graph()
    of_day = {"every_source_was_read", "every_model_placed_each_take"}
    found = {key.name: partitioning(graph.get(key).partitions_def) for key in graph.asset_check_keys if key.name in of_day}
    assert found == dict.fromkeys(of_day, "day")


def test_blocking_checks_stand_beside_what_they_guard():
    graph = build_definitions().resolve_asset_graph()
    assert {key.name for key in graph.asset_check_keys if graph.get(key).blocking} == BLOCKING


def test_capture_days_include_today_and_a_long_history():
    days = capture_day.get_partition_keys()
    assert len(days) > 400
    assert days[-1] == datetime.now(UTC).date().isoformat()
