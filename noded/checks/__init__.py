"""`noded check`: facts of the node are gathered, then judged by rules.

`gather` reads the node and decides nothing. `rules` are pure functions from facts to results, one
module for each subject. A new check is a fact in `facts`, its reading in `gather`, and a rule.
"""
