"""Four public formats, five rows each: what is read, what a run makes of it, and what is refused, with its line."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from miniserve.engine.block_manager import BlockManager
from miniserve.errors import SetupError
from miniserve.scenario import Scenario, load
from miniserve.sim.run import simulate
from miniserve.sim.sequence import make_sequence
from miniserve.types import Request
from miniserve.workload import Mix, Workload
from miniserve.workload.replay import BlockTokens, RecordedTrace, prompt_of
from miniserve.workload.traces import FORMATS, read_trace

TRACES = Path(__file__).parent / "traces"
FILES = {
    "azure": TRACES / "azure.csv",
    "mooncake": TRACES / "mooncake.jsonl",
    "burstgpt": TRACES / "burstgpt.csv",
    "qwen-bailian": TRACES / "qwen_bailian.jsonl",
}
TIMES_S = {
    "azure": [0, 0.75, 0.75, 3.5, 60],
    "mooncake": [0, 0.25, 3, 3, 9.5],
    "burstgpt": [0, 40, 40.5, 113, 595],
    "qwen-bailian": [0, 0.25, 59.75, 129.75, 130.25],
}
LENGTHS = {
    "azure": [(310, 41), (1020, 129), (77, 8), (2048, 400), (5, 1)],
    "mooncake": [(1100, 52), (1100, 9), (400, 500), (2000, 20), (600, 1)],
    "burstgpt": [(472, 18), (37, 160), (510, 95), (1087, 230), (2000, 1000)],
    "qwen-bailian": [(40, 30), (33, 12), (80, 44), (130, 5), (16, 700)],
}


def replayed(format: str, **settings: object) -> list[Request]:
    return list(Workload(RecordedTrace.open(FILES[format], format), **settings).requests(seed=1))  # type: ignore[arg-type]


@pytest.mark.parametrize("format", FORMATS)
def test_times_count_from_the_first_row_and_lengths_are_the_rows(format: str) -> None:
    rows = list(read_trace(FILES[format], format))
    assert [row.time_s for row in rows] == pytest.approx(TIMES_S[format])
    assert [(row.prompt_tokens, row.output_tokens) for row in rows] == LENGTHS[format]


@pytest.mark.parametrize("format", FORMATS)
def test_a_trace_as_demand_sends_its_rows(format: str) -> None:
    requests = replayed(format)
    assert [request.arrived_s for request in requests] == pytest.approx(TIMES_S[format])
    assert [(len(r.prompt_ids), r.sampling.max_tokens) for r in requests] == LENGTHS[format]


def test_sessions_are_those_of_the_format() -> None:
    assert [r.session_key for r in replayed("burstgpt")] == ["12", "s1", "12", "13", "s4"]
    assert [r.session_key for r in replayed("qwen-bailian")] == ["10", "11", "10", "10", "14"]
    assert len({r.session_key for r in replayed("azure")}) == 5


def test_one_session_is_one_tenant() -> None:
    tenants = Mix({f"t{i}": 1.0 for i in range(1000)})
    first, _, third, *_ = replayed("burstgpt", tenants=tenants)
    assert first.tenant == third.tenant
    assert len({r.tenant for r in replayed("azure", tenants=tenants)}) > 1


def cached_tokens(requests: Sequence[Request]) -> list[int]:
    """Return how many tokens of each prompt a cache finds that has computed all earlier ones."""
    blocks, found = BlockManager(1000, 16), []
    for request in requests:
        sequence = make_sequence(request, 0.0)
        hits = blocks.cached_prefix(sequence)
        found.append(16 * len(hits))
        blocks.admit(sequence, hits)
        blocks.publish(sequence, 0, sequence.num_tokens)
        blocks.release(sequence)
    return found


def test_equal_block_ids_are_found_in_the_prefix_cache_and_nothing_else_is() -> None:
    """Whole blocks of 16 only, and never the last token of a prompt: so 1,088 and not 1,100, 1,536 and not 2,000."""
    assert cached_tokens(replayed("mooncake")) == [0, 1024, 0, 1088, 512]
    assert cached_tokens(replayed("qwen-bailian")) == [0, 16, 32, 80, 0]
    assert cached_tokens(replayed("azure")) == [0] * 5


def test_block_tokens_are_a_sequence() -> None:
    tokens = BlockTokens((5, 9), block_tokens=4, length=10, own=-100)
    plain = [20, 21, 22, 23, 36, 37, 38, 39, -92, -91]
    assert list(tokens) == plain
    assert [tokens[-1], tokens[4], *tokens[2:5], len(tokens)] == [-91, 36, 22, 23, 36, 10]
    with pytest.raises(IndexError):
        tokens[10]


def test_speed_shortens_the_time_and_raises_the_rate() -> None:
    plain, fast = RecordedTrace.open(FILES["azure"], "azure"), RecordedTrace.open(FILES["azure"], "azure", speed=4)
    assert [r.arrived_s for r in Workload(fast).requests()] == pytest.approx([t / 4 for t in TIMES_S["azure"]])
    assert [plain.rate_per_s, fast.rate_per_s] == pytest.approx([5 / 60, 20 / 60])


def test_rows_are_read_one_at_a_time(tmp_path: Path) -> None:
    """What comes before a bad row can be had: nobody has read the whole file first."""
    path = tmp_path / "trace.csv"
    path.write_text(FILES["azure"].read_text() + "never\n")
    assert len(list(itertools.islice(read_trace(path, "azure"), 5))) == 5


# --- bad rows ------------------------------------------------------------------------------------------------------

BAD = {
    "unknown column": ("azure", 1, "GeneratedTokens", "Generated", "unknown column 'Generated'; the format has TIMEST"),
    "missing column": ("azure", 1, ",GeneratedTokens", "", "the column 'GeneratedTokens' is missing"),
    "another format": ("burstgpt", 1, "Timestamp", "TIMESTAMP", "unknown column 'TIMESTAMP'"),
    "missing field": ("azure", 3, ",129", "", "has 2 fields; the header names 3"),
    "too many fields": ("azure", 3, ",129", ",129,7", "has 4 fields; the header names 3"),
    "empty field": ("burstgpt", 3, ",37,", ",,", "Request tokens: '' is not allowed"),
    "negative": ("azure", 3, ",129", ",-129", "GeneratedTokens: '-129' is not allowed; it must be a number >= 0"),
    "nan": ("burstgpt", 2, "5,12", "nan,12", "Timestamp: 'nan' is not allowed"),
    "json nan": ("mooncake", 2, "250", "NaN", "timestamp: nan is not allowed"),
    "infinite": ("mooncake", 2, "250", "Infinity", "timestamp: inf is not allowed"),
    "half a token": ("burstgpt", 2, "472", "472.5", "Request tokens: '472.5' is not allowed; it must be a whole"),
    "failed request": ("burstgpt", 2, ",18,", ",0,", "Response tokens: '0' is not allowed; .* that failed"),
    "text": ("azure", 4, ",77,", ",seven,", "ContextTokens: 'seven' is not allowed"),
    "no date": ("azure", 2, "2023-11-16 18:00:00.5000000", "12.5", "TIMESTAMP: '12.5' is not a date and time"),
    "time back": ("azure", 5, "18:00:04", "17:59:04", "time goes backwards, by 57.25 s"),
    "time back in ms": ("mooncake", 5, "9500", "2500", "time goes backwards, by 0.5 s"),
    "unknown key": ("mooncake", 1, "hash_ids", "hashes", "unknown key 'hashes'; the format has timestamp, input_l"),
    "missing key": ("mooncake", 3, '"output_length": 500, ', "", "the key 'output_length' is missing"),
    "no json": ("mooncake", 3, "[7]}", "[7]", "is not JSON"),
    "json without end": ("mooncake", 3, "[7]}", "[" * 100_000, "is not JSON: maximum recursion depth"),
    "no object": ("qwen-bailian", 2, None, "[1, 2]", r"must be a JSON object, not \[1, 2\]"),
    "true": ("qwen-bailian", 1, '"input_length": 40', '"input_length": true', "input_length: True is not allowed"),
    "ids": ("mooncake", 3, "[7]", '["a"]', "hash_ids: must be a list of whole numbers >= 0"),
    "too many ids": ("mooncake", 3, "[7]", "[7, 8]", "2 ids are more than the 1 block of 512 that 400 tokens fill"),
    "chat": ("qwen-bailian", 1, '"chat_id": 10', '"chat_id": "ten"', "chat_id: 'ten' is not a whole number"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_refused_with_file_line_and_reason(name: str, tmp_path: Path) -> None:
    format, number, old, new, reason = BAD[name]
    lines = FILES[format].read_text().splitlines()
    assert old is None or old in lines[number - 1]
    lines[number - 1] = new if old is None else lines[number - 1].replace(old, new, 1)
    path = tmp_path / "bad.trace"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(SetupError, match=reason) as raised:
        RecordedTrace.open(path, format)
    assert str(raised.value).startswith(f"{path}:{number}: ")


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none\.csv does not exist"):
        RecordedTrace.open(tmp_path / "none.csv", "azure")
    (tmp_path / "header.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    with pytest.raises(SetupError, match=r"header\.csv has no rows"):
        RecordedTrace.open(tmp_path / "header.csv", "azure")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(SetupError, match=r"empty\.csv:1: the column 'TIMESTAMP' is missing"):
        RecordedTrace.open(tmp_path / "empty.csv", "azure")


HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
ROWS = ("2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:50.9951690,396,109")
JSON_ROW = '{"timestamp": %d, "input_length": 6, "output_length": 5, "hash_ids": []}'


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("azure", "\ufeff" + "\n".join((HEADER, *ROWS)) + "\n"),
        ("azure", "\r\n".join((HEADER, *ROWS)) + "\r\n\r\n"),
        ("azure", "\n".join((HEADER, "", *ROWS)) + "\n\n\n"),
        ("azure", "\n".join((HEADER, *ROWS))),
        ("azure", "\n".join('"' + line.replace(",", '","') + '"' for line in (HEADER, *ROWS))),
        ("mooncake", f"{JSON_ROW % 0}\n\n{JSON_ROW % 9}\n\n"),
        ("mooncake", f"\ufeff{JSON_ROW % 0}\r\n{JSON_ROW % 9}\r\n"),
    ],
)
def test_what_spreadsheets_and_editors_add_is_no_obstacle(tmp_path: Path, format: str, content: str) -> None:
    path = tmp_path / "t"
    path.write_bytes(content.encode("utf-8"))
    assert RecordedTrace.open(path, format).rows == 2


@pytest.mark.parametrize(
    ("content", "encoding", "reason"),
    [
        (HEADER.replace(",", ";"), "utf-8", "the columns are separated by semicolons; write commas"),
        (HEADER.replace(",", "\t"), "utf-8", "the columns are separated by tabs; write commas"),
        (HEADER, "utf-16", "is UTF-16 text; save it as UTF-8"),
        ("TIMESTAMP,\u00e4", "latin-1", "is not UTF-8 text; save it as UTF-8"),
        (HEADER + ",", "utf-8", "column 4 has no name: is there a comma too many"),
    ],
)
def test_what_a_spreadsheet_has_changed_is_named(tmp_path: Path, content: str, encoding: str, reason: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f"{content}\n".encode(encoding))
    with pytest.raises(SetupError, match=reason):
        RecordedTrace.open(path, "azure")


def test_mooncake_rows_as_benchmark_tools_write_them(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"timestamp": 0, "input_length": 655, "output_length": 52}\n'
        '{"timestamp": 500, "input_length": 655, "output_length": 52, "session_id": "s1"}\n'
        '{"timestamp": 700.5, "input_length": 900, "output_length": 40, "hash_ids": [1, 2], "delay": 200}\n'
    )
    trace = RecordedTrace.open(path, "mooncake")
    assert (trace.rows, trace.unused) == (3, ("delay", "session_id"))
    prompts = [list(prompt_of(row, i)) for i, row in enumerate(trace.read())]
    assert not set(prompts[0]) & set(prompts[1]), "rows without ids share nothing"


def test_one_block_is_singular(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 300, "output_length": 10, "hash_ids": [123, 456]}')
    with pytest.raises(SetupError, match="2 ids are more than the 1 block of 512 that 300 tokens fill"):
        RecordedTrace.open(path, "mooncake")


def test_a_row_longer_than_any_context_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 6000000000000, "output_length": 10}')
    with pytest.raises(SetupError, match=r"m\.jsonl:1: input_length: 6000000000000 is not allowed; it must be at most"):
        RecordedTrace.open(path, "mooncake")


# --- in a scenario -------------------------------------------------------------------------------------------------

FLEET = """
[[fleet.replicas]]
name = "r"
step_time = { base_s = 0.01 }
[engine.cache]
num_blocks = 1000
"""


def scenario(folder: Path, workload: str) -> Scenario:
    path = folder / "trace.toml"
    path.write_text(f"[workload]\n{workload}\n{FLEET}")
    return load(path)


def table(format: str, more: str = "") -> str:
    return f'trace = {{ file = "{FILES[format]}", format = "{format}"{more} }}'


def test_a_scenario_replays_a_trace_to_its_end(tmp_path: Path) -> None:
    loaded = scenario(tmp_path, table("mooncake", ", speed = 2"))
    assert [loaded.expected_requests, loaded.expected_s] == pytest.approx([5, 4.75])
    outcomes = simulate(loaded).outcomes
    rows = sorted(zip(outcomes.index, outcomes.prompt_tokens, outcomes.output_tokens, strict=True))
    assert [(int(prompt), int(output)) for _, prompt, output in rows] == LENGTHS["mooncake"]
    assert outcomes.cached_tokens.sum() > 2000


def test_a_trace_lies_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(FILES["azure"].read_text())
    loaded = scenario(tmp_path, 'trace = { file = "mine.csv", format = "azure" }\ntenants = { a = 1 }')
    assert {request.tenant for request in loaded.workload.requests()} == {"a"}


@pytest.mark.parametrize(
    ("workload", "problem"),
    [
        (
            'trace = { file = "x.csv", format = "azur" }',
            r":2: workload\.trace\.format: .*no 'azur'; allowed: azure",
        ),
        ('trace = { file = "x.csv", format = "azure" }', r":2: workload\.trace.*x\.csv does not exist"),
        ('trace = { file = "x.csv" }', r":2: workload\.trace: `format` is missing"),
        (table("azure", ", speed = 0"), r":2: workload\.trace\.speed: 0 is not allowed; it must be above 0"),
        (table("azure", ", sped = 2"), r":2: workload\.trace\.sped: unknown key; did you mean `speed`"),
        (table("azure") + '\narrivals = { kind = "poisson", rate_per_s = 1 }', r"arrivals comes from the trace"),
        (table("azure") + '\nprompt = { kind = "constant", tokens = 1 }', r":3: workload\.prompt: prompt comes from"),
        ("tenants = { a = 1 }", r":1: workload: `arrivals` is missing; it must be one of poisson, .*, or say `trace`"),
    ],
)
def test_a_bad_trace_in_a_scenario_is_refused_by_line_and_key(tmp_path: Path, workload: str, problem: str) -> None:
    with pytest.raises(SetupError, match=problem):
        scenario(tmp_path, workload)


def test_the_words_of_a_bad_row_are_not_taken_for_keys(tmp_path: Path) -> None:
    (tmp_path / "bom.csv").write_text("file\n")
    with pytest.raises(SetupError, match=r"trace\.toml:2: workload\.trace: .*bom\.csv:1: .*the format has"):
        scenario(tmp_path, 'trace = { file = "bom.csv", format = "azure" }')


def test_a_scenario_may_begin_with_a_byte_order_mark_but_not_be_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    text = f"[workload]\n{table('azure')}\n{FLEET}"
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert load(path).expected_requests > 0
    path.write_text(text, encoding="utf-16")
    with pytest.raises(SetupError, match="is UTF-16 text; save it as UTF-8"):
        load(path)


def test_a_bad_row_stops_a_scenario_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(FILES["azure"].read_text() + "2023-11-16 18:02:00,10,-3\n")
    with pytest.raises(SetupError, match=r"trace\.toml:2: workload\.trace.*bad\.csv:7: GeneratedTokens: '-3'"):
        scenario(tmp_path, 'trace = { file = "bad.csv", format = "azure" }')
