# question: 14.4
from miniserve.observe import percentiles


class Sketch:
    def __init__(self, alpha: float = 0.01, max_buckets: int | None = None) -> None:
        self.made = (alpha, max_buckets)
        self.values: list[float] = []

    def __len__(self) -> int:
        return len(self.values)

    def add(self, value: float) -> None:
        if not 0 <= value < float("inf"):
            raise ValueError(value)
        self.values.append(value)

    def merge(self, other: "Sketch") -> None:
        if self.made != other.made:
            raise ValueError("different")
        self.values.extend(other.values)

    def percentile(self, p: float) -> float:
        if not self.values:
            raise ValueError("no values")
        return sorted(self.values)[percentiles.rank(p, len(self.values)) - 1]
