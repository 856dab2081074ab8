"""A workspace with sources, files to report on, and reports read back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from loramerge import api
from loramerge.report.make import report

# The neighbours of these tests are imported by name.
sys.path.insert(0, str(Path(__file__).parent))

from reports import read


@pytest.fixture
def session(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return api.Session(folder)


@pytest.fixture
def sources(session, make_adapter):
    """Two adapters, of rank 4 and 2."""
    folders = [make_adapter("math-lora"), make_adapter("code-lora", rank=2)]
    api.pull(session, [str(folder) for folder in folders])
    return folders


@pytest.fixture
def write(session):
    """write("eval.json", value) -> that file in the workspace."""

    def write(name, value):
        path = session.folder / name
        path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
        return path

    return write


@pytest.fixture
def reported(session):
    """reported("eval.json", slides=True) -> the page of that report, read."""

    def reported(*inputs, **options):
        return read(report(session, [str(one) for one in inputs], force=True, **options).path)

    return reported
