"""Every attention backend against a float64 definition that knows nothing of blocks."""

from __future__ import annotations

import pytest
import torch

from miniserve.engine import attention, cpu_attention
from miniserve.engine.attention import AttentionBackend, choose_backend, plan_attention
from miniserve.engine.batch import Batch, Work
from miniserve.engine.sequence import Sequence
from miniserve.errors import SetupError
from miniserve.types import Request

BACKENDS = ["torch", "numba"]


def backend(name: str) -> AttentionBackend:
    if name == "numba" and not cpu_attention.available():
        pytest.skip("numba is not installed")
    return choose_backend(name)


def by_definition(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """q [n, heads, dim] are the last n positions of k, v [ctx, kv_heads, dim]; in float64, one query at a time."""
    n, heads, dim = q.shape
    group = heads // k.shape[1]
    out = torch.empty(n, heads, dim, dtype=torch.float64)
    for i in range(n):
        seen = k.shape[0] - n + i + 1
        for h in range(heads):
            scores = k[:seen, h // group].double() @ q[i, h].double() / dim**0.5
            out[i, h] = scores.softmax(0) @ v[:seen, h // group].double()
    return out.view(n, -1)


def step(
    name: str, works: list[tuple[int, int]], block_size: int, heads: int, kv_heads: int, dim: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run one step of (context, new tokens) pairs over a shuffled, poisoned pool; return what came and what should."""
    generator = torch.Generator().manual_seed(sum(c * 31 + n for c, n in works) + block_size)
    used = [-(-(c + n) // block_size) for c, n in works]
    free = (1 + torch.randperm(sum(used) + 2, generator=generator)).tolist()  # block 0 pads the tables: it stays poison
    pool = torch.full(((sum(used) + 3) * block_size, 2, kv_heads, dim), 1e30, dtype=dtype)
    batch, qs, kvs, wanted = [], [], [], []
    for (context, new), blocks in zip(works, used, strict=True):
        seq = Sequence(Request("r", "m", tuple(range(context + new))))
        seq.block_table = [free.pop() for _ in range(blocks)]
        kv = torch.randn(context + new, 2, kv_heads, dim, generator=generator, dtype=dtype)
        q = torch.randn(new, heads, dim, generator=generator, dtype=dtype)
        for position in range(context):
            pool[seq.block_table[position // block_size] * block_size + position % block_size] = kv[position]
        batch.append(Work(seq, context, new, True))
        qs.append(q)
        kvs.append(kv[context:].flatten(1))
        wanted.append(by_definition(q, kv[:, 0], kv[:, 1]))
    plan = plan_attention(Batch(tuple(batch)), block_size)
    chosen = backend(name)
    chosen.store_kv(pool, torch.cat(kvs), plan)
    return chosen.attend(torch.cat(qs), pool, plan), torch.cat(wanted)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("block_size", [1, 4, 7, 16, 32])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 4, 8), (9, 3, 64), (8, 2, 16), (4, 1, 32)])
def test_ragged_decodes(name: str, block_size: int, heads: int, kv_heads: int, dim: int) -> None:
    works = [(n, 1) for n in (0, 1, block_size - 1, block_size, 3 * block_size + 1, 50)]
    got, wanted = step(name, works, block_size, heads, kv_heads, dim, torch.float32)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("block_size", [4, 7, 16])
def test_decodes_beside_chunks_with_and_without_context(name: str, block_size: int) -> None:
    works = [(5, 1), (33, 1), (0, 9), (12, 20), (block_size, 2), (0, block_size)]
    got, wanted = step(name, works, block_size, 6, 2, 16, torch.float64)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", BACKENDS)
def test_prefill_alone(name: str) -> None:
    got, wanted = step(name, [(0, 40)], 16, 9, 3, 64, torch.float32)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-5)


def test_a_numba_row_does_not_depend_on_its_neighbours_in_the_last_bit() -> None:
    backend("numba")
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(40 * 8, 2, 3, 16, generator=generator)
    q = torch.randn(5, 9, 16, generator=generator)
    tables = torch.randperm(40, generator=generator).view(5, 8)
    lengths = torch.tensor([64, 3, 17, 40, 1])
    together = cpu_attention.decode(q, pool, tables, lengths, 8)
    for i in range(5):
        alone = cpu_attention.decode(q[i : i + 1], pool, tables[i : i + 1], lengths[i : i + 1], 8)
        assert torch.equal(alone[0], together[i])
    strided = torch.empty(5, 200)[:, : 9 * 16].view(5, 9, 16).copy_(q)  # as it is cut out of the fused q, k, v product
    assert torch.equal(cpu_attention.decode(strided, pool, tables, lengths, 8), together)


def test_an_unusable_backend_is_refused_with_what_to_use_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="choose one of auto, torch, numba, triton"):
        choose_backend("flash")
    with pytest.raises(SetupError, match="runs on a CPU only"):
        choose_backend("numba", "cuda")
    with pytest.raises(SetupError, match="triton cannot be used: it runs on an NVIDIA GPU only"):
        choose_backend("triton", "cpu")
    monkeypatch.setattr(cpu_attention, "available", lambda: False)
    with pytest.raises(SetupError, match="numba is not installed"):
        choose_backend("numba")
    assert choose_backend("auto") is attention.TORCH
