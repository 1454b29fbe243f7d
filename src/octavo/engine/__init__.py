"""The step: schedule, forward, sample, update."""
