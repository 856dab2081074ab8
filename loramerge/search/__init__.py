"""Search for a good merge: spaces, samplers, the objective, the journal and the loop."""
