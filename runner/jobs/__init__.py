"""One file per kind, same stems as ``schema/jobs``: ``run(spec, ctx) -> Result``."""
