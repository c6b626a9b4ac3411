"""Where a request goes: balancers, prefix affinity, routers by version, region and priority, and a choice of model."""
