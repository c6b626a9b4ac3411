"""Every tunable number, with its default and where the default comes from.

Plain frozen dataclasses: an unknown key is an immediate TypeError. Nothing here reads the environment.
"""

from __future__ import annotations

from dataclasses import dataclass

from miniserve.errors import SetupError


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """How one replica shares its steps (see `engine/scheduler.py`)."""

    max_running: int = 16  # sequences decoding together; past ~16 a 2-core CPU gains little throughput
    max_batch_tokens: int = 128  # token budget of one step; a prefill token costs ~2 ms on a CPU: this bounds a stall
    watermark_fraction: float = 0.01  # blocks kept free while anything runs, so that it can grow (as in vLLM)
    aging_s: float = 10.0  # one priority class is worth this much waiting
    turn_tokens: int | None = 256  # after this many tokens in a row a sequence yields its slot to a waiting one
    max_output_tokens: tuple[int, int, int] = (4096, 4096, 4096)  # cap per Priority class
    max_waiting: int = 1024  # a longer queue only adds latency; further requests are refused with 503

    def __post_init__(self) -> None:
        if self.max_running < 1 or self.max_batch_tokens < self.max_running:
            raise SetupError(
                f"max_batch_tokens ({self.max_batch_tokens}) must be at least max_running ({self.max_running}), "
                "and both at least 1: every running sequence needs one token of each step"
            )
        if self.aging_s < 0 or (self.turn_tokens is not None and self.turn_tokens < 1):
            raise SetupError(f"aging_s ({self.aging_s}) must be >= 0 and turn_tokens ({self.turn_tokens}) >= 1 or None")
        if len(self.max_output_tokens) != 3 or min(self.max_output_tokens) < 1:
            raise SetupError(
                f"max_output_tokens ({self.max_output_tokens}) must be three numbers, one per priority class, each at "
                "least 1"
            )
        if self.max_waiting < 0:
            raise SetupError(f"max_waiting ({self.max_waiting}) must be >= 0; 0 refuses every request")


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The KV pool of one replica."""

    num_blocks: int = 320  # with 16-token blocks: 5,120 tokens, 236 MB in fp32 for SmolLM2-135M, touched lazily
    block_size: int = 16  # tokens; vLLM's default on GPUs
    prefix_caching: bool = True

    def __post_init__(self) -> None:
        if self.num_blocks < 1 or self.block_size < 1:
            raise SetupError(f"num_blocks ({self.num_blocks}) and block_size ({self.block_size}) must be at least 1")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One replica's engine."""

    scheduler: SchedulerConfig = SchedulerConfig()
    cache: CacheConfig = CacheConfig()
    max_model_len: int | None = None  # tokens; None = the model's own context, or the KV pool if that is smaller
    threads: int = 1  # OpenMP threads; more than the usable cores makes small products 10x slower


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Limits at the HTTP edge, the same for the gateway and for a replica's own API."""

    max_body_bytes: int = 1 << 20  # 1 MiB of JSON is ~250k tokens, far beyond any context here
    body_timeout_s: float = 30.0  # a client that has not sent its whole body by then gets a 408
    heartbeat_s: float = 10.0  # silence on a stream is broken by a comment; proxies cut idle ones at 30-60 s
    send_timeout_s: float = 30.0  # a client that reads nothing for this long is gone
    default_max_tokens: int = 256  # if the client does not set it
    max_stop_strings: int = 4  # the OpenAI API's own limit
    cors_origins: tuple[
        str, ...
    ] = ()  # whose pages may call the API from a browser; none, since nobody is asked for a key
