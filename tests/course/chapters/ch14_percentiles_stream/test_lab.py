"""What chapter 14 says in words about Larkspur's day and its sketches holds for them."""

import numpy as np
import pytest

from miniserve.course.chapters.ch14_percentiles_stream import lab
from miniserve.observe.sketch import Sketch, sketch_of


@pytest.fixture(scope="module")
def day():
    return lab.larkspur_day()


def test_the_average_hides_the_tail_in_the_windows_of_that_lunch(day):
    halves = lab.windows(day, 30)
    lunch = [values for hour, values in halves.items() if 13 <= hour < 13.6]
    assert len(halves) == 48
    for values in lunch:
        assert np.mean(values) < lab.exact(values, 99) / 3
        assert lab.exact(values, 50) < lab.SLOW_S / 2


def test_the_mean_keeps_the_promise_and_lies_above_the_median(day):
    assert lab.exact(day.ttft_s, 50) < np.mean(day.ttft_s) < lab.SLOW_S / 2


def test_percentiles_of_parts_do_not_average(day):
    right = lab.exact(day.ttft_s, 99)
    replicas = np.mean([lab.exact(day.of_replica(name), 99) for name in day.replicas])
    halves = [lab.exact(values, 99) for values in lab.windows(day, 30).values()]
    assert abs(replicas / right - 1) > 0.2
    assert abs(np.mean(halves) / right - 1) > 0.2
    assert max(halves) > 1.2 * right


def test_the_sum_of_half_hours_is_the_sketch_of_the_day(day):
    summed = Sketch()
    for values in lab.windows(day, 30).values():
        summed.merge(sketch_of(values))
    assert summed == sketch_of(day.ttft_s.tolist())
