"""docs/reliability.md is what the script makes of its results."""

import json

from benchmarks.reliability.document import render


def test_the_page_is_made_of_the_results(repository):
    results = json.loads((repository / "docs" / "reliability.json").read_text())
    assert (repository / "docs" / "reliability.md").read_text() == render(results)
