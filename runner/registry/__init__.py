"""What a model is, from its config: families, resolution, hub access. Never loads torch."""
