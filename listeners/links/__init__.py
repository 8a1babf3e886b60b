"""Links: the ways on which a listener reaches a service. Each carries the same messages."""
