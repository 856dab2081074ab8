"""A base model, an adapter on it, its layers as matrices, and text as tokens."""
