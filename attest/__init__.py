"""Attest: attack any classifier endpoint under a budget, and hand over what was measured."""
