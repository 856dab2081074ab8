"""Pure functions of updates, one file per method."""
