"""How often Python looks for garbage: seldom. A daemon makes a million small objects a minute and leaves no cycle.

And what is free, given back to the kernel where that pays: after imports.
"""

import ctypes
import gc

_YOUNG = 20_000  # allocations between two looks at the youngest; Python's own 700 costs a sixth of the event path


def settle() -> None:
    """Call once everything is imported and set up: that is no garbage, and is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 50)
    give_back()


def give_back() -> None:
    """Give the kernel what is free in the C library's heap (malloc_trim(3)): after imports, 3 MB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none, and keeps less
    if trim is not None:
        trim(0)
