--- Change the server's settings while it runs.

local M = {}

local function clients()
  return vim.lsp.get_clients({ name = 'repoformer' })
end

--- Change the settings of every running server, and of those that start later in this session.
---@param change fun(settings: table)
local function alter(change)
  local function apply(settings)
    local ours = vim.deepcopy((settings or {}).repoformer or {})
    change(ours)
    return { repoformer = next(ours) and ours or vim.empty_dict() }
  end
  local config = vim.lsp.config.repoformer
  config.settings = apply(config.settings)
  vim.lsp.config('repoformer', { settings = config.settings })
  for _, client in ipairs(clients()) do
    client.settings = apply(client.settings)
    client:notify('workspace/didChangeConfiguration', { settings = client.settings })
  end
end

--- The language id of a buffer that the client sends to the server.
local function language_of(buf)
  local client = clients()[1]
  return client and client.get_language_id(buf, vim.bo[buf].filetype) or vim.bo[buf].filetype
end

---@param scope 'all'|'language'
function M.pause(scope)
  local language = scope == 'language' and language_of(vim.api.nvim_get_current_buf())
  alter(function(ours)
    if not language then
      ours.enabled = false
      return
    end
    local off = ours.disabledLanguages or {}
    if not vim.list_contains(off, language) then
      table.insert(off, language)
    end
    ours.disabledLanguages = off
  end)
  require('repoformer.ghost').dismiss()
end

function M.resume()
  local language = language_of(vim.api.nvim_get_current_buf())
  alter(function(ours)
    ours.enabled = true
    -- Set the list even if it is empty: `vim.lsp.config` merges tables, and would keep an old list.
    ours.disabledLanguages = vim.tbl_filter(function(each)
      return each ~= language
    end, ours.disabledLanguages or {})
  end)
end

---@param name 'policy'|'suggest'
---@param value string
function M.set(name, value)
  alter(function(ours)
    ours[name] = value
  end)
end

return M
