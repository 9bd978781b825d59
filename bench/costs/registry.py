"""Every study of what defenses cost, by name, run as the studies of evaluation are."""

from __future__ import annotations

from collections.abc import Mapping

from bench.costs import defenses, ensembles, gates, precision
from evaluation.studies.study import Study, registry

COSTS: Mapping[str, Study] = registry(defenses.STUDY, gates.STUDY, precision.STUDY, ensembles.STUDY)
