"""What Prometheus sees: one `Metrics` per process, with a registry of its own and no global state.

Two ways in. *Pulled*: whoever counts for itself (decoder, guard, tracker, link, spool) is plugged in by
`Metrics.pull(family, pbx, read)` and read when Prometheus asks, so that the hot path pays nothing. *Pushed*: what has
to be seen as it happens (write times, HTTP requests, calls ended) is told by an `observe_…`/`count_…` method.

Invariant: a label's values are a closed set. Numbers, ids and whatever else a stranger can choose never become one.
"""

from trunkline.metrics.families import PULLED, Pulled
from trunkline.metrics.registry import Metrics

__all__ = ["PULLED", "Metrics", "Pulled"]
