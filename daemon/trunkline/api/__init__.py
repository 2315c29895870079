"""The HTTP edge: aiohttp over PostgreSQL, and nothing else. It never holds a PBX connection.

`create_app` makes the application, `serve` runs it on the asyncio thread until it is cancelled. The same app runs in
`trunkline run` (where the core lends it its metrics and the state of its links) and alone.

Invariants: every query names the account; every error is a problem (RFC 9457) that says what to do; nothing of what
went wrong inside ever leaves; every route says which scope it takes; where neither a key is set nor a login required
only this machine is answered, and only by a name of this machine.
"""

from trunkline.api.app import create_app
from trunkline.api.server import listening, serve
from trunkline.api.state import Access, Commands, Link

__all__ = ["Access", "Commands", "Link", "create_app", "listening", "serve"]
