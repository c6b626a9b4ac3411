"""The gateway: the fleet that it knows, the driver of its policies, its client of a replica. Without torch."""
