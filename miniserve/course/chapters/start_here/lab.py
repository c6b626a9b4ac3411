"""What the cells of `start_here.ipynb` call: a small engine to watch, its Gantt chart and page map, and drafting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from miniserve.config import CacheConfig, EngineConfig, SchedulerConfig
from miniserve.course import figures
from miniserve.engine.batch import Batch
from miniserve.engine.engine import Engine, load_engine
from miniserve.engine.sampler import Sampled
from miniserve.models.store import resolve_model
from miniserve.models.tokenizer import Tokenizer
from miniserve.training.evalset import read_set
from miniserve.types import Request, SamplingParams

ROOT = Path(__file__).resolve().parents[4]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one sequence had computed in one step."""

    step: int
    request_id: str
    tokens: int
    kind: str  # "prefill" or "decode"
    sampled: bool  # a new token came out


class Watched:
    """A runner that writes down each step before the real one computes it."""

    def __init__(self, engine: Engine) -> None:
        self._runner, self._engine = engine.runner, engine
        self.pieces: list[Piece] = []
        self.owners: list[dict[str, list[int]]] = []  # per step: who holds which blocks
        engine.runner = self

    def execute(self, batch: Batch) -> Iterable[Sampled | None]:
        step = len(self.owners)
        for work in batch.works:
            kind = "prefill" if work.start < work.seq.num_prompt else "decode"
            self.pieces.append(Piece(step, work.seq.request_id, work.num_tokens, kind, work.samples))
        self.owners.append({seq.request_id: list(seq.block_table) for seq in self._engine.scheduler.running})
        return self._runner.execute(batch)


def small_engine(
    model: str = "small", *, running: int = 3, step_tokens: int = 24, blocks: int = 24, device: str = "cpu"
) -> Engine:
    """Return an engine with blocks of 8 tokens, and few enough of everything to draw it."""
    config = EngineConfig(SchedulerConfig(running, step_tokens), CacheConfig(blocks, 8))
    return load_engine(resolve_model(model, Path(), offline=True), config=config, device=device)


def tokenizer(model: str = "small") -> Tokenizer:
    """Return the tokenizer, which all models trained here share."""
    return Tokenizer.load(resolve_model(model, Path(), offline=True))


def request(id_: str, prompt: Sequence[int], max_tokens: int = 32, *, to_the_end: bool = False) -> Request:
    """Return a greedy request; with `to_the_end` it generates `max_tokens`, even if the model would stop."""
    return Request(id_, "small", tuple(prompt), SamplingParams(max_tokens, temperature=0.0, ignore_eos=to_the_end))


def show_steps(pieces: Sequence[Piece]) -> None:
    """Draw what each request computed in each step."""
    names = list(dict.fromkeys(piece.request_id for piece in pieces))
    figure, ax = figures.new_figure("Each step mixes prefill and decode", x="step", y="request", size=(7.2, 2.8))
    for kind, style in (("prefill", figures.bar_style(0)), ("decode", figures.bar_style(1))):
        mine = [piece for piece in pieces if piece.kind == kind]
        rows = [names.index(piece.request_id) for piece in mine]
        ax.barh(rows, 0.9, left=[piece.step - 0.45 for piece in mine], height=0.7, label=kind, **style)
    for piece in pieces:
        if piece.kind == "prefill":
            _letter(ax, piece.step, names.index(piece.request_id), str(piece.tokens))
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.legend(loc="upper right", fontsize=8)
    spans = [_span(name, [piece for piece in pieces if piece.request_id == name]) for name in names]
    figures.show(figure, alt="Requests over steps; numbers are prompt tokens of a prefill. " + " ".join(spans))


def _span(name: str, own: Sequence[Piece]) -> str:
    prefills = [str(piece.tokens) for piece in own if piece.kind == "prefill"]
    return (
        f"Request {name} runs in steps {own[0].step} to {own[-1].step}: prefill of {' + '.join(prefills)} tokens, "
        f"then {len(own) - len(prefills)} decode steps."
    )


