"""The model Hub: the only package that touches the network."""
