"""What strategies are called, in run folders and in tables; without torch, for what only reads results."""

import re

STRATEGY_NAME = re.compile("[a-z][a-z0-9_]{0,63}")
"""What a strategy may be called: it names folders."""


def strategy_name(class_path: str) -> str:
    """Name a strategy after its generator or baseline: ``exml_lightning.baselines.MinEntropy`` is ``min_entropy``."""
    name = class_path.rpartition(".")[2]
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
