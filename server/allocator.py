"""Makes the C allocator keep large blocks instead of returning them to the kernel each time.

A 600 KB tensor is copied several times on its way through gRPC. By default glibc maps each copy
afresh, and the kernel clears and faults in its pages: most of the cost of a large request.
"""

import ctypes
import logging

logger = logging.getLogger(__name__)

# mallopt parameters, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_MMAP_THRESHOLD = 32 * 2**20  # the largest glibc accepts on 64-bit machines
_TRIM_THRESHOLD = 256 * 2**20
_TOP_PAD = 16 * 2**20
_ARENAS = 2  # each thread that had one of its own would keep what it once needed


def keep_large_blocks() -> bool:
    """Sets glibc's limits for this process; False where the allocator is another one.

    Call it before threads are started: an arena once made is kept.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        logger.debug("no mallopt here: large tensors may pay for page faults")
        return False
    wanted = (
        (_M_MMAP_THRESHOLD, _MMAP_THRESHOLD),
        (_M_TRIM_THRESHOLD, _TRIM_THRESHOLD),
        (_M_TOP_PAD, _TOP_PAD),
        (_M_ARENA_MAX, _ARENAS),
    )
    accepted = [mallopt(parameter, value) for parameter, value in wanted]
    return all(accepted)


def return_free_memory() -> None:
    """Gives what was freed back to the kernel, in about 50 us per MB that goes back.

    glibc keeps it otherwise: closing a session of a 108 MB model left 400 MB with the process.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        logger.debug("no malloc_trim here: freed memory stays with the process")
