"""The inbox: conversations, all that is exchanged with one customer on one channel until it is closed, and their files.

Invariants: an account has at most one open conversation for each contact and channel, whoever of several writers opens
it; a closed one is opened again by people only, and what a human has set in one stays. An object in the storage has a
media file, or stands in the list of those that are to go.
"""
