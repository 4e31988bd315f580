"""Pillar's publications: SOCK_SEQPACKET sockets below /run, `docs/eve.md`."""

from extsloader.adapters.pubsub.publisher import Bounds, Item, Publisher
from extsloader.adapters.pubsub.subscriber import Subscriber
from extsloader.adapters.pubsub.topic import Topic

__all__ = ["Bounds", "Item", "Publisher", "Subscriber", "Topic"]
