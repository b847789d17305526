"""The commands of `repoformer-lsp`, one module for each. `lsp_server.cli` lists them."""
