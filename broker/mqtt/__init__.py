"""MQTT: the embedded broker, its contract, and what stands beside it."""
