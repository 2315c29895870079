"""Recordings: from the PBX's spool directory to object storage, each tied to its call and leg.

The invariant: a local file goes only after its object was read back and its SHA-256 matched, and the row says so.
Every file in the spool ends as the recording of a call, or as unmatched with a reason that an admin can read.
"""
