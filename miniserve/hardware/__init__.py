"""What machines cost and how fast they are: the price list, replicas' specifications, the arithmetic over them."""
