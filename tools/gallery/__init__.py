"""``python -m tools.gallery``: what every pretrained entry does, measured anew, on one page without outside assets."""
