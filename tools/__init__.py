"""Command-line helpers that run from a checkout: visualize, benchmark, convert."""
