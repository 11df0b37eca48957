import pytest

from exml_lightning.core.budget import Costs, Work, plan

# two experts: one millisecond of Python a step beside 9 of arithmetic
COSTS = Costs(step=0.009, asking=[1e-4, 3e-4], previous=2e-4, generating=[2e-4, 2e-4])
DRAWN = Work(batch_size=64, size=400, resizable=True, image_bytes=1024, unchanged=True)


def by_hand(n_iter, size):
    """Each image of a buffer is asked about once, by the previous ex-model too in the second experience."""
    drawn = (size + size // 2) * 2e-4
    asked = size * (1e-4 + 3e-4 + 2e-4)
    return drawn + asked + 2 * n_iter * 0.010


def test_steps_and_images_that_are_drawn_grow_together():
    for seconds, n_iter, size in ((120, 5000, 20_000), (20, 500, 2000), (50, 2000, 10_000)):
        found = plan(seconds, COSTS, DRAWN)
        assert (found.n_iter, found.size) == (n_iter, size)
        assert found.seconds == pytest.approx(by_hand(n_iter, size))
        assert found.seconds <= seconds


def test_images_that_are_large_are_fewer():
    large = Work(batch_size=64, size=400, resizable=True, image_bytes=3 * 224 * 224, unchanged=True)
    assert plan(3600, COSTS, large).size == 5000  # 2^30 bytes would be 7,133


def test_images_that_change_are_asked_about_at_each_step():
    work = Work(batch_size=10, size=300, resizable=False, image_bytes=1024, unchanged=False, scored=True)
    costs = Costs(step=0.009, asking=[1e-4, 3e-4], previous=2e-4, generating=[2e-4, 2e-4])
    found = plan(60, costs, work)
    steps = 2000 * (2 * 0.010 + 10 * (1e-4 + 3e-4 + 2e-4))
    assert found == (2000, 300, pytest.approx(450 * 2e-4 + 300 * 4e-4 + steps))


def test_of_changed_copies_each_is_asked_about_once():
    work = Work(batch_size=10, size=300, resizable=False, image_bytes=1024, unchanged=True, copies=4)
    costs = Costs(step=0.009, asking=[1e-4, 3e-4], previous=2e-4, generating=[2e-4, 2e-4])
    found = plan(60, costs, work)
    assert found == (2000, 300, pytest.approx(450 * 2e-4 + 1200 * 6e-4 + 2 * 2000 * 0.010))


def test_what_is_asked_about_for_the_scale_is_asked_about_once():
    """Not again in steps, which are too few here to see each image: where the previous ex-model is asked as well."""
    work = {"batch_size": 10, "size": 300, "resizable": False, "image_bytes": 1024, "unchanged": True, "scored": True}
    both, expert = (Work(**work, both=both).seconds(COSTS, n_iter=20, size=300) for both in (True, False))
    made_and_steps = 450 * 2e-4 + 2 * 20 * 0.010
    assert both == pytest.approx(made_and_steps + 300 * 6e-4)
    assert expert == pytest.approx(made_and_steps + 300 * 4e-4 + 20 * 10 * 6e-4)
    drawn = Work(**work, drawn=1000).seconds(COSTS, n_iter=30, size=300)
    assert drawn == pytest.approx(450 * 2e-4 + 2 * 30 * 0.010 + 1000 * 4e-4 + 300 * 6e-4)
    drawn = Work(**work, both=True, drawn=1000).seconds(COSTS, n_iter=20, size=300)
    assert drawn == pytest.approx(made_and_steps + 1000 * 6e-4 + 20 * 10 * 6e-4)


def test_images_that_are_dear_take_half_of_the_time_at_most():
    costs = Costs(step=0.009, asking=[1e-4], previous=0, generating=[0.05])
    work = Work(batch_size=64, size=5000, resizable=False, image_bytes=1024, unchanged=True)
    assert plan(120, costs, work).size == 1000  # 50 s; 60 s are 1,200
    assert plan(3600, costs, work).size == 5000


def test_what_does_not_fit_is_the_least_there_is():
    slow = Costs(step=3, asking=[0.5], previous=0.5, generating=[0.5])
    found = plan(120, slow, DRAWN)
    assert (found.n_iter, found.size) == (100, 500)
    assert found.seconds == pytest.approx(500 * 0.5 + 500 * 0.5 + 100 * 3.001)
