"""What clients send: when, how long, and which requests belong together.

`requests.Workload` puts three independent parts together: `arrivals` (when), `lengths` (how many tokens) and
`conversations` (which requests continue an earlier one). Pure and seeded; the simulator and the live load generator
iterate over the same requests.
"""

from miniserve.workload.arrivals import Arrivals, Bursts, Poisson
from miniserve.workload.conversations import Conversations
from miniserve.workload.lengths import Constant, Geometric, Lengths, Quantiles
from miniserve.workload.requests import Mix, Workload

__all__ = [
    "Arrivals",
    "Bursts",
    "Constant",
    "Conversations",
    "Geometric",
    "Lengths",
    "Mix",
    "Poisson",
    "Quantiles",
    "Workload",
]
