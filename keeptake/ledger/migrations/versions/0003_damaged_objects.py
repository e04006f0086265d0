"""One more reason why a take has no audio: the store lost it, or holds other bytes."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BEFORE = (
    *("not-found", "forbidden", "rate-limited", "server-error", "timeout", "too-large", "too-slow", "blocked-address"),
    *("blocked-scheme", "blocked-path", "not-audio", "truncated", "undecodable", "empty", "too-short", "too-long"),
    *("non-finite-samples", "crashed-worker"),
)


def upgrade() -> None:
    """Up."""
    _allow(*BEFORE, "damaged-object")


def downgrade() -> None:
    """Down."""
    op.execute("UPDATE generations SET audio_reason = 'crashed-worker' WHERE audio_reason = 'damaged-object'")
    _allow(*BEFORE)


def _allow(*reasons: str) -> None:
    op.drop_constraint(op.f("ck_generations_audio_reason"), "generations", type_="check")
    listed = ", ".join(f"'{reason}'" for reason in reasons)
    op.create_check_constraint(op.f("ck_generations_audio_reason"), "generations", f"audio_reason IN ({listed})")
