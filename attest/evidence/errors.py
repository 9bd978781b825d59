"""What is raised where evidence cannot be made or does not hold."""

from __future__ import annotations


class EvidenceError(ValueError):
    """Evidence, or a file that belongs to it, that is damaged, changed or of something else."""
