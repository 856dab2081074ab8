"""Predictions of classes, and the truth."""

from __future__ import annotations

import numpy as np


def classes(labels, items=120, candidates=4, seed=0):
    """Predictions that are right about half of the time."""
    random = np.random.default_rng(seed)
    truth = random.integers(labels, size=items)
    guess = random.integers(labels, size=(candidates, items))
    return np.where(random.random(guess.shape) < 0.5, truth, guess), truth
