"""Ports for the servers that tests start."""

import os
import socket
from random import SystemRandom

# Below the range from which kernels take the ports of outgoing connections (Linux: 32768): between this and the
# server's bind, nobody is given the port by chance.
LOWEST, PER_PROCESS, PROCESSES = 20000, 1000, 12


def free_port() -> int:
    """A port that nobody listens on, from a range that the test process shares with few or none."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = LOWEST + worker % PROCESSES * PER_PROCESS
    ports = range(first, first + PER_PROCESS)
    for port in SystemRandom().sample(ports, len(ports)):  # random: a second run on this machine does the same
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no port of {ports} is free")
