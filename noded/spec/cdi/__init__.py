"""Container Device Interface: devices that a vendor describes in files of the node (CDI 0.3 to 1.1).

names -> which devices a request names; document -> one file; catalogue -> all files of the node;
edits -> what a device changes in an OCI spec.
"""
