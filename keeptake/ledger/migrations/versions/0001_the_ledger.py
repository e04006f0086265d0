"""the ledger as the plan describes it."""

import pgvector.sqlalchemy
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Up."""
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "audio",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("storage_key", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("codec", sa.Text(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("sample_rate_hz", sa.Integer(), nullable=False),
        sa.Column("channels", sa.SmallInteger(), nullable=False),
        sa.Column(
            "flags",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="legal oddities, as heard at decoding",
        ),
        sa.Column("measures", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("stored_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("analysis_reason", sa.Text(), nullable=True, comment="why it cannot be heard, where hearing failed for good"),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_audio_sha256")),
        sa.CheckConstraint("duration_s > 0", name=op.f("ck_audio_duration_s")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_audio")),
    )
    op.create_table(
        "dataset_versions",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="of the dataset, which is the policy's"),
        sa.Column("version", sa.Text(), nullable=False, comment="vN-HASH: ordinal, and hash of rows, policy and format versions"),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("policy", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "lineage",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="versions of analyzer, scaler, formula, formats; counts and reasons",
        ),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=True),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("published_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="null: written aside, not visible"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_versions")),
        sa.UniqueConstraint("name", "ordinal", name=op.f("uq_dataset_versions_name_ordinal")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_dataset_versions_name_version")),
    )
    op.create_table(
        "embedding_scalers",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, comment="from 1, a model version"),
        sa.Column("fitted_on", sa.Integer(), nullable=False, comment="number of vectors"),
        sa.Column("dims", sa.Integer(), nullable=False, comment="of the scaled vectors"),
        sa.Column("mean", postgresql.ARRAY(sa.REAL()), nullable=False),
        sa.Column("deviation", postgresql.ARRAY(sa.REAL()), nullable=False),
        sa.Column("projection", sa.LargeBinary(), nullable=True, comment="float32 matrix (raw dims, dims), C order; null: none"),
        sa.Column("is_current", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("fitted_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embedding_scalers")),
        sa.UniqueConstraint("model", "model_version", "version", name=op.f("uq_embedding_scalers_model_model_version_version")),
    )
    op.create_table(
        "expected_generations",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("generation_id", sa.Text(), nullable=False),
        sa.Column("announced_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_missing", sa.Integer(), server_default="0", nullable=False, comment="ticks of the sensor that missed it"),
        sa.Column("alerted_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("provider", "generation_id", name=op.f("pk_expected_generations")),
    )
    op.create_table(
        "refusals",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=True, comment="from 1, where the source has lines"),
        sa.Column("line_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("generation_id", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False, comment="at most 64 KiB of the line, as it came"),
        sa.Column("refused_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "reason IN ('not-json', 'not-an-object', 'conflict') OR reason ~ '^(missing|invalid|too-long)-[A-Za-z.]+$'",
            name=op.f("ck_refusals_reason"),
        ),
        sa.CheckConstraint("octet_length(raw) <= 65536", name=op.f("ck_refusals_raw")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refusals")),
        sa.UniqueConstraint("source", "line_sha256", name=op.f("uq_refusals_source_line_sha256")),
    )
    op.create_table(
        "source_cursors",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("cursor", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("moved_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_source_cursors")),
    )
    op.create_table(
        "analyses",
        sa.Column("audio_sha256", sa.Text(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("cpu_s", sa.Double(), nullable=False),
        sa.Column("analyzed_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("status = 'ok' OR reason IS NOT NULL", name=op.f("ck_analyses_null_has_reason")),
        sa.CheckConstraint("status IN ('ok', 'null')", name=op.f("ck_analyses_status")),
        sa.ForeignKeyConstraint(["audio_sha256"], ["audio.sha256"], name=op.f("fk_analyses_audio_sha256"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("audio_sha256", "part", name=op.f("pk_analyses")),
    )
    op.create_index("ix_analyses_part_version", "analyses", ["part", "version"], unique=False)
    op.create_table(
        "dataset_rows",
        sa.Column("dataset", sa.Integer(), nullable=False),
        sa.Column("row_id", sa.Text(), nullable=False, comment="file id, of a take or of a segment"),
        sa.Column("generation_id", sa.Text(), nullable=False),
        sa.Column("audio_sha256", sa.Text(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("group_id", sa.Text(), nullable=False, comment="component of duplicates, siblings and segments"),
        sa.Column("row_sha256", sa.Text(), nullable=False),
        sa.CheckConstraint("split IN ('train', 'valid', 'test')", name=op.f("ck_dataset_rows_split")),
        sa.ForeignKeyConstraint(["dataset"], ["dataset_versions.id"], name=op.f("fk_dataset_rows_dataset"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("dataset", "row_id", name=op.f("pk_dataset_rows")),
    )
    op.create_index("ix_dataset_rows_generation_id", "dataset_rows", ["generation_id"], unique=False)
    op.create_table(
        "duplicate_pairs",
        sa.Column("first_sha256", sa.Text(), nullable=False),
        sa.Column("second_sha256", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column(
            "evidence",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="offset_s, bit_error, speed, rotation, cosine",
        ),
        sa.Column("found_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("first_sha256 < second_sha256", name=op.f("ck_duplicate_pairs_ordered")),
        sa.ForeignKeyConstraint(
            ["first_sha256"], ["audio.sha256"], name=op.f("fk_duplicate_pairs_first_sha256"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["second_sha256"], ["audio.sha256"], name=op.f("fk_duplicate_pairs_second_sha256"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("first_sha256", "second_sha256", "version", name=op.f("pk_duplicate_pairs")),
    )
    op.create_table(
        "embeddings",
        sa.Column("audio_sha256", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("vector", postgresql.ARRAY(sa.REAL()), nullable=False, comment="raw, as the model gave it"),
        sa.Column("embedded_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["audio_sha256"], ["audio.sha256"], name=op.f("fk_embeddings_audio_sha256"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("audio_sha256", "model", "version", name=op.f("pk_embeddings")),
    )
    op.create_index("ix_embeddings_model_version", "embeddings", ["model", "version"], unique=False)
    op.create_table(
        "features",
        sa.Column("audio_sha256", sa.Text(), nullable=False),
        sa.Column("versions", sa.Text(), nullable=False, comment="part=version of every part, sorted"),
        sa.Column("duration_s", sa.Double(), nullable=True),
        sa.Column("tempo_bpm", sa.Double(), nullable=True),
        sa.Column("tempo_confidence", sa.Double(), nullable=True),
        sa.Column("rhythm_confidence", sa.Double(), nullable=True),
        sa.Column("tempo_stability", sa.Double(), nullable=True),
        sa.Column("beats_per_bar", sa.SmallInteger(), nullable=True),
        sa.Column("onset_rate_hz", sa.Double(), nullable=True),
        sa.Column("has_tempo_change", sa.Boolean(), nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("key_confidence", sa.Double(), nullable=True),
        sa.Column("tuning_cents", sa.Double(), nullable=True),
        sa.Column("spectral_centroid_hz", sa.Double(), nullable=True),
        sa.Column("spectral_rolloff_hz", sa.Double(), nullable=True),
        sa.Column("spectral_bandwidth_hz", sa.Double(), nullable=True),
        sa.Column("spectral_flatness", sa.Double(), nullable=True),
        sa.Column("zero_crossing_rate", sa.Double(), nullable=True),
        sa.Column("bandwidth_limit_hz", sa.Double(), nullable=True),
        sa.Column("loudness_lufs", sa.Double(), nullable=True),
        sa.Column("loudness_range_lu", sa.Double(), nullable=True),
        sa.Column("true_peak_dbtp", sa.Double(), nullable=True),
        sa.Column("crest_factor_db", sa.Double(), nullable=True),
        sa.Column("dynamic_range", sa.Double(), nullable=True),
        sa.Column("no_clipping", sa.Double(), nullable=True),
        sa.Column("clipping_share", sa.Double(), nullable=True),
        sa.Column("silence_share", sa.Double(), nullable=True),
        sa.Column("dc_offset", sa.Double(), nullable=True),
        sa.Column("stereo_correlation", sa.Double(), nullable=True),
        sa.Column("has_clipping", sa.Boolean(), nullable=True),
        sa.Column("is_silent", sa.Boolean(), nullable=True),
        sa.Column("has_dc_offset", sa.Boolean(), nullable=True),
        sa.Column("is_antiphase", sa.Boolean(), nullable=True),
        sa.Column("is_one_sided", sa.Boolean(), nullable=True),
        sa.Column("has_abrupt_start", sa.Boolean(), nullable=True),
        sa.Column("has_abrupt_end", sa.Boolean(), nullable=True),
        sa.Column("vocals_probability", sa.Double(), nullable=True),
        sa.Column("has_vocals", sa.Boolean(), nullable=True),
        sa.Column("vocal_share", sa.Double(), nullable=True),
        sa.Column("genre", sa.Text(), nullable=True),
        sa.Column("mood", sa.Text(), nullable=True),
        sa.Column("is_loop", sa.Boolean(), nullable=True),
        sa.Column("loop_bars", sa.SmallInteger(), nullable=True),
        sa.Column("seam_score", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["audio_sha256"], ["audio.sha256"], name=op.f("fk_features_audio_sha256"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("audio_sha256", name=op.f("pk_features")),
    )
    op.create_index("ix_features_genre", "features", ["genre"], unique=False)
    op.create_index("ix_features_key", "features", ["key"], unique=False)
    op.create_index("ix_features_tempo_bpm", "features", ["tempo_bpm"], unique=False)
    op.create_table(
        "fingerprints",
        sa.Column("audio_sha256", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("shape", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("dtype", sa.Text(), nullable=False),
        sa.Column("compared_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="null: not yet held against the others"),
        sa.ForeignKeyConstraint(
            ["audio_sha256"], ["audio.sha256"], name=op.f("fk_fingerprints_audio_sha256"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("audio_sha256", name=op.f("pk_fingerprints")),
    )
    op.create_table(
        "generations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("generation_id", sa.Text(), nullable=False),
        sa.Column(
            "identity_sha256", sa.LargeBinary(length=32), nullable=False, comment="SHA-256 of the canonical capture fields"
        ),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("user_prompt", sa.Text(), nullable=False),
        sa.Column("ai_enhanced_prompt", sa.Text(), nullable=True),
        sa.Column(
            "generation_params", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("audio_url", sa.Text(), nullable=False),
        sa.Column("audio_storage_key", sa.Text(), nullable=True),
        sa.Column("duration_s", sa.Double(), nullable=True, comment="claimed; the measured one is audio.duration_s"),
        sa.Column("format", sa.Text(), nullable=True, comment="claimed; the measured one is audio.format"),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model_used", sa.Text(), nullable=True),
        sa.Column("generation_cost", sa.Double(), nullable=True),
        sa.Column("generation_duration_s", sa.Double(), nullable=True),
        sa.Column(
            "analysis_metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment="analysisMetadata as claimed"
        ),
        sa.Column(
            "spectral_features", postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment="spectralFeatures as claimed"
        ),
        sa.Column("audio_embedding", postgresql.ARRAY(sa.REAL()), nullable=True, comment="audioEmbedding as claimed"),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="unknown fields, never lost",
        ),
        sa.Column(
            "flags",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="oddities that refuse nothing",
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="api, or the source that it was pulled from"),
        sa.Column(
            "audio_root",
            sa.Text(),
            nullable=True,
            comment="folder under which a relative audio_url is resolved, and nowhere else",
        ),
        sa.Column("captured_on", sa.Date(), nullable=False, comment="UTC day on which the ledger accepted it: the partition"),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, comment="as claimed, else the time of acceptance"),
        sa.Column("accepted_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("status", sa.Text(), server_default="captured", nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True, comment="why it stands where it stands, where it failed"),
        sa.Column("audio_sha256", sa.Text(), nullable=True),
        sa.Column("audio_status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("audio_reason", sa.Text(), nullable=True),
        sa.Column(
            "audio_detail",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="size, type of the first bytes, disagreement with the claims, a sentence",
        ),
        sa.Column("audio_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("audio_first_attempt_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("audio_last_attempt_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("audio_next_attempt_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("liked", sa.Boolean(), nullable=True),
        sa.Column("rating", sa.SmallInteger(), nullable=True),
        sa.Column("feedback", sa.Text(), nullable=True),
        sa.Column("used", sa.Boolean(), nullable=True),
        sa.Column("feedback_revision", sa.Integer(), server_default="0", nullable=False),
        sa.Column("feedback_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("quality_score", sa.Double(), nullable=True, comment="total of seed_v1, null before an analysis"),
        sa.Column("scored_revision", sa.Integer(), nullable=True, comment="feedback revision that the scores were made from"),
        sa.Column("scored_features", sa.Text(), nullable=True, comment="features.versions that the scores were made from"),
        sa.Column("used_for_training", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("dataset_version", sa.Text(), nullable=True, comment="NAME/VERSION that used it last"),
        sa.Column("training_epoch", sa.Integer(), nullable=True),
        sa.Column("has_consent", sa.Boolean(), nullable=True, comment="null: nothing said"),
        sa.Column("erased_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(audio_status = 'stored') = (audio_sha256 IS NOT NULL)", name=op.f("ck_generations_stored_has_audio")
        ),
        sa.CheckConstraint(
            "audio_reason IN ('not-found', 'forbidden', 'rate-limited', 'server-error', 'timeout', 'too-large', 'too-slow', 'blocked-address', 'blocked-scheme', 'blocked-path', 'not-audio', 'truncated', 'undecodable', 'empty', 'too-short', 'too-long', 'non-finite-samples', 'crashed-worker')",
            name=op.f("ck_generations_audio_reason"),
        ),
        sa.CheckConstraint(
            "audio_status <> 'quarantined' OR audio_reason IS NOT NULL", name=op.f("ck_generations_quarantined_has_reason")
        ),
        sa.CheckConstraint(
            "audio_status IN ('pending', 'retrying', 'stored', 'quarantined')", name=op.f("ck_generations_audio_status")
        ),
        sa.CheckConstraint("duration_s > '-Infinity' AND duration_s < 'Infinity'", name=op.f("ck_generations_duration_s_finite")),
        sa.CheckConstraint(
            "generation_cost > '-Infinity' AND generation_cost < 'Infinity'", name=op.f("ck_generations_generation_cost_finite")
        ),
        sa.CheckConstraint(
            "generation_duration_s > '-Infinity' AND generation_duration_s < 'Infinity'",
            name=op.f("ck_generations_generation_duration_s_finite"),
        ),
        sa.CheckConstraint(
            "status IN ('captured', 'audio-ready', 'analyzed', 'embedded', 'scored', 'quarantined')",
            name=op.f("ck_generations_status"),
        ),
        sa.CheckConstraint("duration_s > 0", name=op.f("ck_generations_duration_s")),
        sa.CheckConstraint("generation_cost >= 0", name=op.f("ck_generations_generation_cost")),
        sa.CheckConstraint("quality_score BETWEEN 0 AND 1", name=op.f("ck_generations_quality_score")),
        sa.CheckConstraint("rating BETWEEN 1 AND 5", name=op.f("ck_generations_rating")),
        sa.ForeignKeyConstraint(["audio_sha256"], ["audio.sha256"], name=op.f("fk_generations_audio_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
        sa.UniqueConstraint("generation_id", name=op.f("uq_generations_generation_id")),
    )
    op.create_index("ix_generations_audio_sha256", "generations", ["audio_sha256"], unique=False)
    op.create_index("ix_generations_created_at_id", "generations", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_generations_lagging",
        "generations",
        ["id"],
        unique=False,
        postgresql_where=sa.text("scored_revision IS DISTINCT FROM feedback_revision"),
    )
    op.create_index(
        "ix_generations_pending",
        "generations",
        ["captured_on"],
        unique=False,
        postgresql_where=sa.text("status NOT IN ('scored', 'quarantined') OR audio_status = 'retrying'"),
    )
    op.create_index("ix_generations_provider", "generations", ["provider"], unique=False)
    op.create_index(
        "ix_generations_quarantined",
        "generations",
        ["audio_last_attempt_at"],
        unique=False,
        postgresql_where=sa.text("audio_status = 'quarantined'"),
    )
    op.create_index("ix_generations_used_for_training", "generations", ["used_for_training"], unique=False)
    op.create_index("ix_generations_user_id", "generations", ["user_id"], unique=False)
    op.create_index("ix_generations_captured_on", "generations", ["captured_on"], unique=False)
    op.create_table(
        "scaled_embeddings",
        sa.Column("audio_sha256", sa.Text(), nullable=False),
        sa.Column("scaler", sa.Integer(), nullable=False),
        sa.Column("vector", pgvector.sqlalchemy.halfvec.HALFVEC(), nullable=False),
        sa.ForeignKeyConstraint(
            ["audio_sha256"], ["audio.sha256"], name=op.f("fk_scaled_embeddings_audio_sha256"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["scaler"], ["embedding_scalers.id"], name=op.f("fk_scaled_embeddings_scaler"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("audio_sha256", "scaler", name=op.f("pk_scaled_embeddings")),
    )
    op.create_index("ix_scaled_embeddings_scaler", "scaled_embeddings", ["scaler"], unique=False)
    op.create_table(
        "adherence",
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("features_versions", sa.Text(), nullable=False),
        sa.Column("total", sa.Double(), nullable=True, comment="null: no term could be judged"),
        sa.Column(
            "terms", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="term -> verdict, asked, heard, reason"
        ),
        sa.Column("judged_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("total BETWEEN 0 AND 1", name=op.f("ck_adherence_total")),
        sa.ForeignKeyConstraint(["generation"], ["generations.id"], name=op.f("fk_adherence_generation"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("generation", name=op.f("pk_adherence")),
    )
    op.create_table(
        "feedback_history",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column(
            "changes", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="the fields as given; null clears one"
        ),
        sa.Column("actor", sa.Text(), nullable=False, comment="key id or source"),
        sa.Column("given_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation"], ["generations.id"], name=op.f("fk_feedback_history_generation"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback_history")),
        sa.UniqueConstraint("generation", "revision", name=op.f("uq_feedback_history_generation_revision")),
    )
    op.create_table(
        "quality_scores",
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("formula", sa.Text(), nullable=False),
        sa.Column("total", sa.Double(), nullable=False),
        sa.Column(
            "terms", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="every term of the formula, weighted"
        ),
        sa.Column("feedback_revision", sa.Integer(), nullable=False),
        sa.Column("features_versions", sa.Text(), nullable=False),
        sa.Column("scored_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("total BETWEEN 0 AND 1", name=op.f("ck_quality_scores_total")),
        sa.ForeignKeyConstraint(
            ["generation"], ["generations.id"], name=op.f("fk_quality_scores_generation"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("generation", "formula", name=op.f("pk_quality_scores")),
    )
    op.create_index("ix_quality_scores_formula_total", "quality_scores", ["formula", "total"], unique=False)
    op.create_table(
        "selections",
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("is_kept", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("split", sa.Text(), nullable=True),
        sa.Column("group_id", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("is_kept = (reason IS NULL)", name=op.f("ck_selections_left_out_has_reason")),
        sa.ForeignKeyConstraint(["generation"], ["generations.id"], name=op.f("fk_selections_generation"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("policy", "generation", name=op.f("pk_selections")),
    )
    op.create_index("ix_selections_generation", "selections", ["generation"], unique=False)
    op.create_index("ix_selections_policy_reason", "selections", ["policy", "reason"], unique=False)


def downgrade() -> None:
    """Down."""
    op.drop_index("ix_selections_policy_reason", table_name="selections")
    op.drop_index("ix_selections_generation", table_name="selections")
    op.drop_table("selections")
    op.drop_index("ix_quality_scores_formula_total", table_name="quality_scores")
    op.drop_table("quality_scores")
    op.drop_table("feedback_history")
    op.drop_table("adherence")
    op.drop_index("ix_scaled_embeddings_scaler", table_name="scaled_embeddings")
    op.drop_table("scaled_embeddings")
    op.drop_index("ix_generations_user_id", table_name="generations")
    op.drop_index("ix_generations_captured_on", table_name="generations")
    op.drop_index("ix_generations_used_for_training", table_name="generations")
    op.drop_index(
        "ix_generations_quarantined", table_name="generations", postgresql_where=sa.text("audio_status = 'quarantined'")
    )
    op.drop_index("ix_generations_provider", table_name="generations")
    op.drop_index(
        "ix_generations_pending",
        table_name="generations",
        postgresql_where=sa.text("status NOT IN ('scored', 'quarantined') OR audio_status = 'retrying'"),
    )
    op.drop_index(
        "ix_generations_lagging",
        table_name="generations",
        postgresql_where=sa.text("scored_revision IS DISTINCT FROM feedback_revision"),
    )
    op.drop_index("ix_generations_created_at_id", table_name="generations")
    op.drop_index("ix_generations_audio_sha256", table_name="generations")
    op.drop_table("generations")
    op.drop_table("fingerprints")
    op.drop_index("ix_features_tempo_bpm", table_name="features")
    op.drop_index("ix_features_key", table_name="features")
    op.drop_index("ix_features_genre", table_name="features")
    op.drop_table("features")
    op.drop_index("ix_embeddings_model_version", table_name="embeddings")
    op.drop_table("embeddings")
    op.drop_table("duplicate_pairs")
    op.drop_index("ix_dataset_rows_generation_id", table_name="dataset_rows")
    op.drop_table("dataset_rows")
    op.drop_index("ix_analyses_part_version", table_name="analyses")
    op.drop_table("analyses")
    op.drop_table("source_cursors")
    op.drop_table("refusals")
    op.drop_table("expected_generations")
    op.drop_table("embedding_scalers")
    op.drop_table("dataset_versions")
    op.drop_table("audio")
    op.drop_table("api_keys")
