"""The protocol and the command line of repoformer-lsp. Only this package depends on LSP."""
