"""Plans from headers, runs one job per module over an ordered executor."""
