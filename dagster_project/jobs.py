"""Jobs and schedules."""

import dagster as dg

take_to_score = dg.define_asset_job(
    "take_to_score",
    dg.AssetSelection.assets(
        "raw_generations", "audio_files", "analyzed_features", "embeddings", "quality_scores", "feature_snapshots"
    ),
    description="The whole chain of one capture day, from what arrived to its scores.",
)

rescore = dg.define_asset_job(
    "rescore",
    dg.AssetSelection.assets("quality_scores"),
    description="New scores for the takes whose feedback moved.",
)
