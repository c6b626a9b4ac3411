"""Made-up texts: who shares a beginning shares keys, nobody else does, and the keys are quick to look up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from miniserve.sim.sequence import RangeSequence, make_sequence
from miniserve.types import Request, SamplingParams

BLOCK = 16
FIRST = st.one_of(
    st.integers(0, 1 << 21).map(lambda text: text << 20),  # as workloads number them
    st.integers(0, 1 << 44),  # a trace's rows, another run of a calibration
)
TEXT = st.tuples(FIRST, st.integers(1, 400), st.sampled_from(["", "ada", "bob"]))


def text(first: int, tokens: int, tenant: str = "") -> RangeSequence:
    made = make_sequence(Request("q", "m", range(first, first + tokens), SamplingParams(), tenant=tenant), 0.0)
    assert isinstance(made, RangeSequence)
    return made


@given(TEXT, TEXT)
def test_texts_share_the_keys_of_what_they_share_and_no_others(
    one: tuple[int, int, str], other: tuple[int, int, str]
) -> None:
    keys, others = (list(text(*each).block_keys(BLOCK)) for each in (one, other))
    same_text = (one[0], one[2]) == (other[0], other[2])
    shared = min(one[1], other[1]) // BLOCK if same_text else 0

    assert keys[:shared] == others[:shared]
    assert not set(keys[shared:]) & set(others[shared:])
    assert len(set(keys)) == len(keys) == one[1] // BLOCK


@given(FIRST, st.integers(1, 200), st.integers(0, 200))
def test_a_text_that_grows_keeps_its_keys(first: int, tokens: int, more: int) -> None:
    short, long = text(first, tokens), text(first, tokens)
    long.extend(more)

    assert list(short.block_keys(BLOCK)) == list(long.block_keys(BLOCK))[: tokens // BLOCK]


def test_texts_of_a_workload_begin_at_different_places_of_a_dict() -> None:
    """With a power of two between them, all would begin at one place, and each look-up search through the others."""
    keys = [text(number << 20, BLOCK).block_keys(BLOCK)[0] for number in range(10_000)]

    assert len({hash(key) % (1 << 16) for key in keys}) == len(keys)
    assert max(keys) < 1 << 62, "short integers are quick"
