"""Classifiers as their owners have them, adopted, served, and held against their owners' own pipelines."""
