"""The self-test: sends a running service what each of its controls must stop, and fails where one lets it through.

    python -m assurance.selftest RECIPE --instance default --policies edm same-pow --output results/selftest.json

`service` asks and keeps the responses, `checks` holds what a finding is, and each other module the checks of one
kind of control, named as docs/threat-model.md names it. What a policy promises stands in the recipe: an archive that
lacks a control which its recipe asks for fails, and a control that neither has is said not to apply.
"""
