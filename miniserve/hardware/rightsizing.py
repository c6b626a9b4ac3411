"""Which machine, and how many? The cheapest fleet that serves a workload within its latency objectives.

A replica that always has b sequences running makes b tokens per step and must prefill b/m new prompts per step (m: the
mean answer). A step then takes, on average,

    T(b) = base + b * k,    k = row + context * mean context + (prompt * per token + pairs * per pair) / m

and it finishes b / (m * T(b)) requests per second, which grows with b. The objectives bound b: the time between tokens
is T(b); the time to the first one is half a step of waiting, then the prompt's own chunks beside the other rows. Slots
and KV blocks bound it too. The largest b that all of them allow gives a replica's capacity, and the rate over
that gives the number of replicas. Everything grows one way: more load never needs fewer.

Averages only: `headroom_fraction` of that capacity is kept for bursts and for the ups and downs of a random load. What
this leaves out (percentiles, balancing, failures) is what the simulator is for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from miniserve.config import SchedulerConfig
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import SetupError
from miniserve.hardware.prices import Hardware, ModelSize

HEADROOM_FRACTION = 0.3  # utilisation 0.7: an M/M/1 queue then holds 2.3 on average, at 0.9 it holds 9


@dataclass(frozen=True, slots=True)
class MeanLoad:
    """Mean lengths and rate; `cached_fraction` of the prompt tokens need no prefill."""

    requests_per_s: float
    prompt_tokens: float
    output_tokens: float
    cached_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not self.requests_per_s > 0 or not self.prompt_tokens >= 1 or not self.output_tokens >= 1:
            raise SetupError(
                f"requests_per_s ({self.requests_per_s}) must be positive, prompt_tokens ({self.prompt_tokens}) and "
                f"output_tokens ({self.output_tokens}) at least 1"
            )
        if not 0 <= self.cached_fraction < 1:
            raise SetupError(f"cached_fraction is {self.cached_fraction}; from 0 to below 1 is needed")


@dataclass(frozen=True, slots=True)
class SpeedTarget:
    """Mean time to first token, and mean time between tokens, that must be kept."""

    ttft_s: float = math.inf
    tpot_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Advice:
    """A fleet of one hardware type. `limited_by` names what keeps a replica from taking more."""

    hardware: str
    replicas: int
    requests_per_s_each: float  # what one replica can take, headroom left
    limited_by: str
    ttft_s: float  # at that load
    tpot_s: float
    usd_per_hour: float
    usd_per_million_tokens: float  # generated tokens


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a hardware type cannot do it, with any number of replicas."""

    hardware: str
    why: str


@dataclass(frozen=True, slots=True)
class _Cost:
    """A workload on a machine: T(b) = base + b * step_per_row; the first token after fixed + b * per row."""

    base_s: float
    step_per_row_s: float
    first_fixed_s: float
    first_per_row_s: float

    def tpot_s(self, rows: float) -> float:
        return self.base_s + rows * self.step_per_row_s

    def ttft_s(self, rows: float) -> float:
        return self.first_fixed_s + rows * self.first_per_row_s


def seconds_per_request(step_time: StepTimeModel, workload: MeanLoad, rows: float) -> float:
    """Return how long a replica with `rows` sequences always running is busy per request."""
    cost = _cost(step_time, workload, chunk_tokens=math.inf)
    return workload.output_tokens * cost.tpot_s(rows) / rows


def _cost(step_time: StepTimeModel, workload: MeanLoad, chunk_tokens: float) -> _Cost:
    prompt, cached = workload.prompt_tokens, workload.prompt_tokens * workload.cached_fraction
    new = prompt - cached
    prefill_s = new * step_time.per_prefill_token_s + new * (cached + new / 2) * step_time.per_prefill_pair_s
    context = prompt + workload.output_tokens / 2
    decode_s = step_time.per_decode_row_s + context * step_time.per_context_token_s
    per_row_s = decode_s + prefill_s / workload.output_tokens
    chunks = math.ceil(new / chunk_tokens)
    return _Cost(
        base_s=step_time.base_s,
        step_per_row_s=per_row_s,
        first_fixed_s=(chunks + 0.5) * step_time.base_s + prefill_s,
        first_per_row_s=chunks * decode_s + 0.5 * per_row_s,
    )


def advise(
    hardware: Hardware,
    model: ModelSize,
    workload: MeanLoad,
    objective: SpeedTarget,
    *,
    scheduler: SchedulerConfig | None = None,
    spot: bool = False,
    spare_replicas: int = 0,
    headroom_fraction: float = HEADROOM_FRACTION,
) -> Advice | Unfit:
    """Return how many of one hardware type serve `workload`, and what that costs."""
    scheduler = scheduler or hardware.scheduler
    try:
        blocks = hardware.kv_blocks(model)
    except SetupError as error:
        return Unfit(hardware.name, str(error))
    cost = _cost(hardware.step_time(model), workload, scheduler.max_batch_tokens)
    room = blocks * 16 / (workload.prompt_tokens + workload.output_tokens)
    bounds = {
        "time to first token": _rows(objective.ttft_s - cost.first_fixed_s, cost.first_per_row_s),
        "time between tokens": _rows(objective.tpot_s - cost.base_s, cost.step_per_row_s),
        "KV blocks": room,
        "slots": float(scheduler.max_running),
    }
    limit = min(bounds, key=lambda name: bounds[name])
    rows = bounds[limit]
    if rows < 1.0:
        return Unfit(hardware.name, f"even one request alone breaks the limit: {limit}")
    each = (1 - headroom_fraction) * rows / (workload.output_tokens * cost.tpot_s(rows))
    replicas = math.ceil(workload.requests_per_s / each) + spare_replicas
    usd_per_hour = replicas * hardware.price_usd_per_hour(spot)
    tokens_per_hour = workload.requests_per_s * workload.output_tokens * 3600
    return Advice(
        hardware.name,
        replicas,
        each,
        limit,
        cost.ttft_s(rows),
        cost.tpot_s(rows),
        usd_per_hour,
        usd_per_hour / tokens_per_hour * 1e6,
    )


def _rows(seconds: float, per_row_s: float) -> float:
    """Return how many rows fit into `seconds`; infinitely many where rows are free."""
    if per_row_s == 0:
        return math.inf if seconds >= 0 else 0.0
    return seconds / per_row_s


def cheapest(
    hardware: Iterable[Hardware], model: ModelSize, workload: MeanLoad, objective: SpeedTarget, *, spot: bool = False
) -> tuple[Advice | None, tuple[Advice | Unfit, ...]]:
    """Return the cheapest fleet that does it (the fewest replicas where two cost the same), and every answer."""
    answers = tuple(advise(machine, model, workload, objective, spot=spot) for machine in hardware)
    fit = [answer for answer in answers if isinstance(answer, Advice)]
    best = min(fit, key=lambda advice: (advice.usd_per_hour, advice.replicas, advice.hardware), default=None)
    return best, answers
