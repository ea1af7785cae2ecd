"""The kinds of faults, and what it takes to cause them."""
