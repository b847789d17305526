--- Restart the server, on request and after a crash.
---
--- After a crash, the restart is immediate. If a buffer is edited while it has no client, Neovim stops tracking its
--- changes, and does not resume when a client attaches later.

local M = {}

-- After more than `MOST` crashes in `PERIOD_S` seconds, the server is not started again.
local PERIOD_S = 180
local MOST = 4

---@type integer[]
local crashes = {}

--- Attach a server to these buffers, as `vim.lsp.enable` does when their file type is set.
---@param buffers integer[]
local function attach(buffers)
  for _, buf in ipairs(buffers) do
    if vim.api.nvim_buf_is_loaded(buf) then
      vim.api.nvim_exec_autocmds('FileType', { group = 'nvim.lsp.enable', buffer = buf, modeline = false })
    end
  end
end

--- Start a server after a crash, unless it keeps crashing; returns whether it starts.
---@param client_id integer
---@return boolean
function M.after_crash(client_id)
  local now = os.time()
  crashes = vim.tbl_filter(function(time)
    return now - time < PERIOD_S
  end, crashes)
  table.insert(crashes, now)
  local client = vim.lsp.get_client_by_id(client_id)
  if #crashes > MOST or not client then
    return false
  end
  local buffers = vim.tbl_keys(client.attached_buffers)
  vim.schedule(function()
    vim.schedule(function() -- by then Neovim has removed the old client
      attach(buffers)
    end)
  end)
  return true
end

function M.now()
  local buffers = {}
  for _, client in ipairs(vim.lsp.get_clients({ name = 'repoformer' })) do
    vim.list_extend(buffers, vim.tbl_keys(client.attached_buffers))
    client:stop()
  end
  local gone = vim.wait(5000, function()
    return #vim.lsp.get_clients({ name = 'repoformer' }) == 0
  end, 50)
  if not gone then
    vim.notify('repoformer: the server does not stop', vim.log.levels.ERROR)
    return
  end
  crashes = {}
  require('repoformer.status').forget()
  attach(#buffers > 0 and buffers or vim.api.nvim_list_bufs())
end

return M
