"""The sans-I/O stream machines: whatever the cuts, the output is the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from miniserve.sse import SSEDecoder, encode_comment, encode_event
from miniserve.text import Detokenizer


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def decode_in_pieces(pieces: list[bytes]) -> list[str]:
    decoder = SSEDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


# --- server-sent events ---------------------------------------------------------------------------------------------


def test_an_event_is_one_data_line_and_a_blank_one() -> None:
    assert encode_event('{"a":1}') == b'data: {"a":1}\n\n'
    assert encode_event("") == b"data: \n\n"
    assert encode_comment("keep-alive") == b": keep-alive\n\n"


texts = st.text(alphabet=st.one_of(st.sampled_from("\r\n: \x00\ufeffdata€🙂\u2028\x85"), st.characters(codec="utf-8")))
cuts = st.lists(st.integers(0, 10_000), max_size=30)


@given(
    st.lists(st.one_of(texts, texts.map(lambda t: (t,)))), cuts, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans()
)
@example(["a\r\nb"], list(range(40)), "\r\n", True)
def test_any_chunking_of_a_stream_gives_its_events(
    items: list[str | tuple[str]], places: list[int], line_end: str, bom: bool
) -> None:
    """A tuple stands for a comment; every event comes back once, with its line ends as LF."""
    encoded = b"".join(encode_event(i) if isinstance(i, str) else encode_comment(i[0]) for i in items)
    stream = (b"\xef\xbb\xbf" if bom else b"") + encoded.replace(b"\n", line_end.encode())
    events = [i.replace("\r\n", "\n").replace("\r", "\n") for i in items if isinstance(i, str)]
    assert decode_in_pieces(cut(stream, places)) == events
    assert decode_in_pieces([stream[i : i + 1] for i in range(len(stream))]) == events


@given(st.binary(), cuts)
def test_chunking_does_not_matter_even_for_bytes_that_are_no_stream(data: bytes, places: list[int]) -> None:
    assert decode_in_pieces(cut(data, places)) == decode_in_pieces([data])


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data:x\n\n", ["x"]),  # the space after the colon is optional
        (b"data:  x\n\n", [" x"]),  # and only one is removed
        (b"data\n\n", [""]),  # a field without a colon has an empty value
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"event: e\nid: 1\nretry: 5\ndata: a\n\n", ["a"]),
        (b": only a comment\n\n", []),
        (b"\n\n\n", []),
        (b"data: cut off", []),
        (b"data: cut off\n", []),
        (b"data: \xff\n\n", ["\ufffd"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", ["a"]),  # a mark elsewhere is part of a field's name
    ],
)
def test_the_format_in_its_corners(stream: bytes, events: list[str]) -> None:
    assert decode_in_pieces([stream]) == events


# --- tokens to text -------------------------------------------------------------------------------------------------


def cut_at_first_stop(text: str, stop: tuple[str, ...]) -> str:
    """The definition, without increments: try every end, then every start."""
    for end in range(len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)]
    return text


def run(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], Detokenizer]:
    detokenizer = Detokenizer(pieces.__getitem__, stop)
    return [*(detokenizer.push(i) for i in range(len(pieces))), detokenizer.flush()], detokenizer


stops = st.lists(st.text(alphabet="ab€🙂", min_size=1, max_size=4), max_size=4).map(tuple)


@given(st.text(alphabet="ab€🙂"), stops, cuts)
@settings(max_examples=500)
@example("xab", ("ab", "b"), [1, 2])
@example("abc", ("abc", "b"), [1, 2])
def test_pieces_put_together_are_the_whole_cut_at_the_first_stop(
    text: str, stop: tuple[str, ...], where: list[int]
) -> None:
    pieces = cut(text.encode(), where)
    out, detokenizer = run(pieces, stop)
    assert "".join(out) == cut_at_first_stop(text, stop)
    assert detokenizer.stopped == any(s in text for s in stop)


@given(st.lists(st.binary(max_size=5)), stops)
def test_invalid_bytes_too_decode_as_the_whole_would(pieces: list[bytes], stop: tuple[str, ...]) -> None:
    out, _ = run(pieces, stop)
    assert "".join(out) == cut_at_first_stop(b"".join(pieces).decode("utf-8", "replace"), stop)


@given(st.text(alphabet="ab€🙂"), stops)
def test_what_was_shown_is_never_taken_back(text: str, stop: tuple[str, ...]) -> None:
    """Every prefix shown is a prefix of the final text: neither half a character nor the start of a stop string."""
    out, _ = run([bytes([b]) for b in text.encode()], stop)
    assert "\ufffd" not in "".join(out)
    assert cut_at_first_stop(text, stop).startswith("".join(out[:-1]))


@pytest.mark.parametrize("place", range(1, 12))
def test_a_stop_string_is_found_across_every_token_border(place: int) -> None:
    data = "Grüße END more".encode()
    out, detokenizer = run([data[:place], data[place:]], ("END",))
    assert "".join(out) == "Grüße "
    assert detokenizer.stopped


def test_text_is_shown_as_soon_as_it_is_certain() -> None:
    out, _ = run([b"a", b"#", b"#", b"b", b"#"], ("###",))
    assert out == ["a", "", "", "##b", "", "#"]


def test_a_character_is_shown_with_its_last_byte() -> None:
    assert run([bytes([b]) for b in "é🙂".encode()])[0] == ["", "é", "", "", "", "🙂", ""]


def test_nothing_follows_a_stop_string() -> None:
    out, detokenizer = run([b"one STOP two", b" three"], ("STOP",))
    assert out == ["one ", "", ""]
    assert detokenizer.stopped


def test_stop_strings_apply_to_a_backend_that_speaks_text() -> None:
    detokenizer = Detokenizer(lambda _: b"", ("END",))
    assert [detokenizer.push_text(t) for t in ("a E", "N", "D b")] == ["a ", "", ""]
    assert detokenizer.stopped
