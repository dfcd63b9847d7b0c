"""Brokerless, reliable messaging for services on a LAN."""

from zmesh.actions import MemberState, PeerState
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
    ExchangeConflict,
    ExchangeUnknown,
    Expired,
    FileChanged,
    FileCorrupted,
    FileNotSaved,
    FileRefused,
    ForkedProcess,
    InvalidBody,
    InvalidOption,
    MapFull,
    MissingPackage,
    NoMembers,
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
    SlowSubscriber,
    StreamBroken,
    Unroutable,
    UsageError,
    WrongThread,
    ZmeshError,
)
from zmesh.face.assembly import DrainReport, NodeStatistics
from zmesh.face.exchange import Exchange
from zmesh.face.fan_outs import FanOut, FanOutReport, MemberOutcome
from zmesh.face.file_terms import FileOffer
from zmesh.face.groups import Group
from zmesh.face.inbox import Inbox
from zmesh.face.jobs import Jobs
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
from zmesh.face.receiving import FileReceiver, ReceivedFile
from zmesh.face.sending import SentFile
from zmesh.face.shared import ABSENT, Change, MapWatcher, SharedMap
from zmesh.face.streams import Stream
from zmesh.face.subscriptions import Subscription
from zmesh.face.surveys import Survey, SurveyFailure
from zmesh.message import Failure, FailureKind
from zmesh.node import Node
from zmesh.options import (
    DiscoveryOptions,
    LinkOptions,
    NodeOptions,
    TransportOptions,
    WireLimits,
)
from zmesh.patterns.bindings import Binding, Destination, DestinationKind
from zmesh.patterns.redelivery import DeadLetter

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "AlreadySettled",
    "AmbiguousPeer",
    "Backpressure",
    "Binding",
    "BodyNotEncodable",
    "BodyTooLarge",
    "Change",
    "Closed",
    "DeadLetter",
    "DeadLettered",
    "DeliveryError",
    "DeliveryTimeout",
    "Destination",
    "DestinationKind",
    "DiscoveryOptions",
    "DrainReport",
    "DuplicateIdentity",
    "Exchange",
    "ExchangeConflict",
    "ExchangeUnknown",
    "Expired",
    "Failure",
    "FailureKind",
    "FanOut",
    "FanOutReport",
    "FileChanged",
    "FileCorrupted",
    "FileNotSaved",
    "FileOffer",
    "FileReceiver",
    "FileRefused",
    "ForkedProcess",
    "Group",
    "Headers",
    "Inbox",
    "InvalidBody",
    "InvalidOption",
    "Jobs",
    "Joined",
    "Left",
    "LinkOptions",
    "MapFull",
    "MapWatcher",
    "MemberOutcome",
    "MemberState",
    "Message",
    "MissingPackage",
    "NoMembers",
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
    "ReceivedFile",
    "Recovered",
    "Reject",
    "Rejected",
    "RemoteError",
    "SentFile",
    "SharedMap",
    "SlowSubscriber",
    "Stream",
    "StreamBroken",
    "Subscription",
    "Survey",
    "SurveyFailure",
    "Suspected",
    "TransportOptions",
    "Unroutable",
    "Updated",
    "UsageError",
    "WireLimits",
    "WrongThread",
    "ZmeshError",
]
