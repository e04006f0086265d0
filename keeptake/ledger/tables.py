"""The ledger's tables, as SQLAlchemy Core sees them.

Conventions: times are UTC timestamptz ending in `_at`; quantities carry their unit; closed lists are TEXT with a CHECK (a native
enum survives a downgrade); a floating-point column holds finite values only; what belongs to audio is keyed by the SHA-256 of its
bytes, in lower-case hex. Belongs here: the shape. Does not: queries (a file a topic beside this one), changes of shape
(`migrations/`).
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL

from keeptake.audio.record import RECORDS
from keeptake.errors import AudioReason, AudioStatus, GenerationStatus

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Timestamp = sa.TIMESTAMP(timezone=True)
Float: sa.Double[float] = sa.Double()
now = sa.text("now()")


def _one_of(column: str, values: Iterable[str]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


def _finite(*columns: str) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(f"{column} > '-Infinity' AND {column} < 'Infinity'", name=f"{column}_finite") for column in columns
    ]


generations = sa.Table(
    "generations",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment="number of the take in this ledger"),
    sa.Column("generation_id", sa.Text, nullable=False, unique=True, comment="the workstation's own id"),
    sa.Column("identity_sha256", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the canonical capture fields"),
    # as claimed at capture
    sa.Column("user_id", sa.Text, nullable=False, comment="who asked for it"),
    sa.Column("user_prompt", sa.Text, nullable=False, comment="what the user wrote"),
    sa.Column("ai_enhanced_prompt", sa.Text, comment="what a model made of it"),
    sa.Column(
        "generation_params",
        JSONB,
        nullable=False,
        server_default=sa.text("'{}'::jsonb"),
        comment="genre, bpm, key, mood ... as asked",
    ),
    sa.Column("audio_url", sa.Text, nullable=False, comment="where the audio was"),
    sa.Column("audio_storage_key", sa.Text, comment="claimed; ours is audio.storage_key"),
    sa.Column("duration_s", Float, comment="claimed; the measured one is audio.duration_s"),
    sa.Column("format", sa.Text, comment="claimed; the measured one is audio.format"),
    sa.Column("provider", sa.Text, nullable=False, comment="suno, udio, musicgen ..."),
    sa.Column("model_used", sa.Text, comment="the provider's model"),
    sa.Column("generation_cost", Float, comment="as claimed"),
    sa.Column("generation_duration_s", Float),
    sa.Column("analysis_metadata", JSONB, comment="analysisMetadata as claimed"),
    sa.Column("spectral_features", JSONB, comment="spectralFeatures as claimed"),
    sa.Column("audio_embedding", ARRAY(REAL), comment="audioEmbedding as claimed"),
    sa.Column("extra", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb"), comment="unknown fields, never lost"),
    sa.Column("flags", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'"), comment="oddities that refuse nothing"),
    # arrival
    sa.Column("source", sa.Text, nullable=False, comment="api, or the source that it was pulled from"),
    sa.Column("audio_root", sa.Text, comment="folder under which a relative audio_url is resolved, and nowhere else"),
    sa.Column("captured_on", sa.Date, nullable=False, comment="UTC day on which the ledger accepted it: the partition"),
    sa.Column("created_at", Timestamp, nullable=False, comment="as claimed, else the time of acceptance"),
    sa.Column("accepted_at", Timestamp, nullable=False, server_default=now),
    sa.Column("updated_at", Timestamp, nullable=False, server_default=now),
    # progress
    sa.Column("status", sa.Text, nullable=False, server_default=GenerationStatus.CAPTURED.value, comment="how far it has come"),
    sa.Column("status_reason", sa.Text, comment="why it stands where it stands, where it failed"),
    sa.Column("audio_sha256", sa.Text, sa.ForeignKey("audio.sha256")),
    sa.Column(
        "audio_status", sa.Text, nullable=False, server_default=AudioStatus.PENDING.value, comment="how far its audio has come"
    ),
    sa.Column("audio_reason", sa.Text, comment="why its audio failed, or is tried again"),
    sa.Column("audio_detail", JSONB, comment="size, type of the first bytes, disagreement with the claims, a sentence"),
    sa.Column("audio_attempts", sa.Integer, nullable=False, server_default="0", comment="fetches so far"),
    sa.Column("audio_first_attempt_at", Timestamp),
    sa.Column("audio_last_attempt_at", Timestamp),
    sa.Column("audio_next_attempt_at", Timestamp),
    # feedback, as it stands now
    sa.Column("liked", sa.Boolean, comment="feedback; null: nothing said"),
    sa.Column("rating", sa.SmallInteger, comment="feedback, 1 to 5"),
    sa.Column("feedback", sa.Text, comment="feedback in words"),
    sa.Column("used", sa.Boolean, comment="feedback: used in a song"),
    sa.Column("feedback_revision", sa.Integer, nullable=False, server_default="0", comment="changes of the feedback so far"),
    sa.Column("feedback_at", Timestamp),
    # judgement and use
    sa.Column("quality_score", Float, comment="total of seed_v1, null before an analysis"),
    sa.Column("scored_revision", sa.Integer, comment="feedback revision that the scores were made from"),
    sa.Column("scored_features", sa.Text, comment="features.versions that the scores were made from"),
    sa.Column(
        "used_for_training", sa.Boolean, nullable=False, server_default=sa.false(), comment="stands in a published version"
    ),
    sa.Column("dataset_version", sa.Text, comment="NAME/VERSION that used it last"),
    sa.Column("training_epoch", sa.Integer, comment="a field of the workstation; nothing here writes it"),
    sa.Column("has_consent", sa.Boolean, comment="null: nothing said"),
    sa.Column("erased_at", Timestamp),
    _one_of("status", GenerationStatus),
    _one_of("audio_status", AudioStatus),
    _one_of("audio_reason", AudioReason),
    sa.CheckConstraint("rating BETWEEN 1 AND 5", name="rating"),
    sa.CheckConstraint("duration_s > 0", name="duration_s"),
    sa.CheckConstraint("generation_cost >= 0", name="generation_cost"),
    sa.CheckConstraint("quality_score BETWEEN 0 AND 1", name="quality_score"),
    sa.CheckConstraint("(audio_status = 'stored') = (audio_sha256 IS NOT NULL)", name="stored_has_audio"),
    sa.CheckConstraint("audio_status <> 'quarantined' OR audio_reason IS NOT NULL", name="quarantined_has_reason"),
    *_finite("duration_s", "generation_cost", "generation_duration_s"),
    sa.Index("ix_generations_captured_on", "captured_on"),
    sa.Index("ix_generations_user_id", "user_id"),
    sa.Index("ix_generations_provider", "provider"),
    sa.Index("ix_generations_created_at_id", "created_at", "id"),
    sa.Index("ix_generations_audio_sha256", "audio_sha256"),
    # The mark that work is pending is the row's own state: small partial indexes, no counter row that saves would fight over.
    sa.Index(
        "ix_generations_pending",
        "captured_on",
        postgresql_where=sa.text("status NOT IN ('scored', 'quarantined') OR audio_status = 'retrying'"),
    ),
    # As `ledger/audio.py` and the standing checks ask for what failed.
    sa.Index(
        "ix_generations_failed",
        "audio_last_attempt_at",
        postgresql_where=sa.text("audio_status IN ('quarantined', 'retrying') OR status = 'quarantined'"),
    ),
)

feedback_history = sa.Table(
    "feedback_history",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment="order of arrival"),
    sa.Column("generation", sa.BigInteger, sa.ForeignKey("generations.id", ondelete="CASCADE"), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, comment="from 1, a take"),
    sa.Column("changes", JSONB, nullable=False, comment="the fields as given; null clears one"),
    sa.Column("actor", sa.Text, nullable=False, comment="key id or source"),
    sa.Column("given_at", Timestamp, nullable=False, server_default=now),
    sa.UniqueConstraint("generation", "revision"),
)

refusals = sa.Table(
    "refusals",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment="order of arrival"),
    sa.Column("source", sa.Text, nullable=False, comment="where the record came from"),
    sa.Column("line", sa.Integer, comment="from 1, where the source has lines"),
    sa.Column("line_sha256", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the line"),
    sa.Column("generation_id", sa.Text, comment="as far as it could be read"),
    sa.Column("reason", sa.Text, nullable=False, comment="the rule that it broke"),
    sa.Column("detail", sa.Text, nullable=False, comment="a sentence"),
    sa.Column("raw", sa.LargeBinary, nullable=False, comment="at most 64 KiB of the line, as it came"),
    sa.Column("refused_at", Timestamp, nullable=False, server_default=now),
    sa.UniqueConstraint("source", "line_sha256"),
    sa.CheckConstraint(
        "reason IN ('not-json', 'not-an-object', 'conflict') OR reason ~ '^(missing|invalid|too-long)-[A-Za-z.]+$'", name="reason"
    ),
    sa.CheckConstraint("octet_length(raw) <= 65536", name="raw"),
)

source_cursors = sa.Table(
    "source_cursors",
    metadata,
    sa.Column("source", sa.Text, primary_key=True, comment="name of the source"),
    sa.Column("cursor", JSONB, nullable=False, comment="how far it was read"),
    sa.Column("moved_at", Timestamp, nullable=False, server_default=now),
)

audio = sa.Table(
    "audio",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True, comment="SHA-256 of the file's bytes"),
    sa.Column("storage_key", sa.Text, nullable=False, comment="path inside the audio store"),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("format", sa.Text, nullable=False, comment="container, as decoded"),
    sa.Column("codec", sa.Text, nullable=False, comment="as decoded"),
    sa.Column("duration_s", Float, nullable=False),
    sa.Column("sample_rate_hz", sa.Integer, nullable=False),
    sa.Column("channels", sa.SmallInteger, nullable=False, comment="as decoded"),
    sa.Column(
        "flags", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'"), comment="legal oddities, as heard at decoding"
    ),
    sa.Column(
        "measures",
        JSONB,
        nullable=False,
        server_default=sa.text("'{}'::jsonb"),
        comment="levels, clipping and stereo, measured while proving",
    ),
    sa.Column("stored_at", Timestamp, nullable=False, server_default=now),
    sa.Column("analysis_reason", sa.Text, comment="why it cannot be heard, where hearing failed for good"),
    sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
    sa.CheckConstraint("duration_s > 0", name="duration_s"),
)

analyses = sa.Table(
    "analyses",
    metadata,
    sa.Column("audio_sha256", sa.Text, sa.ForeignKey("audio.sha256", ondelete="CASCADE"), nullable=False),
    sa.Column("part", sa.Text, nullable=False, comment="rhythm, tonal, spectrum, loudness, defects, vocals, style or structure"),
    sa.Column("version", sa.Text, nullable=False, comment="of the part's code"),
    sa.Column("status", sa.Text, nullable=False, comment="ok or null"),
    sa.Column("reason", sa.Text, comment="why the part is null"),
    sa.Column("result", JSONB, nullable=False, comment="values of the part, below"),
    sa.Column("cpu_s", Float, nullable=False),
    sa.Column("analyzed_at", Timestamp, nullable=False, server_default=now),
    sa.PrimaryKeyConstraint("audio_sha256", "part"),
    _one_of("status", ("ok", "null")),
    sa.CheckConstraint("status = 'ok' OR reason IS NOT NULL", name="null_has_reason"),
)


_HEARD = {name: field.description for record in RECORDS.values() for name, field in record.model_fields.items()}


def _heard(name: str, kind: sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]] = Float) -> sa.Column[Any]:
    return sa.Column(name, kind, comment=_HEARD[name])


features = sa.Table(
    "features",
    metadata,
    # The current analysis of an audio file, flat and typed: what scores, exports and filters read. Written with `analyses`.
    sa.Column("audio_sha256", sa.Text, sa.ForeignKey("audio.sha256", ondelete="CASCADE"), primary_key=True),
    sa.Column("versions", sa.Text, nullable=False, comment="part=version of every part, sorted"),
    _heard("duration_s"),
    _heard("tempo_bpm"),
    _heard("tempo_confidence"),
    _heard("rhythm_confidence"),
    _heard("tempo_stability"),
    _heard("beats_per_bar", sa.SmallInteger),
    _heard("onset_rate_hz"),
    _heard("has_tempo_change", sa.Boolean),
    _heard("key", sa.Text),
    _heard("key_confidence"),
    _heard("tuning_cents"),
    _heard("spectral_centroid_hz"),
    _heard("spectral_rolloff_hz"),
    _heard("spectral_bandwidth_hz"),
    _heard("spectral_flatness"),
    _heard("zero_crossing_rate"),
    _heard("bandwidth_limit_hz"),
    _heard("loudness_lufs"),
    _heard("loudness_range_lu"),
    _heard("true_peak_dbtp"),
    _heard("crest_factor_db"),
    _heard("dynamic_range"),
    _heard("no_clipping"),
    _heard("clipping_share"),
    _heard("silence_share"),
    _heard("dc_offset"),
    _heard("stereo_correlation"),
    _heard("has_clipping", sa.Boolean),
    _heard("is_silent", sa.Boolean),
    _heard("has_dc_offset", sa.Boolean),
    _heard("is_antiphase", sa.Boolean),
    _heard("is_one_sided", sa.Boolean),
    _heard("has_abrupt_start", sa.Boolean),
    _heard("has_abrupt_end", sa.Boolean),
    _heard("vocals_probability"),
    _heard("has_vocals", sa.Boolean),
    _heard("vocal_share"),
    _heard("genre", sa.Text),
    _heard("mood", sa.Text),
    _heard("is_loop", sa.Boolean),
    _heard("loop_bars", sa.SmallInteger),
    _heard("seam_score"),
    sa.Index("ix_features_key", "key"),
    sa.Index("ix_features_tempo_bpm", "tempo_bpm"),
    sa.Index("ix_features_genre", "genre"),
)

embeddings = sa.Table(
    "embeddings",
    metadata,
    sa.Column("audio_sha256", sa.Text, sa.ForeignKey("audio.sha256", ondelete="CASCADE"), nullable=False),
    sa.Column("model", sa.Text, nullable=False, comment="name of the embedding"),
    sa.Column("version", sa.Text, nullable=False, comment="of the embedding"),
    sa.Column("vector", ARRAY(REAL), nullable=False, comment="raw, as the model gave it"),
    sa.Column("embedded_at", Timestamp, nullable=False, server_default=now),
    sa.PrimaryKeyConstraint("audio_sha256", "model", "version"),
    sa.Index("ix_embeddings_model_version", "model", "version"),
)

embedding_scalers = sa.Table(
    "embedding_scalers",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True, comment="number of the scaler in this ledger"),
    sa.Column("model", sa.Text, nullable=False, comment="name of the embedding"),
    sa.Column("model_version", sa.Text, nullable=False, comment="of the embedding"),
    sa.Column("version", sa.Integer, nullable=False, comment="from 1, a model version"),
    sa.Column("fitted_on", sa.Integer, nullable=False, comment="number of vectors"),
    sa.Column("dims", sa.Integer, nullable=False, comment="of the scaled vectors"),
    sa.Column("mean", ARRAY(REAL), nullable=False, comment="by raw dimension"),
    sa.Column("deviation", ARRAY(REAL), nullable=False, comment="by raw dimension"),
    sa.Column("projection", sa.LargeBinary, comment="float32 matrix (raw dims, dims), C order; null: none"),
    sa.Column("is_current", sa.Boolean, nullable=False, server_default=sa.false(), comment="what search uses: one a model"),
    sa.Column("fitted_at", Timestamp, nullable=False, server_default=now),
    sa.UniqueConstraint("model", "model_version", "version"),
)

scaled_embeddings = sa.Table(
    "scaled_embeddings",
    metadata,
    # One HNSW index a scaler, partial and cast to its dimension, is made with the scaler (`ledger/embeddings.py`).
    sa.Column("audio_sha256", sa.Text, sa.ForeignKey("audio.sha256", ondelete="CASCADE"), nullable=False),
    sa.Column("scaler", sa.Integer, sa.ForeignKey("embedding_scalers.id", ondelete="CASCADE"), nullable=False),
    sa.Column("vector", HALFVEC(), nullable=False, comment="scaled and whitened, in half precision"),
    # What search filters by, beside the vector, as it stood when the space was last renewed: joining costs more than comparing.
    sa.Column("genre", sa.Text, comment="features.genre"),
    sa.Column("key", sa.Text, comment="features.key"),
    _heard("tempo_bpm"),
    sa.Column("user_ids", ARRAY(sa.Text), comment="of the takes with this audio"),
    sa.Column("providers", ARRAY(sa.Text), comment="of the takes with this audio"),
    sa.PrimaryKeyConstraint("audio_sha256", "scaler"),
    sa.Index("ix_scaled_embeddings_scaler_genre", "scaler", "genre"),
    sa.Index("ix_scaled_embeddings_scaler_key", "scaler", "key"),
    sa.Index("ix_scaled_embeddings_scaler_tempo_bpm", "scaler", "tempo_bpm"),
    sa.Index("ix_scaled_embeddings_user_ids", "user_ids", postgresql_using="gin"),
    sa.Index("ix_scaled_embeddings_providers", "providers", postgresql_using="gin"),
)

fingerprints = sa.Table(
    "fingerprints",
    metadata,
    sa.Column("audio_sha256", sa.Text, sa.ForeignKey("audio.sha256", ondelete="CASCADE"), primary_key=True),
    sa.Column("version", sa.Text, nullable=False, comment="of the fingerprint"),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False, comment="packed bits"),
    sa.Column("shape", ARRAY(sa.Integer), nullable=False, comment="of the unpacked array"),
    sa.Column("dtype", sa.Text, nullable=False, comment="of the array"),
    sa.Column("compared_by", sa.Text, comment="rules by which it was held against the others; null: not yet"),
)

duplicate_pairs = sa.Table(
    "duplicate_pairs",
    metadata,
    sa.Column("first_sha256", sa.Text, sa.ForeignKey("audio.sha256", ondelete="CASCADE"), nullable=False),
    sa.Column("second_sha256", sa.Text, sa.ForeignKey("audio.sha256", ondelete="CASCADE"), nullable=False),
    sa.Column("version", sa.Text, nullable=False, comment="of the fingerprint and of the rules that both were compared by"),
    sa.Column(
        "evidence",
        JSONB,
        nullable=False,
        comment="relation (duplicate, excerpt, alike), offset_s, speed, rotation, bit_error, matched_s, share, unbroken, cosine",
    ),
    sa.Column("found_at", Timestamp, nullable=False, server_default=now),
    sa.PrimaryKeyConstraint("first_sha256", "second_sha256", "version"),
    sa.CheckConstraint("first_sha256 < second_sha256", name="ordered"),
)

quality_scores = sa.Table(
    "quality_scores",
    metadata,
    sa.Column("generation", sa.BigInteger, sa.ForeignKey("generations.id", ondelete="CASCADE"), nullable=False),
    sa.Column("formula", sa.Text, nullable=False, comment="name and version of the score"),
    sa.Column("total", Float, nullable=False, comment="the score, 0 to 1"),
    sa.Column("terms", JSONB, nullable=False, comment="every term of the formula, weighted"),
    sa.Column("feedback_revision", sa.Integer, nullable=False, comment="feedback that it was made from"),
    sa.Column("features_versions", sa.Text, nullable=False, comment="features.versions that it was made from"),
    sa.Column("scored_at", Timestamp, nullable=False, server_default=now),
    sa.PrimaryKeyConstraint("generation", "formula"),
    sa.CheckConstraint("total BETWEEN 0 AND 1", name="total"),
    sa.Index("ix_quality_scores_formula_total", "formula", "total"),
)

adherence = sa.Table(
    "adherence",
    metadata,
    sa.Column("generation", sa.BigInteger, sa.ForeignKey("generations.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("version", sa.Text, nullable=False, comment="of the judgement's rules"),
    sa.Column("features_versions", sa.Text, nullable=False, comment="features.versions that it was judged by"),
    sa.Column("total", Float, comment="null: no term could be judged"),
    sa.Column("terms", JSONB, nullable=False, comment="term -> verdict, asked, heard, reason"),
    sa.Column("judged_at", Timestamp, nullable=False, server_default=now),
    sa.CheckConstraint("total BETWEEN 0 AND 1", name="total"),
)

dataset_versions = sa.Table(
    "dataset_versions",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True, comment="number of the version in this ledger"),
    sa.Column("name", sa.Text, nullable=False, comment="of the dataset, which is the policy's"),
    sa.Column("version", sa.Text, nullable=False, comment="vN-HASH: ordinal, and hash of rows, policy and format versions"),
    sa.Column("ordinal", sa.Integer, nullable=False, comment="from 1, a dataset"),
    sa.Column("policy", JSONB, nullable=False, comment="the policy as it was applied"),
    sa.Column("lineage", JSONB, nullable=False, comment="versions of analyzer, scaler, formula, formats; counts and reasons"),
    sa.Column("path", sa.Text, nullable=False, comment="folder of the version"),
    sa.Column("manifest_sha256", sa.Text, comment="SHA-256 of its manifest"),
    sa.Column("row_count", sa.Integer, nullable=False, comment="clips"),
    sa.Column("published_at", Timestamp, comment="null: written aside, not visible"),
    sa.UniqueConstraint("name", "version"),
    sa.UniqueConstraint("name", "ordinal"),
)

dataset_rows = sa.Table(
    "dataset_rows",
    metadata,
    sa.Column("dataset", sa.Integer, sa.ForeignKey("dataset_versions.id", ondelete="CASCADE"), nullable=False),
    sa.Column("row_id", sa.Text, nullable=False, comment="file id, of a take or of a segment"),
    sa.Column("generation_id", sa.Text, nullable=False, comment="of the take"),
    sa.Column("audio_sha256", sa.Text, nullable=False, comment="of the take's file, which may be gone"),
    sa.Column("split", sa.Text, nullable=False, comment="train, valid or test"),
    sa.Column("group_id", sa.Text, nullable=False, comment="component of duplicates, siblings and segments"),
    sa.Column("row_sha256", sa.Text, nullable=False, comment="SHA-256 of the row as published"),
    sa.PrimaryKeyConstraint("dataset", "row_id"),
    _one_of("split", ("train", "valid", "test")),
    sa.Index("ix_dataset_rows_generation_id", "generation_id"),
)

selections = sa.Table(
    "selections",
    metadata,
    # What a policy last said of every take: kept, or the first rule that failed.
    sa.Column("policy", sa.Text, nullable=False, comment="name of the policy"),
    sa.Column("generation", sa.BigInteger, sa.ForeignKey("generations.id", ondelete="CASCADE"), nullable=False),
    sa.Column("is_kept", sa.Boolean, nullable=False, comment="in the policy's dataset"),
    sa.Column("reason", sa.Text, comment="first rule that failed; null: kept"),
    sa.Column("detail", sa.Text, comment="what the rule saw"),
    sa.Column("split", sa.Text, comment="train, valid or test"),
    sa.Column("group_id", sa.Text, comment="of takes that share a split"),
    sa.Column("decided_at", Timestamp, nullable=False, server_default=now),
    sa.PrimaryKeyConstraint("policy", "generation"),
    sa.CheckConstraint("is_kept = (reason IS NULL)", name="left_out_has_reason"),
    sa.Index("ix_selections_generation", "generation"),
    sa.Index("ix_selections_policy_reason", "policy", "reason"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="public half of the key"),
    sa.Column(
        "secret_sha256",
        sa.LargeBinary(32),
        nullable=False,
        comment="SHA-256 of the secret half, which is shown once and kept nowhere",
    ),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False, comment="what the key may do"),
    sa.Column("note", sa.Text, comment="whose it is"),
    sa.Column("created_at", Timestamp, nullable=False, server_default=now),
    sa.Column("expires_at", Timestamp),
    sa.Column("revoked_at", Timestamp),
    sa.Column("last_used_at", Timestamp),
)

expected_generations = sa.Table(
    "expected_generations",
    metadata,
    sa.Column("provider", sa.Text, nullable=False, comment="who announced it"),
    sa.Column("generation_id", sa.Text, nullable=False, comment="announced, and not captured yet"),
    sa.Column("announced_at", Timestamp, nullable=False, server_default=now),
    sa.Column("seen_missing", sa.Integer, nullable=False, server_default="0", comment="ticks of the sensor that missed it"),
    sa.Column("alerted_at", Timestamp),
    sa.PrimaryKeyConstraint("provider", "generation_id"),
)
