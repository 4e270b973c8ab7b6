"""Where each field of a spec comes from, found by changing what it is made of and building it again."""
