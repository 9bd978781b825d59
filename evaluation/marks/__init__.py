"""Keyed marks: whether a suspect learnt one, whose it was, and which mark thieves keep."""
