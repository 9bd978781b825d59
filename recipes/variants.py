"""What a recipe says once and means several times: `like`, defaults, tags, tiers, and policies of networks.

    [networks.meco]                     # program: the network's own name, or `program = "meco"`
    filters = 16

    [networks.meco_gaussian]            # an ablation is this table and nothing else
    like = "meco"                       # every key of [networks.meco] that is not given here
    perturbation = "gaussian"
    about = "Gaussian noise of the same size, nothing learned"
    policy = { perturb = { noise = "fresh" }, tags = ["meco", "ablation"] }    # makes [policies.meco-gaussian]

    [defaults.evaluate]                 # every [evaluate.NAME] that does not say otherwise
    clone = { recipes = ["adamw"] }

    [evaluate.meco-knockoff]
    policies = ["undefended", "tag:meco"]      # every policy with the tag, in the recipe's order

    [tiers.paper.networks]
    "tag:meco" = { filters = 64 }       # of every network whose policy has the tag

`expand` gives the tables with all of that carried out, so that nobody else has to know of it. A table given for a key
is laid over the table that stands there, key by key; anything else takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recipes.fields import nearest, shown

# families whose tables may be like one another, and have defaults
FAMILIES = ("networks", "policies", "attacks", "evaluate", "detection")
# keys of a network's table that are not its program's
OWN = ("program", "about", "policy", "tags")
TAG = "tag:"
# keys of [studies.NAME] that list evaluations, not policies
OF_EVALUATIONS = ("evaluate", "over-http")
Tables = dict[str, Any]


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tables:
    """`below` with every value that `above` gives in its place; tables are merged key by key."""
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = laid_over(under, value) if both else value  # type: ignore[arg-type]
    return merged


def expand(tables: Mapping[str, Any], tier: Mapping[str, Any], faults: list[str]) -> Tables:
    """The tables with the tier laid over them and all variants carried out. What cannot be is added to `faults`, each
    of which opens with its table, and left out."""
    plain, tagged = _split(tier)
    merged = laid_over(tables, plain)
    defaults = merged.pop("defaults", {})
    for family in FAMILIES:
        if family in merged:
            merged[family] = _family(merged[family], family, faults)
    _add_policies(merged, faults)
    for family in FAMILIES:
        members = merged.get(family, {})
        merged[family] = {name: _likened(members, name, family, faults) for name in members}
    for family, tag, above in tagged:
        for name in _tagged(merged, family, tag, f"[tiers]: {family}", faults):
            merged[family][name] = laid_over(merged[family][name], above)
    for family, members in ((family, merged[family]) for family in FAMILIES):
        below = defaults.get(family, {})
        for name, fields in members.items():  # a network's defaults are its program's
            members[name] = laid_over(below.get(fields["program"], {}) if family == "networks" else below, fields)
    for where, asked, key in _lists(merged):
        asked[key] = _policies(merged, asked[key], where, faults)
    return {name: table for name, table in merged.items() if table or name not in FAMILIES}


def tags(fields: Mapping[str, Any]) -> Sequence[str]:
    """Of a policy's or a network's table."""
    found = fields.get("tags", ())
    return found if isinstance(found, list) else ()


def _split(tier: Mapping[str, Any]) -> tuple[Tables, list[tuple[str, str, Mapping[str, Any]]]]:
    """A tier's plain tables, and (family, tag, table) of those that are addressed by a tag."""
    plain: Tables = {}
    tagged = []
    for family, table in tier.items():
        if isinstance(table, Mapping):
            tagged += [(family, name[len(TAG) :], above) for name, above in table.items() if name.startswith(TAG)]
            plain[family] = {name: fields for name, fields in table.items() if not name.startswith(TAG)}
        else:
            plain[family] = table
    return plain, tagged


def _family(members: Any, family: str, faults: list[str]) -> Tables:
    """The tables of a family, without what is none."""
    if not isinstance(members, Mapping):
        faults.append(f"[{family}]: expected tables [{family}.NAME], got {shown(members)}")
        return {}
    for name, fields in members.items():
        if not isinstance(fields, Mapping):
            faults.append(f"[{family}]: expected a table [{family}.{name}], got {name} = {shown(fields)}")
    return {name: fields for name, fields in members.items() if isinstance(fields, Mapping)}


