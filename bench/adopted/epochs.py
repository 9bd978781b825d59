"""What a training wrote of itself to TensorBoard: the seconds of each epoch (training/session.py)."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bench.adopted.programs import ProgramError


def epoch_seconds(board: Path) -> tuple[float, ...]:
    """Of each epoch of a network, in order. Raises ProgramError where nothing was written."""
    events = EventAccumulator(str(board)).Reload()
    if "seconds" not in events.Tags()["scalars"]:
        raise ProgramError(f"{board}: expected the seconds of epochs, found {events.Tags()['scalars']}")
    return tuple(round(event.value, 2) for event in events.Scalars("seconds"))
