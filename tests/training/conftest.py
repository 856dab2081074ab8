"""A workspace with a text to measure over."""

from __future__ import annotations

import pytest
from bases import LINES

from loramerge.api.session import Session


@pytest.fixture
def session(tmp_path):
    """A workspace with a text."""
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n")
    return Session(tmp_path)
