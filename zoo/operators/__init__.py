"""Operator learning: maps between fields, learned in frequency space and in space, and the equations they imitate."""
