"""The fleet's story in plain words: from views and counts alone, without a clock or a process."""

from __future__ import annotations

from miniserve.gateway.status import ProcessFacts
from miniserve.operations.fleet_story import FleetStory, Streams
from miniserve.types import FleetView, ReplicaState, ReplicaView

UP, DOWN, STARTING, DRAINING = ReplicaState.READY, ReplicaState.DOWN, ReplicaState.STARTING, ReplicaState.DRAINING


class World:
    """Two replicas whose probes are answered each half second, unless a test says otherwise."""

    def __init__(self) -> None:
        self.story = FleetStory()
        self.now_s = 100.0
        self.states = {"large@1-0": UP, "large@1-1": UP}
        self.facts = {name: ProcessFacts(pid) for pid, name in enumerate(self.states, 1)}
        self.steps = dict.fromkeys(self.states, 10)
        self.mute: dict[str, float] = {}
        self.counts = Streams()
        self.idle = False  # nobody makes a step

    def turns(self, seconds: float, silent: tuple[str, ...] = ()) -> list[str]:
        said = []
        for _ in range(round(seconds / 0.5)):
            self.now_s += 0.5
            views = [
                ReplicaView(
                    name, state, version="large@1", as_of_s=self.mute.get(name, self.now_s), steps=self.step(name)
                )
                for name, state in self.states.items()
            ]
            told = self.story.watch(
                self.now_s, FleetView(tuple(views)), self.counts, self.facts, dict.fromkeys(silent, 4.0)
            )
            said += [one.text for one in told]
        return said

    def view(self, name: str, state: ReplicaState) -> ReplicaView:
        as_of_s = self.mute.get(name, self.now_s)
        return ReplicaView(name, state, version="large@1", as_of_s=as_of_s, steps=self.step(name))

    def step(self, name: str) -> int:
        if name not in self.mute and not self.idle and self.states[name] is UP:
            self.steps[name] = self.steps.get(name, 0) + 1
        return self.steps.get(name, 0)


def test_a_quiet_fleet_is_introduced_once() -> None:
    assert World().turns(10) == ["The stack is up: 2 replicas of large@1."]


def test_a_kill_is_told_with_what_became_of_its_streams_and_then_the_return() -> None:
    world = World()
    world.turns(1)
    world.states["large@1-0"], world.facts["large@1-0"] = DOWN, ProcessFacts(None, exit_code=-9)
    world.counts = Streams(resumed=4)
    said = world.turns(0.5)
    world.counts = Streams(resumed=7)
    said += world.turns(3)
    world.facts["large@1-0"] = ProcessFacts(9, 1)
    world.states["large@1-0"] = UP
    said += world.turns(3)

    assert said == [
        "large@1-0 was killed; 7 streams went on elsewhere.",
        "large@1-0 is back after 3.5 s.",
    ]


def test_a_death_is_told_although_its_process_was_gone_a_turn_before_the_replica_was_marked() -> None:
    world = World()
    world.turns(1)
    world.facts["large@1-0"] = ProcessFacts(None, exit_code=-9)
    assert world.turns(0.5) == []
    world.states["large@1-0"] = DOWN
    assert world.turns(4) == ["large@1-0 was killed; no answer was lost."]
    world.facts["large@1-0"], world.states["large@1-0"] = ProcessFacts(9, 1), UP
    assert world.turns(1) == ["large@1-0 is back after 4.0 s."]
    world.facts["large@1-0"], world.states["large@1-0"] = ProcessFacts(None, 1, exit_code=-9), DOWN
    assert world.turns(4) == ["large@1-0 was killed; no answer was lost."]


def test_deaths_at_the_same_time_share_one_sentence_so_no_stream_is_counted_twice() -> None:
    world = World()
    world.turns(1)
    for name in world.states:
        world.states[name], world.facts[name] = DOWN, ProcessFacts(None, exit_code=-9)
    world.counts = Streams(resumed=1, failed=1)

    assert world.turns(3) == ["large@1-0 and large@1-1 were killed; 1 stream went on elsewhere, 1 answer failed."]


def test_other_ends_have_other_words() -> None:
    world = World()
    world.turns(1)
    world.states["large@1-0"], world.facts["large@1-0"] = DOWN, ProcessFacts(None, exit_code=0)
    assert world.turns(3) == ["large@1-0 was told to end and is started anew; no answer was lost."]
    world.states["large@1-1"], world.facts["large@1-1"] = DOWN, ProcessFacts(None, exit_code=1)
    assert world.turns(3) == ["large@1-1 broke down and is started anew; no answer was lost."]


