"""A reader waits where text is missing, and nowhere else."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.observe.reading import READ_S, perceived_wait_s, read_pieces

gaps = st.lists(st.integers(0, 40), min_size=1, max_size=40)  # whole numbers: sums are exact
reading = st.integers(1, 20)


@given(gaps, reading)
def test_the_reader_is_done_after_reading_and_waiting(gaps: list[int], read_s: int) -> None:
    arrivals = list(accumulate(gaps))
    assert read_pieces(arrivals, read_s)[-1].ends_s == len(arrivals) * read_s + perceived_wait_s(arrivals, read_s)


@given(gaps, reading)
def test_no_piece_is_read_before_it_is_there_or_before_the_last_one_is_read(gaps: list[int], read_s: int) -> None:
    arrivals = list(accumulate(gaps))
    read = read_pieces(arrivals, read_s)
    assert all(piece.begins_s >= arrived for piece, arrived in zip(read, arrivals, strict=True))
    assert all(later.begins_s - earlier.ends_s == later.waited_s >= 0 for earlier, later in pairwise(read))


@given(gaps, reading, st.data())
def test_a_piece_that_comes_later_is_never_a_gain(gaps: list[int], read_s: int, data: st.DataObject) -> None:
    delayed = gaps.copy()
    delayed[data.draw(st.integers(0, len(gaps) - 1))] += data.draw(st.integers(1, 40))
    assert perceived_wait_s(accumulate(delayed), read_s) >= perceived_wait_s(accumulate(gaps), read_s)


@pytest.mark.parametrize(
    ("ttft_s", "gap_s", "waited_s"), [(2, 1, 2), (2, 3, 2), (2, 5, 2 + 9 * 2), (0, 3, 0), (0, 4, 9)]
)
def test_a_steady_stream_has_a_closed_form(ttft_s: int, gap_s: int, waited_s: int) -> None:
    """The first token, and what each further one is later than the reader's three seconds."""
    assert perceived_wait_s([ttft_s + i * gap_s for i in range(10)], 3) == waited_s


def test_an_answer_in_one_piece_is_waited_for_to_its_end() -> None:
    assert perceived_wait_s([30.0] * 400) == 30.0


def test_the_shipped_reader_reads_five_tokens_a_second() -> None:
    assert pytest.approx(238 / 60 / 0.75) == 1 / READ_S
