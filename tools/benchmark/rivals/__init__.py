"""Algorithms of others, written from their descriptions, to measure ours against."""
