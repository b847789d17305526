--- The command line of the server's `doctor`: the command of the server, and `doctor`.

local M = {}

---@return string[]
function M.command()
  local cmd = vim.lsp.config.repoformer.cmd --[[@as string[] ]]
  return vim.list_extend(vim.list_slice(cmd), { 'doctor' })
end

return M
