import torch

from exml_lightning.memory import keep_freed_memory
from exml_lightning.report.accuracy import peak_memory_mb


def test_keeping_memory_changes_no_arithmetic():
    keep_freed_memory()
    assert torch.ones(1 << 20).sum() == 1 << 20


def test_peak_memory_goes_up_and_stays_there():
    before = peak_memory_mb(torch.device("cpu"))
    ballast = torch.ones(1 << 28)  # 1 GiB
    during = peak_memory_mb(torch.device("cpu"))
    assert during >= ballast.nbytes / 2**20
    del ballast
    assert peak_memory_mb(torch.device("cpu")) >= during - 5 >= before - 5  # the system counts to a few pages
