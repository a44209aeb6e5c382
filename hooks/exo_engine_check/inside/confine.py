"""What the plugin's process gives up before the plugin's code runs (Linux; elsewhere nothing).

It ends with its parent, and can look into no process but its own: the environments of those that
started it may hold secrets, and the user's rights let one process read another's.
"""

import ctypes
import os
import signal
import sys

_DEATH_SIGNAL, _NO_NEW_PRIVILEGES, _DROP_CAPABILITY = 1, 38, 24  # prctl(2)
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # landlock(7), the same number on every architecture
_MAKE_BLOCK_DEVICE = 1 << 11  # a right that nobody misses: a domain is made for what it implies
_CAPABILITIES = (21, 38)  # CAP_SYS_ADMIN and CAP_PERFMON, with which root looks in all the same
_VERSION_3 = 0x20080522  # of capset(2)


def confine(parent: int) -> None:
    """Do so. A kernel without Landlock refuses, and then nothing is given up."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it had ended before
        os._exit(1)
    rights = ctypes.c_uint64(_MAKE_BLOCK_DEVICE)
    rules = libc.syscall(_CREATE_RULESET, ctypes.byref(rights), ctypes.sizeof(rights), 0)
    if rules < 0:
        return
    _drop_capabilities(libc)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.syscall(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header, sets = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for capability in _CAPABILITIES:
        libc.prctl(_DROP_CAPABILITY, capability, 0, 0, 0)
        for which in range(3):  # effective, permitted, inheritable
            sets[capability // 32 * 3 + which] &= ~(1 << capability % 32) & 0xFFFFFFFF
    libc.capset(header, sets)
