"""Builds noded's deb and rpm packages, manual pages and shell completions from one description.

`python -m noded_packaging deb|rpm` with the packaging directory on the module path; `make deb rpm`
does that. A package is a `Tree`, what to install where, made once; `deb` and `rpm` only wrap it.
"""
