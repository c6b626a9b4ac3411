"""What a gateway is told about the processes of its replicas."""

from __future__ import annotations

from collections.abc import Mapping

from miniserve.gateway.fleet import Fleet
from miniserve.gateway.status import ProcessFacts
from miniserve.processes.child import Child
from miniserve.processes.supervisor import Supervisor
from miniserve.replica.wire import ReplicaReport


def process_facts(supervisor: Supervisor, fleet: Fleet) -> Mapping[str, ProcessFacts]:
    """Return what the gateway's status is told about the replicas' processes."""
    reports = {member.replica_id: member.report for member in fleet.members()}
    return {child.replica_id: _fact(child, reports.get(child.replica_id)) for child in supervisor.children}


def _fact(child: Child, report: ReplicaReport | None) -> ProcessFacts:
    if report is None or child.start_s is None:
        return ProcessFacts(child.pid, child.restarts, exit_code=child.exit_code)
    stages = {"import": report.import_s, "load": report.load_s, "warm_up": report.warm_up_s, "total": child.start_s}
    return ProcessFacts(child.pid, child.restarts, stages, child.exit_code)
