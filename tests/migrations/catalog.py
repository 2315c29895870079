"""What PostgreSQL itself says of a schema: columns, defaults, constraints and indexes, by name."""

import asyncpg
from filled import run

_COLUMNS = """
SELECT c.relname || '.' || a.attname AS name,
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, k.collname) AS definition
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
LEFT JOIN pg_collation k ON k.oid = a.attcollation AND k.collname <> 'default'
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'
"""
# NOT NULL is in the columns; before version 18 it is no constraint with a name.
_CONSTRAINTS = """
SELECT c.relname || '.' || k.conname AS name, pg_get_constraintdef(k.oid) AS definition
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND k.contype <> 'n' AND c.relname <> 'alembic_version'
"""
_INDEXES = """
SELECT indexname AS name, indexdef || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END AS definition
FROM pg_indexes JOIN pg_index i ON i.indexrelid = format('%I.%I', schemaname, indexname)::regclass
WHERE schemaname = 'public' AND tablename <> 'alembic_version'
"""
_OTHERS = """
SELECT relname AS name, relkind::text AS definition
FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE n.nspname = 'public' AND relkind NOT IN ('i', 'r') AND relname <> 'alembic_version'
UNION ALL
SELECT tgname, pg_get_triggerdef(g.oid)
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT tgisinternal AND n.nspname = 'public'
"""


def catalog(url: str) -> dict[str, str]:
    """Return the definition of everything in the schema, by kind and name."""

    async def work(connection: asyncpg.Connection) -> dict[str, str]:
        found = {}
        kinds = {"column": _COLUMNS, "constraint": _CONSTRAINTS, "index": _INDEXES, "other": _OTHERS}
        for kind, statement in kinds.items():
            for name, definition in await connection.fetch(statement):
                found[f"{kind} {name}"] = definition
        return found

    return run(url, work)


def regardless_of_validation(found: dict[str, str]) -> dict[str, str]:
    """Return the same without whether the old rows were checked: a step down does not forget that they were."""
    return {name: definition.removesuffix(" NOT VALID") for name, definition in found.items()}
