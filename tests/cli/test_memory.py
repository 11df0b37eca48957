import ctypes
import mmap
import resource
from pathlib import Path

import pytest
import torch

from exml_lightning.callbacks.summary import peak_memory_mb
from exml_lightning.cli.memory import keep_freed_memory


class Library:
    """A C library that takes pieces up to a size."""

    def __init__(self, largest: int) -> None:
        self.largest, self.asked = largest, []

    def mallopt(self, option: int, value: int) -> int:
        self.asked.append((option, value))
        return int(value <= self.largest)


@pytest.mark.parametrize(
    ("largest", "asked"),
    [
        (1 << 31, [(-3, 1 << 28), (-1, 2147483647)]),
        (1 << 25, [(-3, 1 << 28), (-3, 1 << 25), (-1, 2147483647)]),
        (0, [(-3, 1 << 28), (-3, 1 << 25)]),  # alone, the other one would do harm
    ],
)
def test_the_largest_pieces_that_can_be_kept_are_kept(monkeypatch, largest, asked):
    library = Library(largest)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_freed_memory()
    assert library.asked == asked


def test_another_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()


def test_peak_memory_goes_up_and_stays_there():
    before = peak_memory_mb(torch.device("cpu"))
    pages = Path("/proc/self/statm")  # of these, as many as are in memory now: the rest of the peak is free again
    now = int(pages.read_text().split()[1]) * resource.getpagesize() if pages.is_file() else 0
    size = int(before * 2**20) - now + (64 << 20)
    with mmap.mmap(-1, size) as ballast:  # malloc could hand out memory that other tests have freed and it has kept
        ballast.write(bytes(size))
        during = peak_memory_mb(torch.device("cpu"))
    assert during >= max(before + 32, size / 2**20)
    assert peak_memory_mb(torch.device("cpu")) >= during - 5 >= before - 5  # the system counts to a few pages
