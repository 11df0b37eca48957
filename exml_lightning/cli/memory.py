"""How this process gets its memory from the system."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of `mallopt`, in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Have glibc keep memory that is freed, for the next tensor, instead of giving it back to the system.

    It gives large pieces back at once, and the system hands new ones out page by page, emptied: on a CPU that can take
    as long as the arithmetic on them (docs/performance.md). Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    # Older ones know no larger pieces than 32 MB.
    if hasattr(library, "mallopt") and any(library.mallopt(MMAP_THRESHOLD, 1 << bits) for bits in (28, 25)):
        library.mallopt(TRIM_THRESHOLD, (1 << 31) - 1)
