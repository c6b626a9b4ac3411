"""Figures that everyone can read: alt text, contrast, one look in both themes, the same bytes each time."""

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from miniserve import course
from miniserve.course import figures
from miniserve.course.tables import as_text, html_table, plain_table

SVG = "{http://www.w3.org/2000/svg}"
ALT = 'p99 is 12.4 s, twelve times the "mean" of <1 s'


def drawn():
    figure, ax = course.new_figure("Latency", x="latency (s)", y="share of requests")
    ax.plot([0, 1, 2], [0, 0.5, 1], **course.line_style(0, markers=True), label="all")
    ax.bar([0, 1], [0.1, 0.2], **course.bar_style(1))
    ax.legend()
    return figure


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(figures, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colour", [*figures.COLOURS, figures.INK])
def test_every_colour_stands_out_from_the_card(colour):
    assert (luminance(figures.CARD) + 0.05) / (luminance(colour) + 0.05) >= 4.5


def test_the_card_is_in_the_picture_so_that_the_theme_does_not_matter():
    assert re.search(rf"fill: {figures.CARD}", figures.svg_text(drawn(), ALT))


def test_curves_and_bars_differ_by_more_than_colour():
    lines = [figures.line_style(i, markers=True) for i in range(6)]
    assert len({str(line["linestyle"]) for line in lines}) == len({line["marker"] for line in lines}) == 6
    assert len({figures.bar_style(i)["hatch"] for i in range(6)}) == 6


def test_the_picture_has_its_alt_text_as_attribute_and_as_description(shown):
    course.show(drawn(), alt=ALT)
    ((tag, attributes),) = Tags(shown[0]["text/html"]).found
    assert (tag, attributes["alt"]) == ("img", ALT)
    svg = ElementTree.fromstring(base64.b64decode(attributes["src"].partition("base64,")[2]))
    assert svg.attrib["role"] == "img"
    assert svg.find(f"{SVG}title").text == "Latency"
    assert svg.find(f"{SVG}desc").text == ALT
    assert shown[0]["text/plain"] == f"Figure: {ALT}"


def test_a_short_series_is_a_table_too(shown):
    course.show(drawn(), alt=ALT, data={"hour": list(range(12)), "p99 (s)": [0.5] * 12})
    assert [tag for tag, _ in Tags(shown[0]["text/html"]).found].count("tr") == 13
    course.show(drawn(), alt=ALT, data={"hour": list(range(13)), "p99 (s)": [0.5] * 13})
    assert "table" not in shown[1]["text/html"]


def test_the_same_figure_gives_the_same_bytes():
    first, second = figures.svg_text(drawn(), ALT), figures.svg_text(drawn(), ALT)
    assert first == second
    assert "<metadata>" not in first
    assert len(first) < 20_000


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_no_figure_without_alt_text(alt):
    with pytest.raises(ValueError, match="needs alt text"):
        course.show(drawn(), alt=alt)


@pytest.mark.parametrize("missing", ["title", "x", "y"])
def test_no_figure_without_title_and_labels(missing):
    texts = {"title": "Latency", "x": "latency (s)", "y": "share", missing: " "}
    with pytest.raises(ValueError, match=f"needs {missing}"):
        course.new_figure(texts.pop("title"), **texts)


def test_several_panels_share_the_y_axis_and_each_names_its_x():
    _, axes = course.new_figure("Replicas", x="latency (s)", y="share", panels=3)
    axes[0].set_ylim(0, 7)
    assert [ax.get_xlabel() for ax in axes] == ["latency (s)"] * 3
    assert axes[2].get_ylim() == (0, 7)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345, "12,345"),
        (12345.678, "12,300"),
        (999.6, "1,000"),
        (0.5, "0.500"),
        (3.14159, "3.14"),
        (100.2, "100"),
        (0.0, "0.00"),
        (-2.5, "-2.50"),
        (0.00001234, "1.23e-05"),
        (True, "True"),
        ("p2c", "p2c"),
    ],
)
def test_numbers_are_told_in_one_way(value, text):
    assert as_text(value) == text


def test_a_table_has_a_caption_and_header_cells():
    tags = [tag for tag, _ in Tags(html_table({"a<b": ["x"], "n": [1]}, "All & more")).found]
    assert tags == ["table", "caption", "thead", "tr", "th", "th", "tbody", "tr", "th", "td"]


def test_a_plain_table_is_aligned():
    text = plain_table({"name": ["one", "three"], "n": [1, 20000]})
    assert text.splitlines() == ["name        n", "one         1", "three  20,000"]


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="one length"):
        plain_table({"a": [1], "b": [1, 2]})


def test_drawing_logs_nothing(caplog):
    figures.svg_text(drawn(), ALT)
    assert not caplog.records


def test_choices_are_printed_by_letter_and_options_as_they_are_to_be_written(capsys):
    course.show_choices({"a": "It is slow.", "b": "It is wrong."}, {"model": "the answers", "systems": "all else"})
    assert capsys.readouterr().out == "a: It is slow.\nb: It is wrong.\n\n'model': the answers\n'systems': all else\n"
