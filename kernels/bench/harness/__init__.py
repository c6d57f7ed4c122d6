"""What every benchmark of a kernel shares: gate, clock, ceilings of the device, rows."""
