"""What clients send: when, how long, and which requests belong together.

`requests.Workload` combines three independent parts: `arrivals` (when), `lengths` (how many tokens) and `conversations`
(which requests continue an earlier one). Rates that change are in `curves`; `rates` draws arrivals from one. Pure and
seeded; the simulator and the live load generator iterate over the same requests.
"""

from miniserve.workload.arrivals import Arrivals, Bursts, Poisson
from miniserve.workload.calibrated import HeavyClients, code, conversation
from miniserve.workload.conversations import Conversations
from miniserve.workload.curves import Noisy, Spike, Spikes, Waves, diurnal, ramp
from miniserve.workload.lengths import Constant, Geometric, Lengths, Quantiles
from miniserve.workload.rates import Piecewise, Varying, realised
from miniserve.workload.requests import Mix, Workload

__all__ = [
    "Arrivals",
    "Bursts",
    "Constant",
    "Conversations",
    "Geometric",
    "HeavyClients",
    "Lengths",
    "Mix",
    "Noisy",
    "Piecewise",
    "Poisson",
    "Quantiles",
    "Spike",
    "Spikes",
    "Varying",
    "Waves",
    "Workload",
    "code",
    "conversation",
    "diurnal",
    "ramp",
    "realised",
]
