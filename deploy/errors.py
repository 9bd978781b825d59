"""What can go wrong with a server, and the exit code each ends in.

DeployError          1
├── RefusedError          2   nothing was started and nothing was changed
└── NotReadyError         1   TorchServe was started, did not become right, and was stopped again
"""

from __future__ import annotations


class DeployError(Exception):
    """A message for the operator: what was wrong, the value, what was expected, the next step."""

    exit_code = 1


class RefusedError(DeployError):
    """The start was refused before Java ran; the machine is as it was."""

    exit_code = 2


class NotReadyError(DeployError):
    """TorchServe ran and did not come to answer its golden predictions."""
