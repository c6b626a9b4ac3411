"""The names that a scenario may use: which word makes which part.

`KINDS` maps a role to its names; `makers` says, for types whose fields are not what a person would write, which
function to call instead. Adding a policy to its own register (`BALANCERS`, `RETRIES`, ...) is enough to use it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from miniserve.config import SchedulerConfig
from miniserve.control.autoscaler import Autoscaler, Combined, QueueBased, Reactive, Scheduled, TargetTracking
from miniserve.control.forecast import FORECASTS, Forecast
from miniserve.control.predictive import Predictive
from miniserve.engine.step_time import StepTimeModel
from miniserve.errors import SetupError
from miniserve.plugins.load import load_class
from miniserve.policies.admission.admission import Admission, AdmitAll, DeadlineCheck, PriorityShedding
from miniserve.policies.admission.concurrency import ConcurrencyLimit, FixedLimit, Gradient2, Limit
from miniserve.policies.admission.quota import QuotaAdmission
from miniserve.policies.recovery.breaker import Breaker
from miniserve.policies.recovery.ejection import Ejector
from miniserve.policies.recovery.progress import ProgressWatch
from miniserve.policies.recovery.retry import RETRIES, RetryPolicy
from miniserve.policies.recovery.retry_budget import BUDGETS, Budget
from miniserve.policies.recovery.waits import JITTERS, Jitter
from miniserve.policies.routing.balancer import BALANCERS, Balancer
from miniserve.policies.routing.router import ROUTERS, Router
from miniserve.toml.reader import Count, Fraction, Loader, NotNegative, Positive
from miniserve.types import Priority
from miniserve.workload import Arrivals, Bursts, Constant, Conversations, Geometric, Lengths, Mix, Poisson, Quantiles
from miniserve.workload.calibrated import HeavyClients, code, conversation
from miniserve.workload.curves import Noisy, Spikes, Waves, diurnal, ramp
from miniserve.workload.lengths import CODE_OUTPUT, CODE_PROMPT, CONVERSATION_OUTPUT, CONVERSATION_PROMPT
from miniserve.workload.rates import Piecewise, Varying
from miniserve.workload.replay import RecordedTrace
from miniserve.workload.requests import Workload
from miniserve.workload.traces import FORMATS


def _published(curve: Quantiles) -> Callable[..., Quantiles]:
    def scaled(scale: Positive = 1.0) -> Quantiles:
        return replace(curve, scale=scale)

    return scaled


def _off() -> None:
    return None


CURVES: Mapping[str, Any] = {
    "poisson": Poisson,
    "bursts": Bursts,
    "piecewise": Piecewise,
    "ramp": ramp,
    "diurnal": diurnal,
    "waves": Waves,
    "noisy": Noisy,
    "spikes": Spikes,
    "conversation": conversation,
    "code": code,
}

KINDS: Mapping[Any, Mapping[str, Any]] = {
    Arrivals: CURVES,
    Varying: CURVES,
    Lengths: {
        "constant": Constant,
        "geometric": Geometric,
        "quantiles": Quantiles,
        "conversation-prompt": _published(CONVERSATION_PROMPT),
        "conversation-output": _published(CONVERSATION_OUTPUT),
        "code-prompt": _published(CODE_PROMPT),
        "code-output": _published(CODE_OUTPUT),
    },
    Balancer: BALANCERS,
    Router: ROUTERS,
    RetryPolicy: RETRIES,
    Budget: {**BUDGETS, "off": _off},
    Jitter: JITTERS,
    Breaker: {"breaker": Breaker, "off": _off},
    Ejector: {"ejector": Ejector, "off": _off},
    ProgressWatch: {"progress": ProgressWatch, "off": _off},
    Admission: {
        "all": AdmitAll,
        "shed": PriorityShedding,
        "deadline": DeadlineCheck,
        "concurrency": ConcurrencyLimit,
        "quota": QuotaAdmission,
    },
    Limit: {"fixed": FixedLimit, "gradient": Gradient2},
    Autoscaler: {
        "reactive": Reactive,
        "target-tracking": TargetTracking,
        "queue": QueueBased,
        "scheduled": Scheduled,
        "predictive": Predictive,
        "combined": Combined,
    },
    Forecast: FORECASTS,
}


def loaders(*folders: Path) -> dict[Any, Loader]:
    """Return how a user's own class is found for each role; relative files are looked for in `folders` first."""

    def loader(role: Any) -> Loader:
        def load(name: str) -> Callable[..., Any]:
            file = name.rpartition(":")[0]
            return load_class(name, role, next((each for each in folders if (each / file).is_file()), folders[0]))

        return load

    return {role: loader(role) for role in (Balancer, Router, RetryPolicy, Budget, Admission, Autoscaler)}


