"""Figures: matplotlib styles and plots that several systems share."""
