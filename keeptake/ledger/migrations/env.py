"""Alembic's environment: always the connection that `keeptake.ledger.migrate` hands in, one transaction for all steps."""

from alembic import context

from keeptake.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
