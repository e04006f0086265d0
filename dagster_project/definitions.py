"""Everything that Dagster runs, named by hand."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.analyzed_features import analyzed_features
from assets.audio_files import audio_files
from assets.checks import (
    enough_for_a_first_fine_tuning,
    features_cover_the_stored_audio,
    scores_lie_in_the_unit_interval,
    stored_audio_is_there,
    takes_are_unique,
)
from assets.curated_datasets import curated_dataset
from assets.embedding_space import embedding_space
from assets.embeddings import embeddings
from assets.exports import analysis_csv, dataset_manifest, training_jsonl, training_parquet
from assets.feature_snapshots import feature_snapshots
from assets.fingerprints import fingerprints, near_duplicates
from assets.prompt_adherence import prompt_adherence
from assets.quality_scores import quality_scores, score_report
from assets.raw_generations import raw_generations
from dagster_project import failures, jobs, lost_runs, old_runs, retries, sensors
from resources.audio_store import AudioStoreResource
from resources.compute import ComputeResource
from resources.ledger import LedgerResource
from resources.model_store import ModelStoreResource
from resources.notifier import NotifierResource


def default_resources() -> dict[str, Any]:
    """Connections as the environment configures them."""
    return {
        "ledger": LedgerResource(),
        "audio_store": AudioStoreResource(),
        "model_store": ModelStoreResource(),
        "compute": ComputeResource(),
        "notifier": NotifierResource(),
    }


def build_definitions(*, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Build the definitions; tests swap connections by `resources`. Opens nothing and needs no environment."""
    return dg.Definitions(
        assets=[
            raw_generations,
            audio_files,
            analyzed_features,
            embeddings,
            fingerprints,
            embedding_space,
            near_duplicates,
            prompt_adherence,
            quality_scores,
            score_report,
            feature_snapshots,
            curated_dataset,
            training_jsonl,
            training_parquet,
            analysis_csv,
            dataset_manifest,
        ],
        asset_checks=[
            enough_for_a_first_fine_tuning,
            takes_are_unique,
            stored_audio_is_there,
            features_cover_the_stored_audio,
            scores_lie_in_the_unit_interval,
            failures.announced_generations_are_saved,
            failures.no_day_has_failed_rows,
        ],
        jobs=[
            jobs.take_to_score,
            jobs.renew_snapshots,
            jobs.rescore,
            jobs.publish_dataset,
            jobs.score_report_job,
            retries.retry_audio,
            old_runs.forget_old_runs,
        ],
        schedules=[sensors.nightly_snapshots, jobs.monthly_export, jobs.weekly_score_report, old_runs.weekly_purge],
        sensors=[
            sensors.arrivals,
            sensors.feedback_moved,
            sensors.outdated_places,
            sensors.enough_new_takes,
            failures.run_failures,
            lost_runs.lost_runs,
            failures.missing_metadata,
        ],
        resources={**default_resources(), **(resources or {})},
        executor=dg.in_process_executor,
    )


defs = build_definitions()
