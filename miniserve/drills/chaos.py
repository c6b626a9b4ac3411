"""A scenario's demand on a running stack, with the scenario's faults carried out on it.

    reference (no faults) ──> demand at its own times ──┬──> verdict
                              faults at theirs ─────────┘

Every prompt is one of a few, asked once beforehand, so that each answer's tokens are known. Requests leave at their
intended times, as in `clients.load`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx

from miniserve.clients.load import prompt_text
from miniserve.drills.hops import Hops
from miniserve.drills.injector import Injector
from miniserve.drills.verdict import DrillVerdict, Tally, Tokens, ask_greedily
from miniserve.errors import SetupError
from miniserve.faults import AttemptFault, KeyedFaults, ReplicaEvent
from miniserve.processes.stack import Stack
from miniserve.scenario import Scenario
from miniserve.types import Request

MOST_REPLICAS_LIVE = 4  # processes that one machine is asked to run
MOST_ANSWERS = 5_000
PROMPTS = 8
MOST_WORDS = 60  # of a prompt: the smallest model's context has to hold it several times over
MOST_OUTPUT_TOKENS = 200
PATIENCE_S = 60.0  # a stream that is silent for so long is an error

OnNews = Callable[[float, str], None]  # told the time since the start, and what happened
OnAnswered = Callable[[int], None]  # told how many requests have their answer


@dataclass(frozen=True)
class ChaosPlan:
    """A scenario as it is run live: `names` are its replicas, in the order of the stack's r0, r1, ..."""

    names: tuple[str, ...]
    requests: tuple[Request, ...]
    faults: KeyedFaults

    @classmethod
    def of(cls, scenario: Scenario, seed: int) -> ChaosPlan:
        """Raises: SetupError for a scenario that names no replica, too many of them, or no fault."""
        if scenario.fleet is None or not scenario.fleet.replica_ids:
            raise SetupError("the scenario has no [fleet], so it names no replica that a fault could meet")
        names = scenario.fleet.replica_ids
        if len(names) > MOST_REPLICAS_LIVE:
            raise SetupError(
                f"the scenario has {len(names)} replicas, and at most {MOST_REPLICAS_LIVE} are run as real processes; "
                f'use --set \'fleet.replicas=[{{name="r", count=3, hardware="cpu-2core"}}]\''
            )
        faults = scenario.faults.plan(seed, names)
        if not (faults.events or faults.error_fraction or faults.cut_fraction or faults.poison_fraction):
            raise SetupError("the scenario has no [faults]: there is nothing to carry out")
        count = min(scenario.run.requests or MOST_ANSWERS, MOST_ANSWERS)
        demand = scenario.workload.requests(seed, count=count, duration_s=scenario.run.duration_s)
        return cls(names, tuple(map(_shortened, demand)), faults)

    def line(self) -> str:
        """Say what is going to happen, for people."""
        events = [f"{one.kind} of {one.replica_id} at {one.at_s:g} s" for one in self.faults.replica_events()]
        return f"{len(self.requests)} requests to {', '.join(self.names)}; {', '.join(events) or 'no events'}"

    def prompt(self, index: int) -> str:
        """Return the prompt of request `index`: one of the first few requests' own."""
        return prompt_text(self.requests[index % min(PROMPTS, len(self.requests))].prompt_ids)


def _shortened(request: Request) -> Request:
    sampling = replace(request.sampling, max_tokens=min(request.sampling.max_tokens, MOST_OUTPUT_TOKENS))
    return replace(request, prompt_ids=request.prompt_ids[:MOST_WORDS], sampling=sampling)


