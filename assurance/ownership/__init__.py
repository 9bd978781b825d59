"""Whose answers a suspect model learnt: keyed marks, read by the key's owner alone."""
