# question: 14.4
from miniserve.observe import percentiles


class Sketch:
    def __init__(self, alpha: float = 0.01, max_buckets: int | None = None) -> None:
        self.made = (alpha, max_buckets)
        self.parts: list[list[float]] = [[]]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def add(self, value: float) -> None:
        if not 0 <= value < float("inf"):
            raise ValueError(value)
        self.parts[0].append(value)

    def merge(self, other: "Sketch") -> None:
        if self.made != other.made:
            raise ValueError("different")
        self.parts.extend(list(part) for part in other.parts)

    def percentile(self, p: float) -> float:
        each = [sorted(part)[percentiles.rank(p, len(part)) - 1] for part in self.parts if part]
        if not each:
            raise ValueError("no values")
        sizes = [len(part) for part in self.parts if part]
        return sum(size * value for size, value in zip(sizes, each, strict=True)) / sum(sizes)
