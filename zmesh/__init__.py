"""Brokerless, reliable messaging for services on a LAN."""

from zmesh.actions import PeerState
from zmesh.errors import (
    AlreadySettled,
    AmbiguousPeer,
    Backpressure,
    BodyNotEncodable,
    BodyTooLarge,
    Closed,
    DeadLettered,
    DeliveryError,
    DeliveryTimeout,
    DuplicateIdentity,
    Expired,
    ForkedProcess,
    InvalidOption,
    MapFull,
    NoProvider,
    NotOpen,
    PeerLost,
    PeerRestarted,
    PeersMissing,
    PeerUnknown,
    ProtocolError,
    Reject,
    Rejected,
    RemoteError,
    UsageError,
    WrongThread,
    ZmeshError,
)
from zmesh.face.assembly import DrainReport, NodeStatistics
from zmesh.face.inbox import Inbox
from zmesh.face.outgoing import Headers
from zmesh.face.peers_view import (
    Joined,
    Left,
    Overrun,
    Peer,
    PeerEvent,
    Peers,
    Recovered,
    Suspected,
    Updated,
)
from zmesh.face.receipts import Receipt
from zmesh.face.received import Message
from zmesh.face.shared import ABSENT, Change, MapWatcher, SharedMap
from zmesh.face.subscriptions import Subscription
from zmesh.message import Failure, FailureKind
from zmesh.node import Node
from zmesh.options import (
    DiscoveryOptions,
    LinkOptions,
    NodeOptions,
    TransportOptions,
    WireLimits,
)
from zmesh.patterns.redelivery import DeadLetter

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "AlreadySettled",
    "AmbiguousPeer",
    "Backpressure",
    "BodyNotEncodable",
    "BodyTooLarge",
    "Change",
    "Closed",
    "DeadLetter",
    "DeadLettered",
    "DeliveryError",
    "DeliveryTimeout",
    "DiscoveryOptions",
    "DrainReport",
    "DuplicateIdentity",
    "Expired",
    "Failure",
    "FailureKind",
    "ForkedProcess",
    "Headers",
    "Inbox",
    "InvalidOption",
    "Joined",
    "Left",
    "LinkOptions",
    "MapFull",
    "MapWatcher",
    "Message",
    "NoProvider",
    "Node",
    "NodeOptions",
    "NodeStatistics",
    "NotOpen",
    "Overrun",
    "Peer",
    "PeerEvent",
    "PeerLost",
    "PeerRestarted",
    "PeerState",
    "PeerUnknown",
    "Peers",
    "PeersMissing",
    "ProtocolError",
    "Receipt",
    "Recovered",
    "Reject",
    "Rejected",
    "RemoteError",
    "SharedMap",
    "Subscription",
    "Suspected",
    "TransportOptions",
    "Updated",
    "UsageError",
    "WireLimits",
    "WrongThread",
    "ZmeshError",
]
