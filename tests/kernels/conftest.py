"""Triton's interpreter is chosen when a kernel is decorated, so its tests have a process of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# `draws` lies beside this file.
sys.path.insert(0, str(Path(__file__).parent))

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
