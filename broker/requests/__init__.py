"""Requests over MQTT: what clients ask under `from/`, and how it is answered under `to/`."""

from broker.requests.limits import RequestLimits
from broker.requests.service import RequestService

__all__ = ["RequestLimits", "RequestService"]
