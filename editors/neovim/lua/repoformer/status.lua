--- The last `repoformer/status` of each server, and its text for a status line.

local M = {}

---@class repoformer.Status
---@field state 'starting'|'indexing'|'ready'|'generating'|'off'|'error'|'stopped'
---@field message string
---@field model? string
---@field policy? string
---@field suggest? string
---@field percent? integer

---@type table<integer, repoformer.Status>
local statuses = {}

local signs = {
  starting = '…',
  indexing = '⟳',
  ready = '✓',
  generating = '✎',
  off = '∅',
  error = '✗',
  stopped = '✗',
}

--- Draw the status lines again, and fire the event `RepoformerStatus`.
function M.redraw()
  vim.schedule(function()
    vim.cmd.redrawstatus({ bang = true })
    vim.api.nvim_exec_autocmds('User', { pattern = 'RepoformerStatus', modeline = false })
  end)
end

---@param client_id integer
---@param status repoformer.Status
function M.update(client_id, status)
  statuses[client_id] = status
  M.redraw()
end

--- Record that the server's process has ended; `again` says whether it is restarted. Neovim itself tells the user if
--- the end was unexpected.
function M.ended(client_id, code, signal, again)
  if (code == 0 and signal == 0) or again then
    statuses[client_id] = nil
  else
    local how = signal ~= 0 and ('by signal %d'):format(signal) or ('with status %d'):format(code)
    statuses[client_id] =
      { state = 'stopped', message = ('the server has ended %s; `:Repoformer restart` starts it again'):format(how) }
  end
  M.redraw()
end

--- Remove servers that have ended, before another one starts.
function M.forget()
  for id, status in pairs(statuses) do
    if status.state == 'stopped' then
      statuses[id] = nil
    end
  end
  M.redraw()
end

--- The status for a buffer, and its client's id; nil if no server was started.
---@param buf? integer
---@return repoformer.Status?, integer?
function M.of(buf)
  local client = vim.lsp.get_clients({ bufnr = buf or 0, name = 'repoformer' })[1]
  if client then
    return statuses[client.id] or { state = 'starting', message = 'starting' }, client.id
  end
  for id, status in pairs(statuses) do
    if status.state == 'stopped' then
      return status, id
    end
  end
end

--- Whether completions are switched off for the buffer's language.
function M.off_here(buf)
  local client = vim.lsp.get_clients({ bufnr = buf or 0, name = 'repoformer' })[1]
  if not client then
    return false
  end
  local ours = (client.settings or {}).repoformer or {}
  local language = client.get_language_id(buf or 0, vim.bo[buf or 0].filetype)
  return vim.list_contains(ours.disabledLanguages or {}, language)
end

--- For 'statusline': `%{%v:lua.require'repoformer'.statusline()%}`. Empty if there is no server.
---@return string
function M.line()
  local progress = require('repoformer.install').progress
  if progress then
    local percent = type(progress.percent) == 'number' and (' %d%%%%'):format(progress.percent) or ''
    return ('repoformer ↓%s'):format(percent)
  end
  local status = M.of(0)
  if not status then
    return ''
  end
  local state = status.state
  if state ~= 'stopped' and state ~= 'error' and M.off_here(0) then
    state = 'off'
  end
  local text = ('repoformer %s'):format(signs[state] or state)
  if state == 'indexing' and status.percent then
    text = ('%s %d%%%%'):format(text, status.percent)
  end
  return text
end

return M
