"""A small Hub for loopback or a LAN, speaking the protocol that Hub clients speak."""
