"""One file per kernel: formula and source, reference, Triton, public function."""
