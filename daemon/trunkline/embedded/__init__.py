"""Servers and phones of our own, for `make run`, the tests and the bench: PostgreSQL, Asterisk, SIP, played recordings.

Invariant: all of it listens on 127.0.0.0/8 only, needs no root, and ends with the process that started it, however that
ends. `trunkline run` imports nothing from here.
"""
