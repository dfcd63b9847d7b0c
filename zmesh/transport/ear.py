"""Hearing what the monitors of all sockets tell, a little in a turn: strangers make most of it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import zmq

from zmesh.options import TransportOptions, WireLimits
from zmesh.transport.counters import Counters
from zmesh.transport.descriptors import are_scarce
from zmesh.transport.process import ThisProcess
from zmesh.transport.pump import READABLE, Intake, Packets, has
from zmesh.transport.sockets import Socket

_PATIENCE_S: Final = 1.0
"""How long it rests between turns: of a flood that goes on, what waits must not grow for ever."""


class Ear(Intake):
    """The intake of the socket that hears all monitors.

    Each connection of a stranger makes three events, whatever becomes of it. So a turn is shorter
    than that of other sockets: whoever waits for an answer waits for several turns of the loop.
    And where there is more than a turn takes it rests before the next: a thread that never sleeps
    is not let in at once when there is something to do, on a machine where others want to work.
    It does not while descriptors are scarce, as each stranger who is not shut yet has one.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: Socket,
        options: TransportOptions,
        limits: WireLimits,
        *,
        deliver: Callable[[Packets], None],
    ) -> None:
        shorter = replace(options, turn_max=min(options.turn_max, options.connections_turn_max))
        self._share_max = options.connections_share_max
        self._behind_since: float | None = None  # since when there was more at the end of turns
        counters = Counters()  # monitors are no traffic
        super().__init__(loop, socket, None, shorter, limits, counters, deliver=deliver)

    def _on_wake(self) -> None:
        if ThisProcess.pid != self._pid:
            return
        began = self._loop.time()
        super()._on_wake()
        if self._planned is None:
            self._behind_since = None
            return
        now = self._loop.time()
        if self._behind_since is None:
            self._behind_since = began
        patience = self._behind_since + _PATIENCE_S
        if now < patience and not are_scarce():
            self._planned.cancel()
            rest = (now - began) * (1.0 / self._share_max - 1.0)
            self._planned = self._loop.call_at(min(now + rest, patience), self._on_wake)

    def _read(self, packets: Packets) -> bool:
        """Read up to the budget of a turn; return whether the socket is empty.

        Events have two parts each (zmq_socket_monitor(3)), so nobody asks whether more follow:
        that costs more than to read them.
        """
        if self._is_reading and not self._skip_rest():
            return False
        receive = self._socket.recv
        self._is_reading = True
        is_empty = False
        count = 0
        try:
            while count < self._share.packets_max:
                key = receive(zmq.NOBLOCK)
                packets.append((key, [receive(zmq.NOBLOCK), receive(zmq.NOBLOCK)]))
                count += 1
                if count == 1 and not has(self._socket, READABLE):
                    is_empty = True
                    break
        except zmq.Again:
            is_empty = True
        self._is_reading = False
        return is_empty