def test_a_frozen_process_hangs_and_works_again() -> None:
    world = World()
    world.turns(1)
    world.mute["large@1-1"] = world.now_s
    world.counts = Streams(resumed=3)
    said = world.turns(6)
    world.states["large@1-1"] = DOWN  # its probes have been missed
    said += world.turns(3)
    del world.mute["large@1-1"]
    world.states["large@1-1"], world.idle = UP, True
    said += world.turns(2)

    assert said == [
        "large@1-1 hangs: it is there but makes no progress; no answer was lost.",
        "large@1-1 works again, 5.5 s after it was found hanging.",
    ]


def test_where_we_were_away_ourselves_nobody_is_called_hanging() -> None:
    world = World()
    world.turns(1)
    world.mute = dict.fromkeys(world.states, world.now_s)
    world.now_s += 60.0
    assert world.turns(0.5) == []
    world.mute.clear()
    assert world.turns(5) == []


def test_an_engine_that_hangs_while_its_probes_are_answered_is_told_too() -> None:
    world = World()
    world.turns(1)
    world.mute["large@1-0"] = world.now_s + 60  # answers probes, makes no steps
    said = world.turns(3, silent=("large@1-0",))
    said += world.turns(1)
    assert said == ["large@1-0 hangs: it is there but makes no progress; no answer was lost."]
    del world.mute["large@1-0"]
    assert world.turns(2) == ["large@1-0 works again, 4.0 s after it was found hanging."]


def test_a_hung_process_that_is_replaced_is_told_as_that() -> None:
    world = World()
    world.turns(1)
    world.mute["large@1-1"] = world.now_s
    said = world.turns(6)
    world.states["large@1-1"] = DOWN
    said += world.turns(1)
    world.facts["large@1-1"] = ProcessFacts(None, exit_code=-9)
    said += world.turns(1)

    assert said[1:] == ["large@1-1 hung for 4 s; its process was ended and is started anew."]


def test_those_that_come_together_share_a_sentence() -> None:
    world = World()
    world.turns(1)
    world.states |= dict.fromkeys(("large@2-0", "large@2-1", "large@2-2"), STARTING)
    said = world.turns(3)
    world.states |= dict.fromkeys(("large@2-0", "large@2-1", "large@2-2"), UP)
    said += world.turns(3)

    assert said == [
        "large@2-0, large@2-1 and large@2-2 are starting.",
        "large@2-0, large@2-1 and large@2-2 are ready after 3.0 s.",
    ]


def test_a_hang_of_a_moment_is_told_only_if_it_moved_a_stream_and_then_before_its_end() -> None:
    world = World()
    world.turns(1)
    world.mute["large@1-1"] = world.now_s
    said = world.turns(4)
    del world.mute["large@1-1"]
    assert said + world.turns(5) == []

    world.mute["large@1-1"] = world.now_s
    said = world.turns(4)
    del world.mute["large@1-1"]
    world.counts = Streams(resumed=2)
    said += world.turns(5)
    assert said == [
        "large@1-1 hangs: it is there but makes no progress; 2 streams went on elsewhere.",
        "large@1-1 works again, 0.5 s after it was found hanging.",
    ]


def test_one_that_was_told_to_leave_takes_its_time_and_is_not_called_hanging() -> None:
    world = World()
    world.turns(1)
    world.states["large@1-1"] = DRAINING
    assert world.turns(1) == ["large@1-1 is draining: it finishes what it has and gets nothing new."]
    world.states["large@1-1"] = DOWN
    assert world.turns(8) == []
    del world.facts["large@1-1"]
    assert world.turns(1) == []
    del world.states["large@1-1"]
    assert world.turns(1) == ["large@1-1 has left."]


def test_one_that_others_told_to_end_drains_ends_and_is_back() -> None:
    world = World()
    world.turns(1)
    world.states["large@1-1"] = DRAINING
    said = world.turns(1)
    world.states["large@1-1"] = DOWN
    said += world.turns(3)
    world.facts["large@1-1"] = ProcessFacts(None, exit_code=0)
    said += world.turns(2)
    world.facts["large@1-1"], world.states["large@1-1"] = ProcessFacts(9, 1, exit_code=0), UP
    said += world.turns(1)

    assert said[1:] == [
        "large@1-1 was told to end and is started anew; no answer was lost.",
        "large@1-1 is back after 2.0 s.",
    ]


def test_one_that_comes_and_one_that_goes() -> None:
    world = World()
    world.turns(1)
    world.states["large@1-2"] = STARTING
    said = world.turns(4)
    world.states["large@1-2"], world.facts["large@1-2"] = UP, ProcessFacts(3)
    said += world.turns(1)
    world.states["large@1-0"] = DRAINING
    said += world.turns(1)
    del world.states["large@1-0"]
    said += world.turns(1)

    assert said == [
        "large@1-2 is starting.",
        "large@1-2 is ready after 4.0 s.",
        "large@1-0 is draining: it finishes what it has and gets nothing new.",
        "large@1-0 has left.",
    ]
