"""What is in the workspace: files cut into chunks, and the chunks a completion at a cursor is likely to need.

Knows nothing of language models or of LSP. Entry points: `indexer.workspace.WorkspaceIndex` (a living workspace) and
`indexer.snapshot.Snapshot` (an immutable index that answers queries).
"""
