"""Refuse what cannot work, before anything is made, in terms of the CRI field at fault."""

from noded.spec.validate.containers import validate_container
from noded.spec.validate.limits import check_resources
from noded.spec.validate.pods import validate_pod

__all__ = ["check_resources", "validate_container", "validate_pod"]
