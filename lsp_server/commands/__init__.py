"""Commands of `repoformer-lsp`, a module each; `lsp_server.cli` lists them."""
