"""Fingerprints remember by which rules they were compared, so that new rules compare them again."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Up."""
    comment = "rules by which it was held against the others; null: not yet"
    op.add_column("fingerprints", sa.Column("compared_by", sa.Text(), nullable=True, comment=comment))
    op.drop_column("fingerprints", "compared_at")


def downgrade() -> None:
    """Down."""
    comment = "null: not yet held against the others"
    op.add_column("fingerprints", sa.Column("compared_at", sa.TIMESTAMP(timezone=True), nullable=True, comment=comment))
    op.execute("UPDATE fingerprints SET compared_at = now() WHERE compared_by IS NOT NULL")
    op.drop_column("fingerprints", "compared_by")
