"""Publishing to, and taking requests from, an MQTT broker that Spile does not run, through paho."""

from broker.external.access import BrokerAccess, BrokerAddress
from broker.external.broker import ExternalBroker
from broker.external.limits import ExternalLimits

__all__ = ["BrokerAccess", "BrokerAddress", "ExternalBroker", "ExternalLimits"]
