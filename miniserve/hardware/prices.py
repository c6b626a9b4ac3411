"""One price list: what machines exist, what they cost, how fast they are, and how long they take to come up.

`data/hardware.toml` holds the figures, each with its source; this module checks them and derives the rest. For the CPU
machine the step times are measured. For accelerators they follow from a roofline: a step reads all weights and each
row's keys and values once, and computes two operations per weight and token,

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miniserve.config import SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import SetupError
from miniserve.figures import Range, Table, read_table, unknown
from miniserve.seeds import uniform

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
            raise SetupError(unknown(f"{self.path}: hardware", name, self.hardware))
        return self.hardware[name]

    def model(self, name: str) -> ModelSize:
        """Raises: SetupError naming what there is."""
        if name not in self.models:
            raise SetupError(unknown(f"{self.path}: model", name, self.models))
        return self.models[name]


# --- reading and checking ------------------------------------------------------------------------------------------

_ROOFLINE: dict[str, Range] = {
    "memory_efficiency": (0.01, 1.0),
    "compute_efficiency": (0.01, 1.0),
    "step_overhead_s": (0.0, 1.0),
    "memory_used_fraction": (0.1, 1.0),
    "spot_notice_s": (0.0, 3600.0),
}
_MODEL: dict[str, Range] = {
    "parameters": (1_000, 10**13),
    "layers": (1, 1000),
    "heads": (1, 1000),
    "kv_heads": (1, 1000),
    "head_dim": (1, 4096),
    "bytes_per_weight": (0.25, 8.0),
    "bytes_per_kv_element": (0.25, 8.0),
}
_HARDWARE: dict[str, Range] = {
    "memory_gb": (0.1, 10_000.0),
    "memory_bandwidth_gb_per_s": (0.1, 100_000.0),
    "dense_fp16_tflops": (0.0001, 100_000.0),
    "usd_per_hour": (0.0, 1_000.0),
    "spot_usd_per_hour": (0.0, 1_000.0),
    "spot_interruptions_per_hour": (0.0, 60.0),
    "provision_s": (0.0, 7200.0),
    "weights_gb_per_s": (0.0001, 1_000.0),
    "warm_up_s": (0.0, 7200.0),
    "max_running": (1, 10_000),
    "max_batch_tokens": (1, 1_000_000),
}
_MEASURED: dict[str, Range] = {
    "base_s": (0.0, 60.0),
    "per_decode_row_s": (0.0, 10.0),
    "per_prefill_token_s": (0.0, 10.0),
    "per_context_token_s": (0.0, 1.0),
    "per_prefill_pair_s": (0.0, 1.0),
    "kv_blocks": (1, 10**9),
}
_HARDWARE_SOURCES = ("specs_source", "price_source", "price_date", "spot_source", "cold_start_source")


def load_price_list(path: Path = PRICE_LIST) -> PriceList:
    """Read and check a price list.

    Raises: SetupError naming the file, the key, the value, and what is allowed.
    """
    top = read_table(path, "data/hardware.toml")
    top.check_keys({"roofline", "model", "hardware"})
    roofline = top.table("roofline").numbers(_ROOFLINE)
    models = {name: _model(name, table) for name, table in top.table("model").tables()}
    hardware = {name: _hardware(name, table, roofline, models) for name, table in top.table("hardware").tables()}
    return PriceList(path, hardware, models)


def _model(name: str, table: Table) -> ModelSize:
    figures = table.numbers(_MODEL, sources=("source",))
    return ModelSize(
        name,
        int(figures["parameters"]),
        int(figures["layers"]),
        int(figures["heads"]),
        int(figures["kv_heads"]),
        int(figures["head_dim"]),
        figures["bytes_per_weight"],
        figures["bytes_per_kv_element"],
    )


def _hardware(name: str, table: Table, roofline: dict[str, float], models: Mapping[str, ModelSize]) -> Hardware:
    optional = {key: _ROOFLINE[key] for key in ("memory_efficiency", "compute_efficiency")}
    figures = table.numbers(_HARDWARE, optional, _HARDWARE_SOURCES, tables=("measured",))
    for key, other, sense in (("spot_usd_per_hour", "usd_per_hour", 1), ("max_batch_tokens", "max_running", -1)):
        if sense * figures[key] > sense * figures[other]:
            table.refuse(key, table[key], f"{'at most' if sense > 0 else 'at least'} {other}, {table[other]}")
    assumed = {**roofline, **figures}
    measured = dict(table.table("measured").tables()) if "measured" in table.raw else {}
    for model in measured:
        if model not in models:
            raise SetupError(unknown(f"{table.path}: {table.where}measured, model", model, models))
    return Hardware(
        name,
        memory_bytes=figures["memory_gb"] * 1e9,
        memory_bytes_per_s=figures["memory_bandwidth_gb_per_s"] * 1e9 * assumed["memory_efficiency"],
        operations_per_s=figures["dense_fp16_tflops"] * 1e12 * assumed["compute_efficiency"],
        usd_per_hour=figures["usd_per_hour"],
        spot_usd_per_hour=figures["spot_usd_per_hour"],
        spot_interruptions_per_hour=figures["spot_interruptions_per_hour"],
        provision_s=figures["provision_s"],
        weights_bytes_per_s=figures["weights_gb_per_s"] * 1e9,
        warm_up_s=figures["warm_up_s"],
        step_overhead_s=roofline["step_overhead_s"],
        memory_used_fraction=roofline["memory_used_fraction"],
        spot_notice_s=roofline["spot_notice_s"],
        scheduler=SchedulerConfig(int(figures["max_running"]), int(figures["max_batch_tokens"])),
        measured={model: _measured(name, model, sub) for model, sub in measured.items()},
    )


def _measured(hardware: str, model: str, table: Table) -> Measured:
    figures = table.numbers(_MEASURED, sources=("source",))
    blocks = int(figures.pop("kv_blocks"))
    notes = {"hardware": hardware, "model": model, "how": "measured", "source": table["source"]}
    coefficients: dict[str, Any] = {**figures, "fitted_on": notes}
    return Measured(StepTimeModel(**coefficients), blocks)
