"""The price list: every figure has a source, every mistake is named, and the roofline is the stated arithmetic."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniserve.engine.batch import Batch
from miniserve.engine.step_time import StepTimeModel, load_step_time
from miniserve.errors import SetupError
from miniserve.hardware.prices import PRICE_LIST, ColdStart, ModelSize, load_price_list

PRICES = load_price_list()
LLAMA = PRICES.model("llama-3.1-8b")
RECORDED = PRICE_LIST.parent / "step_time" / "smollm2.json"
TEXT = PRICE_LIST.read_text(encoding="utf-8")


def changed(tmp_path: Path, old: str, new: str) -> Path:
    assert old in TEXT
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    return path


def test_the_shipped_list_has_a_cpu_and_four_accelerators_and_every_figure_a_source() -> None:
    assert set(PRICES.hardware) == {"cpu-2core", "t4", "l4", "a100-80gb", "h100-80gb"}
    for machine in PRICES.hardware.values():
        assert 0 < machine.spot_usd_per_hour < machine.usd_per_hour
    for table in TEXT.split("\n[")[1:]:
        if not table.startswith("roofline"):  # named as assumptions
            assert "source" in table, table.splitlines()[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "memory_gb = 16.0",
            "memory_mb = 16000.0",
            "hardware.t4.memory_mb: unknown key; the unit is wrong: write `memory_gb` (gigabytes)",
        ),
        (
            "memory_gb = 16.0",
            "memory_gb = 16000000000.0",
            "hardware.t4.memory_gb: 1.6e+10 is not allowed; it must be at least 0.1 and at most 10000",
        ),
        (
            "dense_fp16_tflops = 65.0",
            "dense_fp16_tflops = 65e12",
            "hardware.t4.dense_fp16_tflops: 6.5e+13 is not allowed",
        ),
        ("usd_per_hour = 0.54", "usd_per_hour = -0.54", "hardware.t4.usd_per_hour: -0.54 is not allowed"),
        ("usd_per_hour = 0.54", 'usd_per_hour = "0.54 USD"', 'hardware.t4.usd_per_hour: "0.54 USD" is not a number'),
        ("usd_per_hour = 0.54", "usd_per_hour = nan", "hardware.t4.usd_per_hour: nan is not a number"),
        (
            "spot_usd_per_hour = 0.27",
            "spot_usd_per_hour = 0.6",
            "hardware.t4.spot_usd_per_hour: spot_usd_per_hour (0.6) must be at most usd_per_hour (0.54)",
        ),
        ("usd_per_hour = 0.54\n", "", "hardware.t4: `usd_per_hour` is missing; it must be a number at least 0"),
        (
            'specs_source = "NVIDIA T4',
            '# "NVIDIA T4',
            "hardware.t4: `specs_source` is missing; it must be text in quotes",
        ),
        (
            'specs_source = "NVIDIA T4 Tensor Core GPU datasheet (March 2019)"',
            'specs_source = " "',
            "hardware.t4.specs_source: specs_source is blank; a few words must say where the figures come from",
        ),
        ("layers = 32", "layers = 32.5", "model.llama-3.1-8b.layers: 32.5 is not a whole number"),
        ("[roofline]", "[rooflines]", "rooflines: unknown key; did you mean `roofline`?"),
        ("measured.smollm2-135m]", "measured.smollm-135m]", 'there is no "smollm-135m"; did you mean `smollm2-135m`?'),
        (
            "step_time/smollm2.json",
            "step_time/none.json",
            "measured.smollm2-135m.step_time: "
            + str(PRICE_LIST.parent / "step_time/none.json does not exist: measure"),
        ),
        (
            '"step_time/smollm2.json"',
            '"hardware.toml"',
            "hardware.toml is not a step-time model",
        ),
        ("max_running = 16 ", "max_running = 160 ", "max_batch_tokens (128) must be at least max_running (160)"),
        ("[roofline]", "model = 3\n[roofline]", "is not valid TOML"),
        ("[hardware.t4]", "[hardware.t4]\nmeasured = 3", "hardware.t4.measured: 3 is not a table"),
        ("[hardware.t4]", "[hardware.t4", "is not valid TOML"),
    ],
)
def test_a_mistake_is_refused_by_file_key_and_value(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(SetupError) as caught:
        load_price_list(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)
    assert re.match(r".*mine\.toml(:\d+: | is not valid TOML: .* line \d+)", str(caught.value)), "it says on which line"


def test_an_absent_file_and_an_unknown_name_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"does not exist: see data/hardware.toml"):
        load_price_list(tmp_path / "none.toml")
    with pytest.raises(SetupError, match=r'hardware\.toml: there is no hardware "h100"; did you mean `h100-80gb`\?'):
        PRICES.machine("h100")
    with pytest.raises(
        SetupError, match=r'there is no model "gpt"; allowed: smollm2-135m, llama-3\.1-8b, llama-3\.2-1b'
    ):
        PRICES.model("gpt")


def test_the_cpu_uses_what_was_measured_and_says_so() -> None:
    model = PRICES.machine("cpu-2core").step_time(PRICES.model("smollm2-135m"))
    recorded = load_step_time(RECORDED)
    assert replace(model, fitted_on=recorded.fitted_on) == recorded
    assert (model.fitted_on["how"], model.fitted_on["threads"], model.fitted_on["model"]) == (
        "measured",
        2,
        "smollm2-135m",
    )
    assert PRICES.machine("cpu-2core").kv_blocks(PRICES.model("smollm2-135m")) == 320


def test_the_cpus_effective_figures_follow_from_the_recorded_steps() -> None:
    cpu, model, recorded = PRICES.machine("cpu-2core"), PRICES.model("smollm2-135m"), load_step_time(RECORDED)
    assert cpu.memory_bytes_per_s == pytest.approx(model.weight_bytes / recorded.base_s, rel=0.005)
    assert cpu.operations_per_s == pytest.approx(2 * model.parameters / recorded.per_prefill_token_s, rel=0.005)
    for said in (f"{1e3 * recorded.base_s:.2f} ms", f"{1e3 * recorded.per_prefill_token_s:.3f} ms"):
        assert said in TEXT, "in the comments beside the two figures"


def test_ones_own_measurement_lies_beside_ones_own_price_list(tmp_path: Path) -> None:
    path = changed(tmp_path, "memory_gb = 8.0", "memory_gb = 9.0")
    StepTimeModel(0.1, 0.2, 0.3, 0.0, 0.0).save(tmp_path / "step_time" / "smollm2.json")
    prices = load_price_list(path)
    assert prices.machine("cpu-2core").step_time(prices.model("smollm2-135m")).base_s == 0.1


def test_the_roofline_by_hand() -> None:
    a100 = PRICES.machine("a100-80gb")
    step = a100.step_time(LLAMA)
    assert step.base_s == pytest.approx(0.0015 + 8_030_261_248 * 2 / (2039e9 * 0.85))
    assert step.per_decode_row_s == pytest.approx(2 * 8_030_261_248 / (312e12 * 0.5))
    assert step.per_context_token_s == pytest.approx(131_072 / (2039e9 * 0.85))  # 128 KiB of KV per token
    assert step.per_prefill_pair_s == pytest.approx(4 * 32 * 4096 / (312e12 * 0.5))
    assert step.seconds(Batch()) == step.base_s
    assert a100.kv_blocks(LLAMA) == int((80e9 * 0.9 - LLAMA.weight_bytes) // (16 * 131_072))


@pytest.mark.parametrize(
    ("streams", "context_tokens", "published_s"),
    [
        *((1, 192, 0.00462), (64, 192, 0.00592), (256, 192, 0.01087)),
        *((1, 640, 0.00466), (16, 640, 0.00525), (64, 640, 0.00726), (128, 640, 0.01016), (256, 640, 0.01613)),
        *((1, 3072, 0.00480), (16, 3072, 0.00722), (64, 3072, 0.01481)),
    ],
)
def test_the_roofline_comes_near_published_times(streams: int, context_tokens: int, published_s: float) -> None:
    """Median times between tokens of Qwen3-8B in fp8 on one H100 under vLLM; the file names the source."""
    qwen = ModelSize("qwen3-8b", 8_190_000_000, 36, 32, 8, 128, bytes_per_weight=1.0)
    machine = PRICES.machine("h100-80gb")
    fp8 = replace(machine, operations_per_s=2 * machine.operations_per_s)
    step = fp8.step_time(qwen)
    seconds = step.base_s + streams * (step.per_decode_row_s + context_tokens * step.per_context_token_s)
    assert 0.9 < seconds / published_s < 1.2


def test_a_model_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SetupError, match=r"llama-3.1-8b does not fit on t4: weights 16.1 GB, usable memory 14.4 GB"):
        PRICES.machine("t4").kv_blocks(LLAMA)


@given(scale=st.integers(1, 20))
def test_a_larger_model_is_slower_in_every_term_and_leaves_fewer_blocks(scale: int) -> None:
    small = ModelSize("small", 10_000_000, 4, 8, 8, 64)
    large = ModelSize("large", 10_000_000 * scale, 4 * scale, 8, 8, 64)
    machine = PRICES.machine("h100-80gb")
    ours, theirs = machine.step_time(small), machine.step_time(large)
    for term in ("base_s", "per_decode_row_s", "per_prefill_token_s", "per_context_token_s", "per_prefill_pair_s"):
        assert getattr(ours, term) <= getattr(theirs, term)
    assert machine.kv_blocks(small) >= machine.kv_blocks(large)


def test_a_cold_start_has_three_stages_with_keyed_luck() -> None:
    cold = ColdStart(60.0, 16.0, 20.0)
    stages = cold.stages_s(7, "r0", 0)
    assert [name for name, _ in stages] == ["provision", "load", "warm up"]
    assert stages == cold.stages_s(7, "r0", 0) != cold.stages_s(7, "r1", 0)
    assert [name for name, _ in cold.stages_s(7, "r0", 1, provisioned=True)] == ["load", "warm up"]
    for seconds, nominal in zip((seconds for _, seconds in stages), (60.0, 16.0, 20.0), strict=True):
        assert 0.8 * nominal <= seconds <= 1.2 * nominal
    assert cold.nominal_s == 96.0
