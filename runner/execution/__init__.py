"""Carry a plan out: executors, events, retries. The only package that imports ray."""
