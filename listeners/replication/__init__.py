"""Replication: bringing what is in one barrel into another, here or elsewhere, at that one's own pace.

A `Replicator` stands between two peers; `replicate` is the short way for programs.
"""

from feeds.structs import prepare
from listeners.replication.errors import BadPeer, PeerChanged, Unfit
from listeners.replication.filters import Filter
from listeners.replication.local import LocalPeer
from listeners.replication.opening import Place, opened_peer, replicate
from listeners.replication.options import Options
from listeners.replication.over_couch import CouchPeer
from listeners.replication.over_http import HttpPeer
from listeners.replication.over_mqtt import MqttPeer
from listeners.replication.peer import Blob, Fetched, Identity, Page, Peer, Wanted
from listeners.replication.progress import Progress, Refusal
from listeners.replication.replicator import Pair, Replicator
from listeners.replication.retrying import Patience

__all__ = [
    "BadPeer",
    "Blob",
    "CouchPeer",
    "Fetched",
    "Filter",
    "HttpPeer",
    "Identity",
    "LocalPeer",
    "MqttPeer",
    "Options",
    "Page",
    "Pair",
    "Patience",
    "Peer",
    "PeerChanged",
    "Place",
    "Progress",
    "Refusal",
    "Replicator",
    "Unfit",
    "Wanted",
    "opened_peer",
    "replicate",
]

prepare()  # a program may have replicators in several threads
