import pytest

from exml_lightning.callbacks.measured import LONGEST, shortened


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["0", "3"], "0 3"),
        (["a" * 9, "b" * 10], "aaaaaaaaa bbbbbbbbbb"),  # 20 characters
        (["a" * 9, "b" * 11], "aaaaaaaaa ..."),
        ([str(k) for k in range(20)], "0 1 2 3 4 5 6 7 ..."),
        (["antidisestablishmentarianism", "0"], "antidisestablish ..."),
    ],
)
def test_many_classes_are_named_by_the_first_ones(names, said):
    assert shortened(names) == said
    assert len(said) <= LONGEST
