"""Which requests continue an earlier one: chats of several turns, whose prompts repeat everything said so far.

A follow-up's prompt is the previous prompt, the previous answer and a new message, so a replica that has kept the
blocks need not compute them again. This module decides *whether* a chat goes on, and *when*; `requests` fits chats into
the arrivals.

Most chats have one turn and a few have dozens. A constant probability of going on would never produce the long ones;
here it grows with the turns already taken, as it does if each person has their own inclination (Beta-distributed) that
those turns reveal. At every moment, `follow_up_fraction` of all requests are follow-ups.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate

from miniserve.workload.lengths import Geometric, Lengths, Quantiles

# p10, p50, p90 of the time between a chat's requests in published multi-turn traces; the ends are our choice
GAP_S = Quantiles(((0.0, 10.0), (0.1, 42.0), (0.5, 123.0), (0.9, 483.0), (1.0, 3600.0)))
MESSAGE = Geometric(60.0)  # tokens a person adds in a follow-up; our choice: traces give only totals
_TAIL = 3.0  # chats of more than n turns become rare as n**-3: about 1 in 1,000 has more than 20
_MOST_TURNS = 400  # of a chat that began before the run


@dataclass(frozen=True, slots=True)
class Conversations:
    """How chats go on."""

    follow_up_fraction: float = 0.39  # of all requests, in published chat traces
    gap_s: Quantiles = GAP_S
    message: Lengths = MESSAGE
    max_prompt_tokens: int = 14_050  # a longer chat starts over; this is the longest prompt of the trace
    _inclination: float = field(init=False, repr=False, compare=False, default=0.0)
    _turn_shares: tuple[float, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        if not 0 <= self.follow_up_fraction < 1:
            raise ValueError(f"follow_up_fraction ({self.follow_up_fraction:g}) must be at least 0 and below 1")
        fraction = self.follow_up_fraction
        object.__setattr__(self, "_inclination", (_TAIL - 1) * fraction / (1 - fraction))
        object.__setattr__(self, "_turn_shares", self._shares_of_turns())

    def goes_on(self, turn: int, u: float) -> bool:
        """Return whether a chat goes on after its `turn`-th turn (from 1), given the random number `u`."""
        return u < self._probability(turn)

    def _probability(self, turn: int) -> float:
        return (self._inclination + turn - 1) / (self._inclination + _TAIL + turn - 1)

    def begun_before(self, now_s: float) -> float:
        """Return the probability that an arrival which continues none of this run's chats continues an older one.

        A service does not begin when a run does. Without this the first minutes would have no follow-ups at all, and
        the later ones would look like a trend. Caches, however, begin empty, so these follow-ups find nothing.
        """
        known = self.follow_up_fraction * self.gap_s.share_below(now_s)
        return (self.follow_up_fraction - known) / (1 - known)

    def old_turn(self, u: float) -> int:
        """Return which turn (2 or later) a follow-up is, if its chat began before the run."""
        return 2 + bisect_right(self._turn_shares, u * self._turn_shares[-1])

    def _shares_of_turns(self) -> tuple[float, ...]:
        """Return cumulative shares of turns 2, 3, ... of follow-ups: a turn is as frequent as chats that reach it."""
        reaching = accumulate(range(1, _MOST_TURNS), lambda share, turn: share * self._probability(turn), initial=1.0)
        return tuple(accumulate(list(reaching)[1:]))
