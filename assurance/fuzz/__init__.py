"""Hostile requests by the thousand against a running server, and what must be true of every one of them."""
