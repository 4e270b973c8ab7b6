"""Storage drivers: how the root file system of a container is made from the trees of its layers.

All share the layer store; what a driver makes lies in the directory of its container, with the
driver's name in it. So a node can change its driver at any time: containers keep theirs, new ones get
the new one, and no image is pulled or unpacked again.
"""
