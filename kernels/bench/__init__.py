"""How fast kernels are: one file per kernel with its cases as data; `python -m runner.kernels.bench` runs them."""
