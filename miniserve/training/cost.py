"""What one token costs in the engine: seconds per decoded token while a few answers are generated side by side."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from miniserve.config import EngineConfig
from miniserve.engine.engine import StepRecord, load_engine
from miniserve.types import Request, SamplingParams

STREAMS = 8
PROMPT_TOKENS, NEW_TOKENS = 24, 64
REPEATS = 5


def decode_seconds_per_token(folder: Path, quant: str = "fp16", threads: int = 1) -> float:
    """Return the median seconds of a pure decode step, per stream; the best of five rounds, as others share the cores.

    Raises: WeightsError, SetupError.
    """
    engine = load_engine(folder, quant=quant, config=EngineConfig(threads=threads))
    records: list[StepRecord] = []
    engine.on_step = records.append
    best = float("inf")
    for repeat in range(REPEATS):
        records.clear()
        engine.run(_requests(repeat))
        decoding = [r.seconds for r in records if r.decode_rows == STREAMS and r.prefill_tokens == 0]
        best = min(best, median(decoding) / STREAMS)
    return best


def _requests(repeat: int) -> list[Request]:
    """Return prompts that share no prefix. Ids 4 and up are ordinary tokens in every vocabulary here."""
    sampling = SamplingParams(max_tokens=NEW_TOKENS, temperature=0, ignore_eos=True)
    return [
        Request(
            f"{repeat}-{i}", "cost", tuple(4 + (repeat * 64 + i * 7 + j) % 250 for j in range(PROMPT_TOKENS)), sampling
        )
        for i in range(STREAMS)
    ]
