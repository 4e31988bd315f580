"""Pillar's publications: SOCK_SEQPACKET sockets below /run, `docs/eve.md`."""

from extsloader.adapters.pubsub.publisher import Bounds, Publisher
from extsloader.adapters.pubsub.subscriber import Subscriber
from extsloader.adapters.pubsub.topic import Topic

__all__ = ["Bounds", "Publisher", "Subscriber", "Topic"]
