"""What similarity search filters by, beside the scaled vectors. The next renewal of the space fills it in."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Up."""
    op.add_column("scaled_embeddings", sa.Column("genre", sa.Text()))
    op.add_column("scaled_embeddings", sa.Column("key", sa.Text()))
    op.add_column("scaled_embeddings", sa.Column("tempo_bpm", sa.Double()))
    for name in ("user_ids", "providers"):
        op.add_column("scaled_embeddings", sa.Column(name, postgresql.ARRAY(sa.Text()), comment="of the takes with this audio"))
        op.create_index(f"ix_scaled_embeddings_{name}", "scaled_embeddings", [name], postgresql_using="gin")
    for name in ("genre", "key", "tempo_bpm"):
        op.create_index(f"ix_scaled_embeddings_scaler_{name}", "scaled_embeddings", ["scaler", name])
    op.drop_index("ix_scaled_embeddings_scaler", table_name="scaled_embeddings")


def downgrade() -> None:
    """Down."""
    op.create_index("ix_scaled_embeddings_scaler", "scaled_embeddings", ["scaler"])
    for name in ("genre", "key", "tempo_bpm"):
        op.drop_index(f"ix_scaled_embeddings_scaler_{name}", table_name="scaled_embeddings")
        op.drop_column("scaled_embeddings", name)
    for name in ("user_ids", "providers"):
        op.drop_index(f"ix_scaled_embeddings_{name}", table_name="scaled_embeddings")
        op.drop_column("scaled_embeddings", name)
