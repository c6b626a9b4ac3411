# question: 14.1
def rank(p: float, n: int) -> int:
    if not 0 <= p <= 100:
        raise ValueError(f"no percentile: {p}")
    thousandths = round(p * 1000)
    return max(1, -(-thousandths * n // 100_000))
