"""Webhooks out: the account's events, told to the URLs that its admins gave us.

Invariant: every event that a webhook asks for becomes exactly one delivery row, in the transaction that moves the
webhook's place in the sequence; a row stays pending until the receiver said 2xx, or its last try failed. So a message
arrives at least once, always with the same id. A connection is only ever made to an address that was checked, that very
one, and never to where a receiver would like to send us (destination.py).

    event + NOTIFY -> feed.py -> webhook_delivery, job -> deliver.py -> client.py -> receiver
"""
