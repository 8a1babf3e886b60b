"""Measurements, each a command that prints JSON.

Ratios within one run can be trusted; absolute figures depend on the machine.
"""
