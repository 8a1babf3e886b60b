"""How much is let in: limits with names, fair shares, a target for waiting, and a rate for each client.

The parts are pure and driven by the clock they are told; `regulator` puts them together for every way in.
"""

from broker.regulation.limit import Limit
from broker.regulation.regulator import Regulation, Regulator, Ticket

__all__ = ["Limit", "Regulation", "Regulator", "Ticket"]
