"""Whether an image may be used: a policy, and the signatures that it asks for.

`checker.py` decides by the policy (`noded.wire.policy`), globally or per Kubernetes namespace. Signatures
are found as registries.d says (`registries_d.py`): in a lookaside store as OpenPGP messages
(`lookaside.py`, checked by `openpgp.py` with gpgv) or beside the image in its registry as cosign writes
them (`sigstore.py`). Whatever cannot be checked is refused.
"""
