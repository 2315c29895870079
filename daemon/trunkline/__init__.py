"""trunkline: what an Asterisk PBX does becomes Call rows that are right.

A call flows one way: Asterisk -> asterisk/ -> calls/ -> store/ -> (crm, inbox, recordings) -> api/.
ARCHITECTURE.md names every room; docs/calls.md says what a Call is.
"""

__version__ = "0.1.0"
