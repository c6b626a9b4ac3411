"""Which replica has already seen this prompt? Balancers that keep related requests on the same replica.

A replica that has computed a prefix keeps it in its cache, so the conversation's next turn costs only what is new. But
affinity alone piles work up: the most popular prompt makes the hottest replica. Both balancers here give way to load:
one with a hard bound, the other by weighing affinity against load.

They know what was sent where, not what each replica still holds. Their memory is bounded.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect
from collections import OrderedDict
from collections.abc import Collection, Hashable, Sequence
from hashlib import blake2b

from miniserve.errors import SetupError
from miniserve.policies.routing.ties import least
from miniserve.seeds import number
from miniserve.types import ReplicaView, Request, TokenIds


class ConsistentHash:
    """A key's home is the next replica on a ring or, if that one is too busy, the one after it, and so on.

    The key is the request's session or, without one, its tenant and the start of its prompt. A replica that joins or
    leaves moves only the keys next to it. No replica gets more than `load_factor` times the mean number of outstanding
    requests.
    Source: Karger et al. (1997); Mirrokni et al., "Consistent Hashing with Bounded Loads" (2018).
    """

    def __init__(self, *, load_factor: float = 1.25, vnodes: int = 100, prefix_tokens: int = 64, seed: int = 0) -> None:
        if load_factor <= 1 or vnodes < 1:
            raise SetupError(f"load_factor ({load_factor}) must be above 1 and vnodes ({vnodes}) at least 1")
        self._load_factor = load_factor
        self._vnodes = vnodes
        self._prefix_tokens = prefix_tokens
        self._seed = seed
        self._ring: list[tuple[int, str]] = []  # (point, replica), sorted; may include replicas that are currently away
        self._members: set[str] = set()

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None
        outstanding = {view.replica_id: view.outstanding for view in replicas}
        self._join(outstanding.keys())
        bound = math.ceil(self._load_factor * (sum(outstanding.values()) + 1) / len(outstanding))
        place = bisect(self._ring, (self._point(request), ""))
        for step in range(len(self._ring)):
            id_ = self._ring[(place + step) % len(self._ring)][1]
            if outstanding.get(id_, bound) < bound:
                return id_
        raise AssertionError("the bound is above the mean, so some replica is below it")

    def _point(self, request: Request) -> int:
        if request.session_key is not None:
            return number("session", self._seed, request.session_key)
        return number("prefix", self._seed, request.tenant, request.prompt_ids[: self._prefix_tokens])

    def _join(self, ids: Collection[str]) -> None:
        """Put new replicas on the ring. Absent ones keep their places until they are in the majority."""
        if len(self._members) > 2 * len(ids) + 16:
            self._members &= set(ids)
            self._ring = [point for point in self._ring if point[1] in self._members]
        for id_ in ids:
            if id_ not in self._members:
                self._members.add(id_)
                self._ring += ((number("vnode", self._seed, id_, n), id_) for n in range(self._vnodes))
                self._ring.sort()


class PrefixAffinity:
    """Weighs how much of the prompt a replica has seen against how busy it is:

        score = matched / prompt - beta * (outstanding - mean) / max(1, mean)

    Neither term has a unit. A replica that holds the whole prompt may be loaded up to `1 / beta` times the mean above
    the mean; beyond that the request goes elsewhere and is remembered there as well, so a hot prefix spreads. An
    unknown prompt goes to the least loaded replica. Source of the score: vLLM production-stack, load-aware routing.

    The memory maps each block of a prompt, keyed by all the text up to its end, to the replicas it was sent to. The
    least recently used blocks are forgotten first, and a prompt's last blocks before its first.
    """

    _HOLDERS = 16  # replicas remembered per block: the latest

    def __init__(self, *, beta: float = 1.0, block_tokens: int = 64, max_blocks: int = 65_536) -> None:
        if beta < 0 or block_tokens < 1 or max_blocks < 1:
            raise SetupError(
                f"beta ({beta}) must be >= 0, block_tokens ({block_tokens}), max_blocks ({max_blocks}) >= 1"
            )
        self._beta = beta
        self._block_tokens = block_tokens
        self._max_blocks = max_blocks
        self._holders: OrderedDict[Hashable, tuple[str, ...]] = OrderedDict()

    def choose(self, request: Request, replicas: Sequence[ReplicaView]) -> str | None:
        if not replicas:
            return None
        blocks = prefix_keys(request.tenant, request.prompt_ids, self._block_tokens)
        matched = self._matched(blocks)
        worth = self._block_tokens / max(1, len(request.prompt_ids))
        mean = sum(view.outstanding for view in replicas) / len(replicas)
        weight = self._beta / max(1.0, mean)
        loads = [weight * (view.outstanding - mean) - worth * matched.get(view.replica_id, 0) for view in replicas]
        chosen = least(request, replicas, loads)
        assert chosen is not None, "there are replicas"
        self._remember(blocks, chosen)
        return chosen

    def _matched(self, blocks: Sequence[Hashable]) -> dict[str, int]:
        """Return how many leading blocks each replica has seen."""
        matched: dict[str, int] = {}
        seen_all = self._holders.get(blocks[0], ()) if blocks else ()  # replicas that have seen every block so far
        for depth, block in enumerate(blocks):
            holders = self._holders.get(block, ())
            if holders != seen_all:
                matched |= dict.fromkeys(seen_all, depth)
                seen_all = tuple(id_ for id_ in seen_all if id_ in holders)
            if not seen_all:
                return matched
        return matched | dict.fromkeys(seen_all, len(blocks))

    def _remember(self, blocks: Sequence[Hashable], replica_id: str) -> None:
        memory = self._holders
        for block in reversed(blocks):  # the first block is touched last, so a prompt is forgotten from its end
            holders = memory.get(block, ())
            if replica_id not in holders:
                memory[block] = (*holders, replica_id)[-self._HOLDERS :]
            memory.move_to_end(block)
        while len(memory) > self._max_blocks:
            memory.popitem(last=False)


def prefix_keys(tenant: str, prompt_ids: TokenIds, block_tokens: int) -> list[Hashable]:
    """Return a key for each full block of the prompt, which covers everything before it too.

    Tenants share no cache, so they share no keys either.

    Simulated tokens are numbered so that each belongs to one conversation, so a `range` needs no hashing.
    """
    end = len(prompt_ids) - len(prompt_ids) % block_tokens
    if isinstance(prompt_ids, range) and prompt_ids.step == 1:
        return [(tenant, first) for first in range(prompt_ids.start, prompt_ids.start + end, block_tokens)]
    data, size = array("q", prompt_ids[:end]).tobytes(), 8 * block_tokens
    chain = blake2b(tenant.encode(), digest_size=16)
    keys: list[Hashable] = []
    for start in range(0, len(data), size):
        chain.update(data[start : start + size])
        keys.append(chain.digest())
    return keys
