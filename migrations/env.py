"""What alembic runs: the migrations, each in its own transaction, on the connection that store/migrate.py brings."""

from alembic import context

from trunkline.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
