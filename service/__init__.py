"""The gateway and what is known and kept: catalogue, archive, observations, fields, scheduling, metrics."""
