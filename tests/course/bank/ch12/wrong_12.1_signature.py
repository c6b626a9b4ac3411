# question: 12.1
from miniserve.seeds import number


class LeastOutstanding:
    def choose(self, replicas):
        if not replicas:
            return None

        return min(replicas, key=lambda view: (view.outstanding, number(view.replica_id))).replica_id
