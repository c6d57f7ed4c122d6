"""Artifacts: blobs, manifests, refs, leases, quarantine, garbage collection."""
