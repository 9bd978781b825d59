"""Every study of what archives answer, by name. To add one: a module with its `STUDY`, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.studies import (
    averaging,
    budget,
    campaigns,
    coherence,
    detection,
    false_positives,
    gate_scores,
    gradients,
    hashes,
    input_noise,
    marks,
    quantised,
    reconstructions,
    shifts,
    training,
    utility,
)
from evaluation.studies.study import Study, registry

STUDIES: Mapping[str, Study] = registry(
    utility.STUDY,
    training.STUDY,
    hashes.STUDY,
    coherence.STUDY,
    input_noise.STUDY,
    averaging.STUDY,
    gradients.STUDY,
    detection.STUDY,
    false_positives.STUDY,
    budget.STUDY,
    gate_scores.STUDY,
    campaigns.STUDY,
    reconstructions.STUDY,
    shifts.STUDY,
    marks.STUDY,
    quantised.STUDY,
)
