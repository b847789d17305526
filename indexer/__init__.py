"""Index a workspace: cut its files into chunks, and find the chunks that a completion at a cursor is likely to need.

This package depends neither on language models nor on LSP. Entry points: `indexer.workspace.WorkspaceIndex` (an index
that follows the workspace's changes) and `indexer.snapshot.Snapshot` (an immutable index that answers queries).
"""
