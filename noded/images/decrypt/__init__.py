"""Layers that are encrypted as ocicrypt does it: private keys of the node, and a way to read the layer."""
