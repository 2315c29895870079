"""How often Python looks for garbage: seldom. A daemon makes a million small objects a minute and leaves no cycle."""

import gc

_YOUNG = 20_000  # allocations between two looks at the youngest; Python's own 700 costs a sixth of the event path


def settle() -> None:
    """Call once everything is imported and set up: that is no garbage, and is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 50)
