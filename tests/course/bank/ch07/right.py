"""Other right answers of chapter 7."""

from miniserve.course.chapters.ch07_routing.lab import by_hand
from miniserve.policies.routing.affinity import PrefixAffinity


def read_block_by_block(prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s):
    known = 0
    while known + block_tokens <= shared_tokens:
        known += block_tokens
    return base_s + per_token_s * (prompt_tokens - known)


RIGHT = [
    ("7.1", read_block_by_block),
    ("7.1", lambda prompt_tokens, shared_tokens, block_tokens, base_s, per_token_s: (
        base_s + per_token_s * (prompt_tokens - shared_tokens + shared_tokens % block_tokens))),
    ("7.1", lambda *, block_tokens, per_token_s, base_s, shared_tokens, prompt_tokens: (
        base_s + prompt_tokens * per_token_s - int(shared_tokens / block_tokens) * block_tokens * per_token_s)),
    ("7.2", by_hand(PrefixAffinity(block_tokens=100))[2:]),
    ("7.2", [["c1", 1, 0, "B", 200], ["a2", 1, 1, "B", 1800], ["d1", 1, 2, "A", 200.0], ["e1", 1, 2, "A", 200],
             ["b2", 2, 1, "B", 200], ["a3", 1, 2, "B", 2000], ["b3", 1, 2, "A", 400]]),
    ("7.3", (0.08, 0.13)),
    ("7.3", [0.07, 0.11]),
    ("7.4", {"guides": 2, "guide_tokens": 1000, "hot_share": 0.9, "requests_per_s": 1.5}),
    ("7.4", {"guides": 30, "guide_tokens": 500, "hot_share": 0.7, "requests_per_s": 1.8}),
    ("7.4", {"guides": 2.0, "guide_tokens": 2000, "hot_share": 0, "requests_per_s": 1.6}),
    ("7.5", lambda kept_share, small_usd, large_usd, check_usd: (
        kept_share * (small_usd + check_usd) + (1 - kept_share) * (small_usd + check_usd + large_usd))),
    ("7.5", lambda check_usd, large_usd, small_usd, kept_share: (
        check_usd + small_usd + large_usd - kept_share * large_usd)),
    ("7.6", 0.0685240964),  # of the numbers that nobody in particular is given
    ("7.6", "6.852 %"),
    ("7.7", dict(zip("abcdefgh", (
        "by prefix", "by load", "by load", "small model", "large model", "cascade", "no sharing", "by load"),
        strict=True))),
    ("7.8", "one two three four five six seven eight nine ten " * 5),
]  # fmt: skip
