"""What runs a base model: texts in, statistics out."""
