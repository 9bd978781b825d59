"""Files from before the one schema, lifted into it: soak, fuzz, fusing and self-test had shapes of their own, and rows
have learnt to say more since.

    soak       the fields of its one row stood next to "run"
    fuzz       "direct" and "gateway", each with its own run, and no run of the file
    fusing     "rows" in place of "fusing"
    selftest   "findings" in place of "selftest"
    training   neither "leak" nor "signatures": what members give away
    agreement  no "adaptive": plain attacks alone went over HTTP

Any other file is left as it is. What is wrong in a lifted file is found where every file is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# what rows of a section did not say, and what held of them
UNSAID: Mapping[str, Mapping[str, Any]] = {
    "training": {"leak": None, "signatures": []},
    "agreement": {"adaptive": None},
}
RENAMED = {"rows": "fusing", "findings": "selftest"}
DOORS = ("direct", "gateway")


def lifted(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a results file in the one schema's sections."""
    if "windows" in content:
        row = {name: value for name, value in content.items() if name != "run"}
        return {**({"run": content["run"]} if "run" in content else {}), "soak": [row]}
    if content and all(name in DOORS and isinstance(section, Mapping) for name, section in content.items()):
        return _fuzz(content)
    found = {RENAMED.get(name, name): value for name, value in content.items()}
    for name, unsaid in UNSAID.items():
        if isinstance(found.get(name), list):
            found[name] = [{**unsaid, **row} if isinstance(row, Mapping) else row for row in found[name]]
    return found


def _fuzz(content: Mapping[str, Any]) -> dict[str, Any]:
    """The later run's facts stand for the file, with the first start and all seconds; each row keeps its own."""
    rows = [{"door": door, "contract": None, **section} for door, section in content.items()]
    runs = [row["run"] for row in rows if isinstance(row.get("run"), Mapping)]
    lifted: dict[str, Any] = {"fuzz": rows}
    try:
        runs.sort(key=lambda run: str(run["started"]))
        seconds = round(sum(run["seconds"] for run in runs), 1)
        lifted["run"] = {**runs[-1], "started": runs[0]["started"], "seconds": seconds}
    except (KeyError, TypeError, IndexError):
        # no whole run: the check of the rows says what is missing
        lifted["run"] = runs[0] if runs else {}
    return lifted
