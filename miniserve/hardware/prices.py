"""One price list: what machines exist, what they cost, how fast they are, and how long they take to come up.

`data/hardware.toml` holds the figures, each with its source; this module checks them and derives the rest. For the CPU
machine the step times were measured and are in `data/step_time/`. For accelerators they follow from a roofline: a step
reads all weights and each row's keys and values once, and computes two operations per weight and token,

    base        = overhead + weight bytes / (bandwidth * memory efficiency)
    per row     = per prefill token = 2 * parameters / (operations per second * compute efficiency)
    per context = KV bytes of a token / (bandwidth * memory efficiency)
    per pair    = 4 * layers * heads * head size / (operations per second * compute efficiency)

added up, where hardware would overlap the two: right when one of them dominates, pessimistic by at most a factor of two
where they are equal. The efficiencies are assumptions and stand in the file by name.

Knows files and arithmetic; no fleet, no clock. Source of the roofline: Williams, Waterman, Patterson, CACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from miniserve.config import SchedulerConfig
from miniserve.engine.step_time import StepTimeModel, load_step_time
from miniserve.errors import SetupError
from miniserve.seeds import uniform
from miniserve.toml.reader import Range, Reader, check_name, suggestion
from miniserve.toml.source import Place, TomlSource, read_source_file

PRICE_LIST = Path(__file__).resolve().parents[2] / "data" / "hardware.toml"
COLD_START_SPREAD = 0.2  # a stage takes between 80 and 120 % of its nominal time; an assumption


@dataclass(frozen=True, slots=True)
class ModelSize:
    """As much of a model as its speed and memory depend on."""

    name: str
    parameters: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    bytes_per_weight: float = 2.0
    bytes_per_kv_element: float = 2.0

    @property
    def weight_bytes(self) -> float:
        return self.parameters * self.bytes_per_weight

    @property
    def kv_bytes_per_token(self) -> float:
        return 2 * self.layers * self.kv_heads * self.head_dim * self.bytes_per_kv_element


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Nominal seconds from asking for a machine to its first request, stage by stage. All zero: ready at once."""

    provision_s: float = 0.0
    load_s: float = 0.0
    warm_up_s: float = 0.0
    spread_fraction: float = COLD_START_SPREAD

    @property
    def nominal_s(self) -> float:
        return self.provision_s + self.load_s + self.warm_up_s

    def stages_s(self, *key: object, provisioned: bool = False) -> tuple[tuple[str, float], ...]:
        """Return each stage's name and duration with the luck of `key`; a restart has its machine already."""
        stages = [("provision", self.provision_s), ("load", self.load_s), ("warm up", self.warm_up_s)]
        return tuple((name, seconds * self._luck(*key, name)) for name, seconds in stages[1 if provisioned else 0 :])

    def _luck(self, *key: object) -> float:
        return 1.0 + self.spread_fraction * (2.0 * uniform("cold start", *key) - 1.0)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured with one model on one machine, in place of the roofline."""

    step_time: StepTimeModel
    kv_blocks: int


@dataclass(frozen=True, slots=True)
class Hardware:
    """One machine type with one accelerator (or none)."""

    name: str
    memory_bytes: float
    memory_bytes_per_s: float  # reached, that is peak times efficiency
    operations_per_s: float  # reached, dense fp16
    usd_per_hour: float
    spot_usd_per_hour: float
    spot_interruptions_per_hour: float
    provision_s: float
    weights_bytes_per_s: float
    warm_up_s: float
    step_overhead_s: float
    memory_used_fraction: float
    spot_notice_s: float
    scheduler: SchedulerConfig
    measured: Mapping[str, Measured] = field(default_factory=dict)

    def price_usd_per_hour(self, spot: bool = False) -> float:
        return self.spot_usd_per_hour if spot else self.usd_per_hour

    def step_time(self, model: ModelSize) -> StepTimeModel:
        """Return the measured step-time model, or else the roofline's."""
        measured = self.measured.get(model.name)
        if measured is not None:
            return measured.step_time
        per_token_s = 2 * model.parameters / self.operations_per_s
        return StepTimeModel(
            base_s=self.step_overhead_s + model.weight_bytes / self.memory_bytes_per_s,
            per_decode_row_s=per_token_s,
            per_prefill_token_s=per_token_s,
            per_context_token_s=model.kv_bytes_per_token / self.memory_bytes_per_s,
            per_prefill_pair_s=4 * model.layers * model.heads * model.head_dim / self.operations_per_s,
            fitted_on={"hardware": self.name, "model": model.name, "how": "roofline"},
        )

    def kv_blocks(self, model: ModelSize, block_size: int = 16) -> int:
        """Return how many KV blocks fit beside the weights. Raises: SetupError if the model does not fit."""
        measured = self.measured.get(model.name)
        if measured is not None:
            return measured.kv_blocks
        room = self.memory_bytes * self.memory_used_fraction - model.weight_bytes
        blocks = int(room // (block_size * model.kv_bytes_per_token))
        if blocks < 1:
            raise SetupError(
                f"{model.name} does not fit on {self.name}: weights {model.weight_bytes / 1e9:.1f} GB, "
                f"usable memory {self.memory_bytes * self.memory_used_fraction / 1e9:.1f} GB"
            )
        return blocks

    def cold_start(self, model: ModelSize) -> ColdStart:
        return ColdStart(self.provision_s, model.weight_bytes / self.weights_bytes_per_s, self.warm_up_s)


@dataclass(frozen=True, slots=True)
class PriceList:
    """All machines and models of one file."""

    path: Path
    hardware: Mapping[str, Hardware]
    models: Mapping[str, ModelSize]

    def machine(self, name: str) -> Hardware:
        """Raises: SetupError naming what there is."""
        if name not in self.hardware:
            raise SetupError(f'{self.path}: there is no hardware "{name}"; {suggestion(name, self.hardware)}')
        return self.hardware[name]

    def model(self, name: str) -> ModelSize:
        """Raises: SetupError naming what there is."""
        if name not in self.models:
            raise SetupError(f'{self.path}: there is no model "{name}"; {suggestion(name, self.models)}')
        return self.models[name]


# --- the file: its tables, with the lowest and the highest plausible value of each figure ----------------------------
#
# A figure in the wrong unit is a thousand or a million times too large or too small: the ranges find it.

_Efficiency = Annotated[float, Range(at_least=0.01, at_most=1)]
_Seconds = Annotated[float, Range(at_least=0, at_most=7_200)]
_Usd = Annotated[float, Range(at_least=0, at_most=1_000)]
_Count = Annotated[int, Range(at_least=1, at_most=1_000)]
_Bytes = Annotated[float, Range(at_least=0.25, at_most=8)]


def _require_words(**sources: str) -> None:
    for key, text in sources.items():
        if not text.strip():
            raise ValueError(f"{key} is blank; a few words must say where the figures come from")


@dataclass(frozen=True, slots=True)
class _Roofline:
    memory_efficiency: _Efficiency
    compute_efficiency: _Efficiency
    step_overhead_s: Annotated[float, Range(at_least=0, at_most=1)]
    memory_used_fraction: Annotated[float, Range(at_least=0.1, at_most=1)]
    spot_notice_s: Annotated[float, Range(at_least=0, at_most=3_600)]


@dataclass(frozen=True, slots=True)
class _Model:
    source: str
    parameters: Annotated[int, Range(at_least=1_000, at_most=10**13)]
    layers: _Count
    heads: _Count
    kv_heads: _Count
    head_dim: Annotated[int, Range(at_least=1, at_most=4_096)]
    bytes_per_weight: _Bytes
    bytes_per_kv_element: _Bytes

    def __post_init__(self) -> None:
        _require_words(source=self.source)

    def named(self, name: str) -> ModelSize:
        sizes = (self.parameters, self.layers, self.heads, self.kv_heads, self.head_dim)
        return ModelSize(name, *sizes, self.bytes_per_weight, self.bytes_per_kv_element)


@dataclass(frozen=True, slots=True)
class _Measured:
    source: str
    step_time: str  # a file that `bench steps` wrote, looked for beside the price list first
    kv_blocks: Annotated[int, Range(at_least=1, at_most=10**9)]

    def __post_init__(self) -> None:
        _require_words(source=self.source)


@dataclass(frozen=True, slots=True)
class _Hardware:
    memory_gb: Annotated[float, Range(at_least=0.1, at_most=10_000)]
    memory_bandwidth_gb_per_s: Annotated[float, Range(at_least=0.1, at_most=100_000)]
    dense_fp16_tflops: Annotated[float, Range(at_least=0.0001, at_most=100_000)]
    specs_source: str
    usd_per_hour: _Usd
    spot_usd_per_hour: _Usd
    price_source: str
    price_date: str
    spot_interruptions_per_hour: Annotated[float, Range(at_least=0, at_most=60)]
    spot_source: str
    provision_s: _Seconds
    weights_gb_per_s: Annotated[float, Range(at_least=0.0001, at_most=1_000)]
    warm_up_s: _Seconds
    cold_start_source: str
    max_running: Annotated[int, Range(at_least=1, at_most=10_000)]
    max_batch_tokens: Annotated[int, Range(at_least=1, at_most=1_000_000)]
    memory_efficiency: _Efficiency | None = None  # instead of the roofline's
    compute_efficiency: _Efficiency | None = None
    measured: Mapping[str, _Measured] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_words(
            specs_source=self.specs_source,
            price_source=self.price_source,
            price_date=self.price_date,
            spot_source=self.spot_source,
            cold_start_source=self.cold_start_source,
        )
        if self.spot_usd_per_hour > self.usd_per_hour:
            raise ValueError(
                f"spot_usd_per_hour ({self.spot_usd_per_hour:g}) must be at most usd_per_hour ({self.usd_per_hour:g})"
            )
        if self.max_batch_tokens < self.max_running:
            raise ValueError(
                f"max_batch_tokens ({self.max_batch_tokens}) must be at least max_running ({self.max_running})"
            )

    def named(self, name: str, roofline: _Roofline, measured: Mapping[str, Measured]) -> Hardware:
        memory_efficiency = self.memory_efficiency or roofline.memory_efficiency
        compute_efficiency = self.compute_efficiency or roofline.compute_efficiency
        return Hardware(
            name,
            memory_bytes=self.memory_gb * 1e9,
            memory_bytes_per_s=self.memory_bandwidth_gb_per_s * 1e9 * memory_efficiency,
            operations_per_s=self.dense_fp16_tflops * 1e12 * compute_efficiency,
            usd_per_hour=self.usd_per_hour,
            spot_usd_per_hour=self.spot_usd_per_hour,
            spot_interruptions_per_hour=self.spot_interruptions_per_hour,
            provision_s=self.provision_s,
            weights_bytes_per_s=self.weights_gb_per_s * 1e9,
            warm_up_s=self.warm_up_s,
            step_overhead_s=roofline.step_overhead_s,
            memory_used_fraction=roofline.memory_used_fraction,
            spot_notice_s=roofline.spot_notice_s,
            scheduler=SchedulerConfig(self.max_running, self.max_batch_tokens),
            measured=measured,
        )


@dataclass(frozen=True, slots=True)
class _File:
    roofline: _Roofline
    model: Mapping[str, _Model]
    hardware: Mapping[str, _Hardware]


def load_price_list(path: Path = PRICE_LIST) -> PriceList:
    """Read and check a price list.

    Raises: SetupError naming the file, the line, the key, the value, and what is allowed.
    """
    if not path.exists():
        raise SetupError(f"{path} does not exist: see data/hardware.toml")
    source = read_source_file(path)
    file: _File = Reader(source).read(_File, source.values)
    hardware = {
        name: table.named(
            name, file.roofline, {model: _measured(file, source, name, model) for model in table.measured}
        )
        for name, table in file.hardware.items()
    }
    return PriceList(path, hardware, {name: table.named(name) for name, table in file.model.items()})


def _measured(file: _File, source: TomlSource, hardware: str, model: str) -> Measured:
    place: Place = ("hardware", hardware, "measured", model)
    check_name(model, file.model, source, place)
    table = file.hardware[hardware].measured[model]
    beside = Path(source.name).parent / table.step_time
    try:
        step_time = load_step_time(beside if beside.exists() else PRICE_LIST.parent / table.step_time)
    except SetupError as error:
        raise source.error((*place, "step_time"), str(error)) from None
    notes = {"hardware": hardware, "model": model, "how": "measured", "source": table.source}
    return Measured(replace(step_time, fitted_on=step_time.fitted_on | notes), table.kv_blocks)
