"""One replica's engine: three verbs, `add`, `abort`, `step`.

    add(request) --> scheduler.schedule --> runner.execute --> scheduler.commit --> token events
                         ^ one step: every running sequence gets one token, or a chunk of its prompt done |

Not thread-safe and never waiting: one thread owns it and calls `step` while `has_work` (`replica/local.py`). It speaks
token ids only; text, and so stop strings, belong to whoever talks to the client (`text.Detokenizer`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from miniserve.clock import monotonic
from miniserve.config import EngineConfig
from miniserve.engine.batch import Batch, Work
from miniserve.engine.block_manager import BlockManager
from miniserve.engine.model import load_model
from miniserve.engine.runner import ModelRunner, use_threads
from miniserve.engine.sampler import Sampled
from miniserve.engine.scheduler import Counters, Scheduler
from miniserve.engine.sequence import Sequence
from miniserve.engine.stats import EngineStats, snapshot
from miniserve.errors import InvalidRequest, SetupError
from miniserve.models.model_config import read_config
from miniserve.types import Clock, FinishReason, Request, SamplingParams, TokenEvent

log = logging.getLogger(__name__)


class Runner(Protocol):
    """What computes a step: `ModelRunner`, or one of a test's own."""

    def execute(self, batch: Batch) -> Iterable[Sampled | None]:
        """Return one token for each work that samples; None where none can be chosen."""
        ...


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step, as a chapter would plot it."""

    start_s: float
    seconds: float
    decode_rows: int
    prefill_tokens: int
    new_tokens: int  # sampled: one per decoding row, and one per prompt that was completed
    context_tokens: int  # cached tokens that the decode rows attend to
    prefill_pairs: int  # (query, key) pairs that the prefill chunks attend over
    running: int
    waiting: int
    blocks_used: int
    preemptions: int  # in this step
    yields: int
    recomputed_tokens: int


class Engine:
    """Continuous batching around a runner. Invariants are the scheduler's and the block manager's."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        clock: Clock = monotonic,
        on_step: Callable[[StepRecord], None] | None = None,
        vocab_size: int | None = None,
    ) -> None:
        self.runner = runner
        self.scheduler = scheduler
        self.clock = clock
        self.on_step = on_step
        self.vocab_size = vocab_size
        self.busy_s = 0.0  # spent in steps
        self.steps: deque[StepRecord] = deque(maxlen=512)  # the latest; `on_step` sees them all

    @property
    def max_model_len(self) -> int:
        return self.scheduler.max_model_len

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add(self, request: Request) -> Sequence:
        """Queue a request; its tokens come out of `step`.

        Raises: InvalidRequest if it cannot fit or has a token that the model lacks, Overloaded if the queue is full.
        """
        ids = (*request.prompt_ids, *request.resume_ids)
        if self.vocab_size is not None and not 0 <= min(ids, default=0) <= max(ids, default=0) < self.vocab_size:
            raise InvalidRequest(f"a token id is not in the model's vocabulary (0 to {self.vocab_size - 1})")
        seq = Sequence(request, self.clock())
        self.scheduler.add(seq)
        return seq

    def abort(self, request_id: str) -> None:
        """Drop a request at any moment; its blocks are free on return. Unknown ids are ignored."""
        self.scheduler.abort(request_id)

    def step(self) -> list[TokenEvent]:
        """Run one step and return the new tokens, one event per sequence that got one.

        A sequence that cannot be computed ends with an event of its own; the others in the batch go on.
        Raises: what the runner raised, if it can compute nothing at all any more.
        """
        counters, start_s = self.scheduler.counters, self.clock()
        before = (counters.preemptions, counters.yields, counters.recomputed_tokens)
        batch = self.scheduler.schedule(start_s)
        if not batch:
            return []
        sampled, error = self._execute(batch)
        failed = [seq for seq, *_ in batch.works if sampled.get(seq.request_id, True) is None]
        for seq in failed:
            self.scheduler.abort(seq.request_id, FinishReason.ERROR)
        if error is not None and not self._can_compute():
            raise error
        tokens = [sampled[work.seq.request_id] for work in batch.works if work.samples]
        grown = self.scheduler.commit(batch, [0 if token is None else token.token_id for token in tokens])
        self._record(batch, start_s, before)
        events = [_event(seq, token) for seq in grown if (token := sampled[seq.request_id]) is not None]
        return events + [TokenEvent(seq.request_id, (), FinishReason.ERROR) for seq in failed]

    def _execute(self, batch: Batch) -> tuple[dict[str, Sampled | None], Exception | None]:
        """Compute a step: what each sampling work got, by request. None: this request failed, sampling or not.

        If the step as a whole raises, its works are computed one by one: they do not depend on each other, and only
        those that raise again are to blame. Where all of them do, it may be the engine: the error is returned as well.
        """
        try:
            return self._sampled(batch), None
        except Exception as error:
            sampled: dict[str, Sampled | None] = {}
            for work in batch.works:
                try:
                    sampled |= self._sampled(Batch((work,)))
                except Exception:
                    log.exception("request %s cannot be computed", work.seq.request_id)
                    sampled[work.seq.request_id] = None
            return sampled, error if list(sampled.values()).count(None) == len(batch.works) else None

    def _can_compute(self) -> bool:
        """Compute a token that nobody asked for: it tells a broken engine from requests that cannot be computed."""
        blocks = self.scheduler.blocks
        probe = Sequence(Request("self-test", "", (0,), SamplingParams(max_tokens=1)), self.clock())
        if blocks.num_free == 0:
            return True  # nowhere to compute it: the next failure has its blocks back
        blocks.admit(probe, [])
        try:
            return all(token is not None for token in self.runner.execute(Batch((Work(probe, 0, 1, True),))))
        except Exception:
            log.exception("the engine's self-test failed")
            return False
        finally:
            blocks.release(probe)

    def _sampled(self, batch: Batch) -> dict[str, Sampled | None]:
        ids = [work.seq.request_id for work in batch.works if work.samples]
        return dict(zip(ids, self.runner.execute(batch), strict=True))

    def _record(self, batch: Batch, start_s: float, before: tuple[int, int, int]) -> None:
        scheduler, counters = self.scheduler, self.scheduler.counters
        record = StepRecord(
            start_s=start_s,
            seconds=self.clock() - start_s,
            decode_rows=batch.decode_rows,
            prefill_tokens=batch.prefill_tokens,
            new_tokens=sum(1 for work in batch.works if work.samples),
            context_tokens=batch.context_tokens,
            prefill_pairs=batch.prefill_pairs,
            running=len(scheduler.running),
            waiting=scheduler.num_waiting,
            blocks_used=scheduler.blocks.num_used,
            preemptions=counters.preemptions - before[0],
            yields=counters.yields - before[1],
            recomputed_tokens=counters.recomputed_tokens - before[2],
        )
        self.steps.append(record)
        self.busy_s += record.seconds
        if self.on_step is not None:
            self.on_step(record)

    def stats(self) -> EngineStats:
        return snapshot(self.scheduler, self._recent_tokens_per_s(window_s=5.0), self.busy_s)

    def _recent_tokens_per_s(self, window_s: float) -> float:
        now_s = self.clock()
        recent = [step for step in list(self.steps) if step.start_s >= now_s - window_s]
        if not recent:
            return 0.0
        return sum(step.new_tokens for step in recent) / max(now_s - recent[0].start_s, 1e-9)

    def run(self, requests: Iterable[Request]) -> dict[str, list[int]]:
        """Add all `requests`, step until every one is finished, and return their output ids (for notebooks, tests)."""
        outputs: dict[str, list[int]] = {}
        for request in requests:
            outputs[self.add(request).request_id] = []
        while self.has_work:
            for event in self.step():
                outputs[event.request_id].extend(event.token_ids)
        return outputs

    def warm_up(self) -> None:
        """Compute one tiny request and forget it: whatever is slow only once is then over before anybody waits."""
        on_step, self.on_step = self.on_step, None
        try:
            self.run([Request("warm-up", "", (0, 0, 0, 0), SamplingParams(max_tokens=2, temperature=0.0))])
        finally:
            self.on_step, self.busy_s, self.scheduler.counters = on_step, 0.0, Counters()
            self.steps.clear()


