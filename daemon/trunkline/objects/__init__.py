"""Object storage by S3's protocol, and what can go wrong with it. It knows nothing of what is stored.

Invariant: whoever only has to know a StoreFault (objects.faults) loads no S3 client.
"""
