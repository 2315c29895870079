"""Conversations: all that is exchanged with one customer on one channel until it is closed. So far those of TELEPHONY.

Invariant: an account has at most one open conversation for each contact and channel, whoever of several writers opens
it; a closed one is never opened again, and what a human has set in one stays.
"""
