"""Making the parts of the engine, group by group; each group is used by those after it.

Parts get what they use by their constructors. What a part needs of a later one is given in
`noded.engine.engine`, at one place.
"""
