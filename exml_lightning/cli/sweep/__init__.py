"""`exml sweep`: a grid of runs on Ray."""
