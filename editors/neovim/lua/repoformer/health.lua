--- `:checkhealth repoformer`

local M = {}

function M.check()
  local health = vim.health
  health.start('Neovim')
  if vim.lsp.inline_completion then
    health.ok('inline completion is built in')
  elseif vim.fn.has('nvim-0.11') == 1 then
    health.ok('Neovim 0.11: inline completion by the plugin itself')
  else
    health.error('Neovim 0.11 or later is needed')
    return
  end

  health.start('Server')
  local cmd = vim.lsp.config.repoformer.cmd
  if vim.fn.executable(cmd[1]) == 0 then
    health.error(('there is no program `%s`'):format(cmd[1]), {
      'Install it: `:Repoformer install`',
      "or name it: require('repoformer').setup{ cmd = { '/path/to/repoformer-lsp' } }",
    })
    return
  end
  health.ok(vim.fn.exepath(cmd[1]))
  if not vim.lsp.is_enabled or vim.lsp.is_enabled('repoformer') then
    health.ok('enabled')
  else
    health.warn('not enabled', { "require('repoformer').setup{}" })
  end
  for _, client in ipairs(vim.lsp.get_clients({ name = 'repoformer' })) do
    local status = require('repoformer.status').of(next(client.attached_buffers))
    local report = status and status.state == 'error' and health.error or health.info
    report(('client %d, %s: %s'):format(client.id, client.root_dir or 'no folder', status and status.message or '?'))
  end

  health.start('Doctor')
  local done = vim.system(require('repoformer.doctor').command(), { text = true }):wait(60000)
  for line in vim.gsplit(vim.trim(done.stdout or ''), '\n') do
    local good, text = line:match('^(%S+) (.*)$')
    if good == '✓' then
      health.ok(text)
    elseif good == '✗' then
      health.error(text)
    else
      health.info(vim.trim(line:gsub('^· ', '')))
    end
  end
end

return M
