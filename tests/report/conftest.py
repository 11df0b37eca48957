"""Here figures are looked at."""

import pytest


@pytest.fixture(autouse=True)
def figures(drawn_figures: None) -> None:
    """Draws all figures of this room."""
