"""Run a command and write what it used, as JSON, into the file named first.

A process of its own, and a small one: a process begins with the peak memory of the one that starts it.
"""

import json
import os
import sys
import time

begin = time.perf_counter()
_, status, used = os.wait4(os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ), 0)
found = {
    "code": os.waitstatus_to_exitcode(status),
    "wall": time.perf_counter() - begin,
    "cpu": used.ru_utime + used.ru_stime,
    "peak": used.ru_maxrss / 1024,
}
with open(sys.argv[1], "w") as file:  # noqa: PTH123 - pathlib would make the process larger
    json.dump(found, file)
