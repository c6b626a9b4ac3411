"""Control loops: look at the fleet every few seconds, and say what should change. Pure, like `policies`.

The autoscalers run in `simulate` and in chapter 5, `degrade` in a live gateway. `rollout` and `guardrails` are used
only by tests so far, and by no server.
"""
