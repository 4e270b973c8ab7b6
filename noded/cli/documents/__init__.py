"""What commands print with --json, as types: the checker holds the commands to them, and `noded schema` and
docs/json.md are made from them. The comment of a key is its meaning.

Keys may be added; none changes its meaning or goes away. A grammar module names the type of a command as
"module:Name" of this package.
"""