def _add_policies(tables: Tables, faults: list[str]) -> None:
    """[policies.NAME] of every network that states its policy, called as the network is, with dashes."""
    for network, fields in tables.get("networks", {}).items():
        if "policy" not in fields:
            continue
        name, policy = network.replace("_", "-"), fields["policy"]
        if not isinstance(policy, Mapping):
            faults.append(f"[networks.{network}]: policy: expected a table, got {shown(policy)}")
        elif name in tables.get("policies", {}):
            faults.append(f"[networks.{network}]: policy: expected no other, got [policies.{name}] as well")
        else:
            about = {"about": fields["about"]} if "about" in fields else {}
            tables.setdefault("policies", {})[name] = {"predictor": network, **about, **policy}


def _likened(
    members: Mapping[str, Any], name: str, family: str, faults: list[str], above: tuple[str, ...] = ()
) -> Tables:
    """A table laid over the one that it is like. What a table is said to be about, its policy and its tags are its own;
    a network's program is inherited."""
    where = f"[{family}.{above[0] if above else name}]: like"
    fields = dict(members[name])
    other = fields.pop("like", None)
    if family == "networks" and other is None:
        fields.setdefault("program", name)
    if other is None:
        return fields
    if other not in members:
        faults.append(f"{where}: no [{family}.{other}]; {nearest(other, [each for each in members if each != name])}")
        return {"program": name, **fields} if family == "networks" else fields
    if other in (*above, name):
        faults.append(f"{where}: expected no circle, got {' -> '.join((*above, name, other))}")
        return {"program": name, **fields} if family == "networks" else fields
    below = _likened(members, other, family, faults, (*above, name))
    return laid_over({key: value for key, value in below.items() if key not in ("about", "policy", "tags")}, fields)


def _tagged(tables: Tables, family: str, tag: str, where: str, faults: list[str]) -> list[str]:
    """The tables of a family that have a tag: policies; networks that have it, or whose policies do."""
    policies, networks = tables.get("policies", {}), tables.get("networks", {})
    found = [name for name, fields in policies.items() if tag in tags(fields)]
    if family == "networks":
        predictors = [policies[name].get("predictor") for name in found]
        found = [name for name, fields in networks.items() if name in predictors or tag in tags(fields)]
    elif family != "policies":
        faults.append(f"{where}: expected a tag of networks or policies, got {TAG}{tag} of {family}")
        return []
    if not found:
        known = sorted({each for fields in (*policies.values(), *networks.values()) for each in tags(fields)})
        faults.append(f"{where}: nothing has the tag {tag!r}; {nearest(tag, known)}")
    return found


def _lists(tables: Tables) -> Iterator[tuple[str, Tables, str]]:
    """Every list of policies: where it stands, and the table and key that hold it."""
    for family in ("evaluate", "detection"):
        for name, fields in tables.get(family, {}).items():
            if isinstance(fields.get("policies"), list):
                yield f"[{family}.{name}]: policies", fields, "policies"
    for name, fields in tables.get("studies", {}).items():
        for study, asked in fields.items() if isinstance(fields, Mapping) else ():
            if isinstance(asked, list) and study not in OF_EVALUATIONS:
                yield f"[studies.{name}]: {study}", fields, study
            elif isinstance(asked, dict) and isinstance(asked.get("policies"), list):
                yield f"[studies.{name}]: {study}: policies", asked, "policies"


def _policies(tables: Tables, asked: Sequence[Any], where: str, faults: list[str]) -> list[str]:
    """The policies that a list names, each once; "tag:NAME" stands for all that have the tag."""
    policies = tables.get("policies", {})
    found: list[str] = []
    for name in asked:
        if isinstance(name, str) and name.startswith(TAG):
            found += _tagged(tables, "policies", name[len(TAG) :], where, faults)
        elif name in policies:
            found.append(name)
        else:
            faults.append(f"{where}: no policy {shown(name)}; {nearest(name, policies)}")
    return list(dict.fromkeys(found))