class ChaosRun:
    """One run on one stack. `run` returns the verdict."""

    def __init__(self, stack: Stack, plan: ChaosPlan, model: str, on_news: OnNews, on_answered: OnAnswered) -> None:
        self._stack = stack
        self._plan = plan
        self._model = model
        self._on_news = on_news
        self._on_answered = on_answered
        self._ids = [child.replica_id for child in stack.supervisor.children]
        self._name = dict(zip(self._ids, plan.names, strict=True))
        self._resumed = self._faults = self._untold = 0
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()

    async def run(self) -> DrillVerdict:
        """Ask for the reference, then let demand and faults loose; return when every request has its answer."""
        timeout, limits = httpx.Timeout(PATIENCE_S, pool=None), httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(base_url=self._stack.url, timeout=timeout, limits=limits, trust_env=False) as client,
            Hops(self._stack.gateway.fleet, self._fate, self._is_back) as hops,
        ):
            tally = Tally(await self._reference(client))
            self._started_at = self._loop.time()
            injector = Injector(self._stack.supervisor, hops, self._happened)
            faults = [asyncio.create_task(self._suffer(injector, event)) for event in self._events()]
            try:
                async with asyncio.TaskGroup() as group:
                    for index, request in enumerate(self._plan.requests):
                        group.create_task(self._ask(client, tally, index, request))
            finally:
                for fault in faults:
                    fault.cancel()
                await asyncio.gather(*faults, return_exceptions=True)
        return tally.verdict(self._resumed, self._faults)

    def _events(self) -> list[ReplicaEvent]:
        ids = dict(zip(self._plan.names, self._ids, strict=True))
        return [replace(event, replica_id=ids[event.replica_id]) for event in self._plan.faults.replica_events()]

    async def _reference(self, client: httpx.AsyncClient) -> dict[str, Tokens]:
        """Return what each prompt's longest answer is while nothing goes wrong. Raises: SetupError if it has none."""
        prompts = sorted({self._plan.prompt(index) for index in range(len(self._plan.requests))})
        longest = max(request.sampling.max_tokens for request in self._plan.requests)
        self._started_at = float("inf")  # faults of single attempts wait, too
        answers = await asyncio.gather(*(ask_greedily(client, self._model, prompt, longest) for prompt in prompts))
        for answer in answers:
            if answer.error is not None or len(answer.tokens) != longest:
                raise SetupError(f"without any fault the stack does not answer in full: {answer.error or 'cut short'}")
        return {prompt: tuple(answer.tokens) for prompt, answer in zip(prompts, answers, strict=True)}

    async def _ask(self, client: httpx.AsyncClient, tally: Tally, index: int, request: Request) -> None:
        await asyncio.sleep(max(0.0, self._started_at + request.arrived_s - self._loop.time()))
        prompt, max_tokens = self._plan.prompt(index), request.sampling.max_tokens
        seen = await ask_greedily(client, self._model, prompt, max_tokens)
        any_ready = self._stack.gateway.fleet.any_ready()
        tally.add(prompt, max_tokens, seen, any_ready=any_ready)
        if seen.error is not None:
            self._tell(f"a client was told: {seen.error[:200]}")
        self._on_answered(tally.requests)

    # --- faults ----------------------------------------------------------------------------------------------------

    async def _suffer(self, injector: Injector, event: ReplicaEvent) -> None:
        await asyncio.sleep(max(0.0, self._started_at + event.at_s - self._loop.time()))
        self._faults += 1
        await injector.carry_out(event)

    def _fate(self, replica_id: str, body: dict[str, Any]) -> AttemptFault | None:
        """Count what goes on elsewhere; say what the plan has for this attempt."""
        if self._loop.time() < self._started_at:
            return None
        if body["resume_ids"]:
            self._resumed += 1
            self._untold += 1
            if self._untold == 1:
                self._loop.call_later(1.0, self._tell_of_resumed)
        request_id, _, attempt = body["request_id"].partition(".")
        faults, name = self._plan.faults, self._name[replica_id]
        fault = faults.request_fault(request_id) or faults.attempt_fault(name, request_id, int(attempt or 0))
        self._faults += fault is not None
        return fault

    def _tell_of_resumed(self) -> None:
        streams, self._untold = self._untold, 0
        self._tell(f"{streams} {'stream' if streams == 1 else 'streams'} went on elsewhere")

    def _happened(self, event: ReplicaEvent, what: str) -> None:
        here = {view.replica_id: view.outstanding for view in self._stack.gateway.fleet.view().replicas}
        self._tell(f"{self._name[event.replica_id]} {what}; {here.get(event.replica_id, 0)} requests were there")

    def _is_back(self, replica_id: str) -> None:
        self._tell(f"{self._name[replica_id]} is back")

    def _tell(self, what: str) -> None:
        self._on_news(self._loop.time() - self._started_at, what)
