"""Only indexes that a query uses: three served none, and that of failed audio missed half of what it was made for."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Up."""
    op.drop_index("ix_analyses_part_version", table_name="analyses")
    for name in ("used_for_training", "lagging", "quarantined"):
        op.drop_index(f"ix_generations_{name}", table_name="generations")
    op.create_index(
        "ix_generations_failed",
        "generations",
        ["audio_last_attempt_at"],
        postgresql_where=sa.text("audio_status IN ('quarantined', 'retrying') OR status = 'quarantined'"),
    )


def downgrade() -> None:
    """Down."""
    op.drop_index("ix_generations_failed", table_name="generations")
    op.create_index(
        "ix_generations_quarantined",
        "generations",
        ["audio_last_attempt_at"],
        postgresql_where=sa.text("audio_status = 'quarantined'"),
    )
    op.create_index(
        "ix_generations_lagging",
        "generations",
        ["id"],
        postgresql_where=sa.text("scored_revision IS DISTINCT FROM feedback_revision"),
    )
    op.create_index("ix_generations_used_for_training", "generations", ["used_for_training"])
    op.create_index("ix_analyses_part_version", "analyses", ["part", "version"])
