"""An example of a runtime plugin by a third party."""
