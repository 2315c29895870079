"""The newest migration, known without loading alembic and SQLAlchemy, which a daemon has no other use for."""

from typing import Final

HEAD: Final = "0012"
