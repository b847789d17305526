"""Tides of harbours, from the readings of their gauges."""