def _event(seq: Sequence, sampled: Sampled) -> TokenEvent:
    return TokenEvent(
        seq.request_id,
        (sampled.token_id,),
        seq.finish_reason,
        (sampled.logprob,) if sampled.logprob else (),
        seq.cached_tokens,
    )


def best_device() -> str:
    """Return "cuda" where torch can use an NVIDIA GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_engine(
    folder: Path,
    *,
    quant: str = "fp16",
    config: EngineConfig = EngineConfig(),  # noqa: B008 -- frozen, so one shared default is safe
    clock: Clock = monotonic,
    device: str = "cpu",
    attention: str = "auto",
    margins: bool = False,
) -> Engine:
    """Load a model folder into an engine that computes with `config.threads` threads, whichever thread steps it.

    Raises: WeightsError for a folder that we cannot run, SetupError for settings that do not fit together or for a
        device that is not there.
    """
    _check_device(device)
    use_threads(config.threads)
    model_config = read_config(folder)
    pool_tokens = config.cache.num_blocks * config.cache.block_size
    max_model_len = min(config.max_model_len or model_config.max_position, model_config.max_position, pool_tokens)
    model = load_model(folder, quant, max_model_len, device, attention)
    runner = ModelRunner(model, config.cache, margins, config.threads)
    blocks = BlockManager(config.cache.num_blocks, config.cache.block_size, config.cache.prefix_caching)
    scheduler = Scheduler(config.scheduler, blocks, max_model_len, model_config.eos_ids)
    return Engine(runner, scheduler, clock, vocab_size=model_config.vocab_size)


def _check_device(device: str) -> None:
    if device != "cpu" and not (device.split(":")[0] == "cuda" and torch.cuda.is_available()):
        raise SetupError(
            f"device {device!r} cannot be used: torch finds no NVIDIA GPU; choose cpu, or auto to let us look"
        )
