"""PostgreSQL: the schema and its migrations, the one writer of calls, the spool beside it, and what the API reads.

Invariants: tables.py is the schema at the head of the migrations; a change of a Call, its rows and its events, is
stored exactly once and as a whole, however often it comes; what PostgreSQL cannot take now waits in the spool.
"""
