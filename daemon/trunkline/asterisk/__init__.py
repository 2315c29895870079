"""The PBX's protocols, and nothing about calls: AMI codec, guard, lists, session, link; ids; causes.

Invariant: codec.py, guard.py and lists.py are pure (bytes in, frames and events out); only link.py touches a socket.
An `Event` that leaves this room has passed the guard: it was written by Asterisk, not by a caller.
"""
