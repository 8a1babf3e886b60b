"""Merge rules: how live leaves of a document become one, by a pure function of these leaves alone.

Values in, values out. When a rule is asked, and what is stored then, is for `feeds.storage.settling`.
"""

from feeds.merging.leaf import LiveLeaf, Merged
from feeds.merging.rules import Function, Rule, fields, function_rule, newest
from feeds.merging.setting import MergeSetting
from feeds.merging.settle import Settlement, Unsettled, settle

__all__ = [
    "Function",
    "LiveLeaf",
    "MergeSetting",
    "Merged",
    "Rule",
    "Settlement",
    "Unsettled",
    "fields",
    "function_rule",
    "newest",
    "settle",
]
