"""Node Resource Interface: plugins that see pods and containers come and go, and adjust them.

`service` knows which plugins there are and tells them of events in the order of their indices;
`plugin` is one of them, `connection` its socket. `merge`, `adjust`, `limits` and `objects` are pure.
Messages are imported when the first plugin comes, not before.
"""
