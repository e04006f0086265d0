"""Jobs and schedules."""

import dagster as dg

from assets.partitions import by_policy, known_policies, policies
from dagster_project.home import DATASET_TAG

take_to_score = dg.define_asset_job(
    "take_to_score",
    dg.AssetSelection.assets(
        "raw_generations",
        "audio_files",
        "fingerprints",
        "analyzed_features",
        "embeddings",
        "embedding_space",
        "near_duplicates",
        "prompt_adherence",
        "quality_scores",
        "feature_snapshots",
    ),
    description="The whole chain of one capture day, from what arrived to its scores.",
)

publish_dataset = dg.define_asset_job(
    "publish_dataset",
    dg.AssetSelection.assets("curated_dataset", "training_jsonl", "training_parquet", "analysis_csv", "dataset_manifest"),
    description="A new version of a policy's dataset, or the finding that the present one already says the same.",
    config=dg.PartitionedConfig(
        by_policy, run_config_for_partition_key_fn=lambda _: {}, tags_for_partition_key_fn=lambda policy: {DATASET_TAG: policy}
    ),
)

score_report_job = dg.define_asset_job(
    "report_scores", dg.AssetSelection.assets("score_report"), description="The distribution of all scores, on paper."
)

place_anew = dg.define_asset_job(
    "place_anew",
    dg.AssetSelection.assets("embeddings", "embedding_space", "feature_snapshots"),
    description="The takes of one capture day placed by the embedding model's version of today.",
)

renew_snapshots = dg.define_asset_job(
    "renew_snapshots",
    dg.AssetSelection.assets("feature_snapshots"),
    description="The snapshot of one capture day, written as the ledger is now.",
)

rescore = dg.define_asset_job(
    "rescore",
    dg.AssetSelection.assets("quality_scores"),
    description="New scores for the takes whose feedback moved.",
)


def tick_key(context: dg.ScheduleEvaluationContext, partition: str) -> str:
    """Key of a run that a schedule asks for; it tells ticks apart, since Dagster starts a key once and never again.

    With several requests a tick it is not a choice: Dagster refuses those without.
    """
    return f"{context.scheduled_execution_time:%Y-%m-%dT%H:%M} {partition}"


@dg.schedule(
    job=publish_dataset,
    cron_schedule="0 3 1 * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="On the first of the month at 03:00 UTC: a version of every policy's dataset, whatever the gate thinks.",
)
def monthly_export(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
    """Ask for every policy."""
    return [dg.RunRequest(run_key=tick_key(context, policy), partition_key=policy) for policy in known_policies(policies())]


@dg.schedule(
    job=score_report_job,
    cron_schedule="0 4 * * 1",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Monday at 04:00 UTC: the distribution of all scores as a page in HOME/reports.",
)
def weekly_score_report(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Ask for the report."""
    return dg.RunRequest()
