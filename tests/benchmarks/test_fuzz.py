"""Damaged manifests and buffer files: only clear errors come out, and what is accepted is as documented."""

import pytest

pytest.importorskip("hypothesis")

from benchmarks.reliability.fuzz import fuzz_buffer_file, fuzz_manifest, fuzz_statistics


@pytest.mark.parametrize(
    ("fuzz", "cases"),
    [
        (fuzz_manifest, 40),
        (fuzz_buffer_file, 80),
        (fuzz_statistics, 60),
        pytest.param(fuzz_manifest, 5000, marks=pytest.mark.slow),
        pytest.param(fuzz_buffer_file, 5000, marks=pytest.mark.slow),
        pytest.param(fuzz_statistics, 5000, marks=pytest.mark.slow),
    ],
)
def test_only_clear_errors_come_out(fuzz, cases):
    counts = fuzz(cases)
    assert counts.tried >= 0.9 * cases
    assert counts.refused + counts.accepted == counts.tried
    assert min(counts.refused, counts.accepted) > 0.02 * cases  # both sides are reached
