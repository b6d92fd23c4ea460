"""Data modules, one file per kind of data, with the typed batches they deal."""
