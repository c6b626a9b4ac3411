"""Where a request goes: balancers, affinity, routers by region and by model."""
