"""An empty text in an unknown field is no value: rows that were saved with one get the identity that a repeat has now.

Without it every repeat of such a record, as a feed sends them at each reading, would be a conflict.
"""

import json
from datetime import UTC

import sqlalchemy as sa
from alembic import op

from keeptake.records import Generation, identity

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ROWS = """
    SELECT id, identity_sha256, generation_id, user_id, user_prompt, ai_enhanced_prompt, generation_params, audio_url,
           audio_storage_key, duration_s, format, provider, model_used, generation_cost, generation_duration_s, created_at,
           analysis_metadata, spectral_features, extra
    FROM generations WHERE EXISTS (SELECT FROM jsonb_each(extra) e WHERE e.value = '""'::jsonb)
"""


def upgrade() -> None:
    """Up."""
    connection = op.get_bind()
    for row in connection.execute(sa.text(_ROWS)).mappings().all():
        before = dict(row) | {"audio_embedding": None}
        key, stored = before.pop("id"), bytes(before.pop("identity_sha256"))
        present = {name: value for name, value in before["extra"].items() if value != ""}
        change = sa.text("UPDATE generations SET identity_sha256 = :identity, extra = cast(:extra AS jsonb) WHERE id = :id")
        # Whether the time was given or is that of the acceptance, the row does not tell; its identity does.
        for created_at in (before["created_at"].astimezone(UTC), None):
            if identity(Generation(**before | {"created_at": created_at})) == stored:
                now = identity(Generation(**before | {"created_at": created_at, "extra": present}))
                connection.execute(change, {"identity": now, "extra": json.dumps(present), "id": key})


def downgrade() -> None:
    """Nothing to undo: which fields were empty is not known any more."""
