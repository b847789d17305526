"""The protocol and the command line of repoformer-lsp: the one package that knows LSP."""
