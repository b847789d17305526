--- The command line that checks this machine: the command of the server, with the argument `doctor`.

local M = {}

---@return string[]
function M.command()
  local cmd = vim.lsp.config.repoformer.cmd --[[@as string[] ]]
  return vim.list_extend(vim.list_slice(cmd), { 'doctor' })
end

return M
