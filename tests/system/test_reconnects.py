"""Reconnects: all clients of a server that was started again are back soon."""

from __future__ import annotations

import time

import pytest

CLIENTS = [  # how many, their delayReconnect, and how often the server is started again
    pytest.param(20, 500, 4, id="few"),
    pytest.param(200, 3000, 4, id="many", marks=pytest.mark.slow),
    pytest.param(200, 3000, 20, id="often", marks=[pytest.mark.full, pytest.mark.timeout(600)]),
]


@pytest.mark.parametrize(("count", "delay", "times"), CLIENTS)
def test_all_clients_are_back_within_twice_the_delay_and_two_seconds(recorders, port, count, delay, times):
    """B8: the clients of a server that comes back do not come all at once."""
    server = recorders(port=port).start()
    clients = [recorders(port=port, onlyConnect=True, delayReconnect=delay) for _ in range(count)]
    for client in clients:
        client.joined()
    for _ in range(times):
        server.emitter.stop()
        for client in clients:
            client.wait("offline")
            client.forget()
        began = time.monotonic()
        server.start()
        for client in clients:
            client.wait("parent")
        took = time.monotonic() - began
        assert took <= 2 * delay / 1000 + 2
        assert server.emitter.childsOnline == count
        print(f"{count} clients back after {took:.2f} s")
    for client in clients:
        assert client.of("error") == []
