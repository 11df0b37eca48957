"""Licences of experts, and what an ex-model learned from them notes of these."""

from collections.abc import Iterable

from exml_lightning.experts.manifest import ExpertEntry

KEY = "expert_licenses"
"""Of the ``training`` of an ex-model."""


def licences(entry: ExpertEntry) -> list[str | None]:
    """Return what an expert's licence is, or of an ex-model that states none, those of its experts.

    Args:
        entry: The expert.

    Returns:
        One or more licences; None stands for one that is not stated.
    """
    noted = entry.training.get(KEY)
    if entry.license is None and isinstance(noted, list) and noted:
        return [licence if isinstance(licence, str) else None for licence in noted]
    return [entry.license]


def licences_of(experts: Iterable[ExpertEntry]) -> dict[str, list[str | None]]:
    """Note the licences of an ex-model's experts, for its ``training``; its own is for whoever hands it on to state.

    Args:
        experts: Those that it learned.

    Returns:
        Each licence once, None for not stated; nothing where no expert states one.
    """
    found = list(dict.fromkeys(licence for entry in experts for licence in licences(entry)))
    return {KEY: found} if any(found) else {}
