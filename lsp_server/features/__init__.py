"""The handlers of the protocol, grouped by subject. They convert between LSP messages and calls of the session."""
