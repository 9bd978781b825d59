"""What there is, what a recipe comes to, and what is wrong with it.

    python -m recipes list                 every recipe of this checkout, and what it says of itself
    python -m recipes check NAME ...       every fault of recipes and of their tiers; exit code 1 where there is one
    python -m recipes show NAME            what NAME (or NAME@TIER) resolves to: variants carried out, defaults added
    python -m recipes rules NAME           make's rules (recipes/rules.py)
    python -m recipes schema               write recipes/schema.json again (recipes/schema.py)

A recipe is the name of a file here, or a path that ends in .toml.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import tomli_w

import recipes
from recipes import schema
from recipes.check import check
from recipes.rules import rules


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options.names)
    except recipes.RecipeError as error:
        print(error, file=sys.stderr)
        return 1


def _list(names: Sequence[str]) -> int:
    for name in recipes.known():
        first = (recipes.HERE / f"{name}.toml").read_text("utf-8").partition("\n")[0]
        print(f"{name:20} {first.lstrip('# ')}")
    return 0


def _check(names: Sequence[str]) -> int:
    faults = [fault for name in names or recipes.known() for fault in check(name)]
    print(
        "\n".join(faults) or f"{', '.join(names) or 'every recipe'}: no fault",
        file=sys.stderr if faults else sys.stdout,
    )
    return 1 if faults else 0


def _show(names: Sequence[str]) -> int:
    for name in names:
        print(tomli_w.dumps(dict(recipes.read(name).tables)))
    return 0


def _rules(names: Sequence[str]) -> int:
    for name in names:
        sys.stdout.write(rules(recipes.read(name)))
    return 0


def _schema(names: Sequence[str]) -> int:
    schema.FILE.write_text(schema.generate(), "utf-8")
    print(schema.FILE)
    return 0


COMMANDS = {"list": _list, "check": _check, "show": _show, "rules": _rules, "schema": _schema}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a recipe; check: all where none is given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
