"""Servers that run already behind the gateway, ours and of another make, and vLLM processes that we supervise."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from miniserve.clock import monotonic
from miniserve.errors import RequestError, SetupError
from miniserve.gateway.fleet import Fleet
from miniserve.gateway.openai_replica import OpenAIReplica, Speech
from miniserve.gateway.remote import RemoteReplica
from miniserve.models.store import read_config
from miniserve.models.tokenizer import Tokenizer
from miniserve.processes.vllm_child import PROGRAM

log = logging.getLogger(__name__)

SILENT_S = 3.0  # how long none of them may answer properly: wait for loading ones before you start the gateway
VLLM_START_S = 600.0  # it takes 75 to 105 s on two idle cores
LOADING_S = 60.0  # how long a first question may take, which may be the first that the server computes at all
_LOOK_AGAIN_S = 0.1
_REPORT_S = 5.0


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How vLLM is started here."""

    program: str
    arguments: tuple[str, ...] = ()  # further ones for `vllm serve`

    def command(self, name: str, folder: Path) -> list[str]:
        """Return the command line of one that the supervisor takes for a replica (see `vllm_child`)."""
        model = ["--bin", self.program, "--model", str(folder), "--served-name", name]
        return [sys.executable, "-m", PROGRAM, *model, "--", *self.arguments]


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """Where the backends are, and how they are to be asked."""

    urls: tuple[str, ...] = ()
    model: str = ""  # the model's name there, if it has another
    key: str = ""
    speech: Speech | None = None  # None: each is asked


class BackendMaker:
    """Makes a replica of a server's address. The gateway's model and tokenizer are the same for all."""

    def __init__(self, name: str, folder: Path, options: BackendOptions) -> None:
        """`name` is what clients call the model whose tokenizer is in `folder`."""
        self._name = name
        self._options = options
        self._tokenizer = Tokenizer.load(folder)
        self._max_model_len = read_config(folder).max_position

    def __call__(self, url: str) -> OpenAIReplica:
        """Raises: SetupError if `url` is no address."""
        options = self._options
        return OpenAIReplica(
            url,
            self._name,
            self._tokenizer,
            self._max_model_len,
            monotonic,
            model=options.model,
            key=options.key,
            speech=options.speech,
        )


async def connect(fleet: Fleet, urls: Sequence[str], timeout_s: float) -> None:
    """Add replicas that run elsewhere to the fleet. Raises: SetupError if none of them answers in time."""
    for i, url in enumerate(urls):
        await fleet.put(f"r{i}", RemoteReplica(url))
    try:
        async with asyncio.timeout(timeout_s):
            await fleet.answered.wait()
    except TimeoutError:
        raise SetupError(f"no replica answered within {timeout_s:g} s at {', '.join(urls)}") from None


async def connect_backends(fleet: Fleet, name: str, folder: Path, options: BackendOptions) -> None:
    """Add the backends to the fleet. Raises: SetupError, with what each of them says, if none can be used."""
    make = BackendMaker(name, folder, options)
    backends = {f"b{i}": make(url) for i, url in enumerate(options.urls)}
    for replica_id, backend in backends.items():
        await fleet.put(replica_id, backend)
    troubles, started_s = await _troubles(backends.values()), monotonic()
    while not fleet.any_ready():
        patience_s = LOADING_S if None in troubles.values() else SILENT_S
        if monotonic() - started_s >= patience_s:
            said = "; ".join(f"{url}: {trouble or 'not ready yet'}" for url, trouble in troubles.items())
            raise SetupError(f"no backend can be used: {said}")
        await asyncio.sleep(_LOOK_AGAIN_S)
        troubles = await _troubles(backends.values())
    for url, trouble in troubles.items():
        if trouble:
            log.warning("backend %s cannot be used for now: %s", url, trouble)


async def _troubles(backends: Iterable[OpenAIReplica]) -> dict[str, str | None]:
    """Return for each address what is wrong with the server; None: nothing, or it is still to tell how it speaks."""
    return {backend.url: await _trouble(backend) for backend in backends}


async def _trouble(backend: OpenAIReplica) -> str | None:
    try:
        await backend.report(_REPORT_S)
    except RequestError as error:
        return str(error)
    return None
