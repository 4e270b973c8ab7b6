#!/usr/bin/python3 -IBS
# noded for the system's Python, with packages of its own: /usr/lib/noded says which.
import sys

sys.path.insert(0, "/usr/lib/noded")
import noded_start

noded_start.prepare()

from noded.__main__ import main

main()