def make_workload(
    arrivals: Arrivals | None = None,
    prompt: Lengths | None = None,
    output: Lengths | None = None,
    conversations: Conversations | None = None,
    tenants: Mapping[str, NotNegative] | None = None,
    priorities: Mapping[Priority, NotNegative] | None = None,
    regions: Mapping[str, NotNegative] | None = None,
    deadline_after_s: Positive | None = None,
    model: str = "model",
    features: Mapping[str, NotNegative] | None = None,
    heavy_clients: HeavyClients | None = None,
    trace: RecordedTrace | None = None,
) -> Workload:
    """Return the workload of a `[workload]` table. A `trace` says when and how long; the rest can be added to it."""
    drawn = {"arrivals": arrivals, "prompt": prompt, "output": output, "conversations": conversations}
    for key, value in drawn.items():
        if trace is not None and value is not None:
            raise SetupError(f"{key} comes from the trace: write either it or `trace`")
    when = arrivals or trace
    if when is None:
        raise SetupError(f"`arrivals` is missing; it must be one of {', '.join(CURVES)}, or say `trace`")
    if tenants is not None and heavy_clients is not None:
        raise SetupError("heavy_clients are tenants: write either them or `tenants`")
    return Workload(
        when,
        prompt or CONVERSATION_PROMPT,
        output or CONVERSATION_OUTPUT,
        conversations,
        Mix(tenants or {"": 1.0}) if heavy_clients is None else heavy_clients.mix(),
        Mix(priorities or {Priority.STANDARD: 1.0}),
        Mix(cast(Mapping[str | None, float], regions or {None: 1.0})),
        deadline_after_s,
        model,
        Mix(features or {"": 1.0}),
    )


def make_step_time(
    base_s: NotNegative,
    per_decode_row_s: NotNegative = 0.0,
    per_prefill_token_s: NotNegative = 0.0,
    per_context_token_s: NotNegative = 0.0,
    per_prefill_pair_s: NotNegative = 0.0,
) -> StepTimeModel:
    """Return the step-time model of a `step_time` table."""
    return StepTimeModel(base_s, per_decode_row_s, per_prefill_token_s, per_context_token_s, per_prefill_pair_s)


_SCHEDULER = SchedulerConfig()


def make_scheduler(
    max_running: Count = _SCHEDULER.max_running,
    max_batch_tokens: Count = _SCHEDULER.max_batch_tokens,
    watermark_fraction: Fraction = _SCHEDULER.watermark_fraction,
    aging_s: NotNegative = _SCHEDULER.aging_s,
    turn_tokens: Count | Literal["off"] | None = _SCHEDULER.turn_tokens,
    max_output_tokens: tuple[Count, Count, Count] = _SCHEDULER.max_output_tokens,
    max_waiting: int = _SCHEDULER.max_waiting,
) -> SchedulerConfig:
    """Return the scheduler of an `[engine.scheduler]` table. `turn_tokens` may be "off": a file has no None."""
    return SchedulerConfig(
        max_running,
        max_batch_tokens,
        watermark_fraction,
        aging_s,
        None if turn_tokens == "off" else turn_tokens,
        max_output_tokens,
        max_waiting,
    )


def makers(folder: Path) -> dict[Any, Callable[..., Any]]:
    """Return what to call for types whose keys are not their fields; a trace is looked for in `folder` first."""

    def make_trace(file: str, format: str, speed: Positive = 1.0) -> RecordedTrace:
        if format not in FORMATS:
            raise SetupError(f"format: there is no {format!r}; allowed: {', '.join(FORMATS)}")
        nearby = folder / file
        return RecordedTrace.open(nearby if nearby.exists() else Path(file), format, speed)

    return {
        Workload: make_workload,
        StepTimeModel: make_step_time,
        SchedulerConfig: make_scheduler,
        RecordedTrace: make_trace,
    }
