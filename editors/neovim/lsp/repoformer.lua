--- The configuration of the server for `vim.lsp.enable('repoformer')`. To override a part of it, call
--- `vim.lsp.config('repoformer', {...})`, or `require('repoformer').setup{}`, which calls `vim.lsp.config`.

---@type vim.lsp.Config
return {
  cmd = require('repoformer.server').command(),
  filetypes = {
    'bash',
    'c',
    'clojure',
    'cpp',
    'cs',
    'dart',
    'elixir',
    'erlang',
    'fsharp',
    'go',
    'graphql',
    'groovy',
    'haskell',
    'java',
    'javascript',
    'javascriptreact',
    'julia',
    'kotlin',
    'lua',
    'nim',
    'objc',
    'objcpp',
    'ocaml',
    'perl',
    'php',
    'proto',
    'ps1',
    'python',
    'r',
    'ruby',
    'rust',
    'scala',
    'sh',
    'solidity',
    'sql',
    'svelte',
    'swift',
    'terraform',
    'typescript',
    'typescriptreact',
    'vue',
    'zig',
  },
  root_markers = { { '.git', '.hg', '.jj' }, { 'pyproject.toml', 'package.json', 'Cargo.toml', 'go.mod' } },
  capabilities = { textDocument = { inlineCompletion = { dynamicRegistration = false } } },
  on_init = function(client)
    require('repoformer.ghost').adopt(client)
    require('repoformer.progress').follow(client.id)
  end,
  on_attach = function(client, buf)
    require('repoformer.ghost').attach(client, buf)
  end,
  on_exit = function(code, signal, client_id)
    local again = (code ~= 0 or signal ~= 0) and require('repoformer.restart').after_crash(client_id)
    require('repoformer.status').ended(client_id, code, signal, again)
  end,
  handlers = {
    ['repoformer/status'] = function(_, status, context)
      require('repoformer.status').update(context.client_id, status)
    end,
  },
}
