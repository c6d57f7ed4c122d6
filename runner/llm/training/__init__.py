"""The loop: steps, events, checkpoints, measurements."""
