"""Behaviour: what happens to pods and containers, in which order, and how it is undone."""
