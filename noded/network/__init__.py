"""CNI client: chooses the pod network, runs its plugins, and says whether pods can be attached.

Spec: https://www.cni.dev/docs/spec/ (0.1.0 to 1.1.0), https://www.cni.dev/docs/conventions/.
"""
