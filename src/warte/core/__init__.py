"""What at least two domains share; it knows the name of none of them."""
