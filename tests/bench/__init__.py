"""`make bench`: noded beside other CRI runtimes and the floor, measured in one run on one machine."""
