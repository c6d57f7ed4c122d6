"""From specs to an ordered plan: references, digests, fingerprints, graph, capacity, reasons. Pure and torch-free."""
