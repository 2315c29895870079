"""What the events mean. Pure: events in, Call records out; no I/O, no clock, no logging.

Invariant: the state depends only on what was fed in, in that order; time is the event's own Timestamp.
`Tracker` (tracker.py) owns every live call of one PBX; `CallRecord` (record.py) is what leaves the room,
and is to the letter what the API and `trunkline replay` write.  docs/calls.md is the specification.
"""