def show_pages(owners: Sequence[Mapping[str, Sequence[int]]], steps: Sequence[int], blocks: int) -> None:
    """Draw which request holds which block of the pool at `steps`: a row per step, a name in each block in use."""
    figure, ax = figures.new_figure(
        "Who holds which block of the KV cache", x="block number", y="step", size=(7.2, 2.4)
    )
    names = sorted({name for held in owners for name in held})
    for row, step in enumerate(steps):
        for name, table in sorted(owners[step].items()):
            colour = figures.COLOURS[names.index(name) % len(figures.COLOURS)]  # no hatch: each block bears a name
            ax.bar(table, 0.8, width=0.9, bottom=row - 0.4, color=colour)
            for block in table:
                _letter(ax, block, row, name)
    ax.set_xlim(-0.6, blocks - 0.4)
    ax.set_xticks(range(0, blocks, 2))
    ax.set_yticks(range(len(steps)), [str(step) for step in steps])
    ax.invert_yaxis()
    told = [f"Step {step}: {_held(owners[step])}." for step in steps]
    figures.show(figure, alt=f"Page map of a pool of {blocks} blocks. " + " ".join(told))


def _letter(ax: Axes, x: float, y: float, text: str) -> None:
    """Write dark on light, whatever bar is behind."""
    box = {"boxstyle": "square,pad=0.15", "facecolor": figures.CARD, "edgecolor": "none"}
    ax.annotate(text, (x, y), ha="center", va="center", fontsize=8, color=figures.INK, bbox=box)


def _held(owners: Mapping[str, Sequence[int]]) -> str:
    return "; ".join(f"{name} holds blocks {', '.join(map(str, table))}" for name, table in sorted(owners.items()))


def stream_times(engine: Engine, asked: Request) -> list[float]:
    """Run one request alone; return when each of its tokens came, in seconds since it was added."""
    start_s = engine.clock()
    engine.add(asked)
    times_s: list[float] = []
    while engine.has_work:
        times_s += [engine.clock() - start_s for _ in engine.step()]
    return times_s


def show_times(times_s: Sequence[float]) -> None:
    """Draw when each token came."""
    figure, ax = figures.new_figure("One stream: when each token came", x="time since the request (ms)", y="token")
    ax.plot([1e3 * t for t in times_s], range(1, len(times_s) + 1), **figures.line_style(0, markers=True))
    last = f"the first token came after {1e3 * times_s[0]:.0f} ms, the last after {1e3 * times_s[-1]:.0f} ms"
    figures.show(figure, alt=f"{len(times_s)} tokens, one after the other: {last}.")


@dataclass(frozen=True, slots=True)
class Drafted:
    """How the drafts of a small model fared with a large one."""

    large_tokens: int  # of the answers
    large_steps: int  # of the large model, when it only checks drafts
    drafted: int
    accepted: int


def draft(small: Engine, prompt: Sequence[int], answer: Sequence[int], ahead: int) -> Drafted:
    """Let `small` draft `ahead` tokens again and again; keep those that match the large model's `answer`."""
    done = steps = drafted = accepted = 0
    while done < len(answer):
        proposed = small.run([request("draft", [*prompt, *answer[:done]], ahead)])["draft"]
        same = 0
        while same < len(proposed) and proposed[same : same + 1] == list(answer[done + same : done + same + 1]):
            same += 1
        steps, drafted, accepted = steps + 1, drafted + len(proposed), accepted + same
        done += same + 1  # the step that checks a draft also gives one token of the large model's own
    return Drafted(len(answer), steps, drafted, accepted)


def draft_all(small: Engine, large: Engine, difficulty: str, *, questions: int = 40, ahead: int = 3) -> Drafted:
    """Draft the large model's answers to the first questions of an evaluation set; return the sums."""
    words = tokenizer()
    runs = []
    for item in read_set(ROOT / "data/eval", difficulty)[:questions]:
        prompt = words.encode_chat([{"role": "user", "content": item.question}])
        answer = large.run([request("answer", prompt)])["answer"]
        runs.append(draft(small, prompt, answer, ahead))
    return Drafted(*(sum(getattr(run, name) for run in runs) for name in Drafted.__slots__))
