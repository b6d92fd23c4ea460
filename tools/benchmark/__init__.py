"""Side-by-side measurements: ``python -m tools.benchmark list`` and ``python -m tools.benchmark NAME``.

Each benchmark is a module in this folder with a function ``run(...) -> Report``; the first line of the
module's docstring says what it compares, and keyword arguments of ``run`` may be given on the command line.
"""
