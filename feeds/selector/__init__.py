"""Selectors: which documents somebody means, in the language that CouchDB calls Mango.

Pure. One implementation for every place that filters. `Selector.parse` reads one, once; `matches` is asked for each
document; `bounds` tells what the path index can narrow it to.
"""

from feeds.selector.bounds import Bound, Reading
from feeds.selector.operators import OPERATORS
from feeds.selector.selector import Selector

__all__ = ["OPERATORS", "Bound", "Reading", "Selector"]
