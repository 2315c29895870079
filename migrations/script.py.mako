"""${message}."""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Up."""


def downgrade() -> None:
    """Down: what the older schema cannot hold is kept in the schema `kept`."""
